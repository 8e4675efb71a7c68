import { createSocket, type Socket } from 'node:dgram';
import { once } from 'node:events';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import {
  decodeRequest,
  deriveProbeKey,
  encodeReply,
  encodeRequest,
  openReply,
} from '../../src/adapters/boot-probe/packet.ts';
import { parseUdpAddress, UdpBootProber } from '../../src/adapters/boot-probe/udp-boot-prober.ts';
import { ProbeResponder } from '../../src/boot/probe-responder.ts';
import { nodeId } from '../../src/model/ids.ts';
import { SILENT_LOG } from '../../src/ports/log.ts';
import { BootBed } from './boot-bed.ts';

const key = deriveProbeKey(Buffer.from('secret'), 'c1');
const names = { clusterId: 'c1', prober: 'peer-a', target: 'peer-b' };
const nonce = Buffer.alloc(16, 7);

describe('probe packets', () => {
  it('a reply is never longer than a request', () => {
    expect(encodeReply(key, names, nonce, 1).length).toBeLessThanOrEqual(
      encodeRequest(key, { ...names, prober: '' }, nonce).length,
    );
  });

  it('a reply holds for its names, nonce, flags and key only', () => {
    const reply = encodeReply(key, names, nonce, 1);
    expect(openReply(key, names, reply)).toBe(1);
    for (let i = 0; i < reply.length; i++) {
      const changed = Buffer.from(reply);
      changed[i] = (changed[i] ?? 0) ^ 1;
      expect([i, openReply(key, names, changed)]).toEqual([i, undefined]);
    }
    expect(openReply(key, { ...names, target: 'peer-c' }, reply)).toBeUndefined();
    expect(openReply(key, { ...names, clusterId: 'c2' }, reply)).toBeUndefined();
    expect(openReply(deriveProbeKey(Buffer.from('secret'), 'c2'), names, reply)).toBeUndefined();
    expect(openReply(key, names, encodeRequest(key, names, nonce))).toBeUndefined();
  });

  it('reads addresses of both families, and nothing else', () => {
    expect(parseUdpAddress('10.0.0.1:70')).toEqual({ host: '10.0.0.1', port: 70, family: 4 });
    expect(parseUdpAddress('[fe80::1%eth0]:70')).toEqual({ host: 'fe80::1%eth0', port: 70, family: 6 });
    for (const text of ['host:70', '10.0.0.1', '10.0.0.1:0', '10.0.0.1:70000', '300.1.1.1:7', ''])
      expect(parseUdpAddress(text)).toBeUndefined();
  });
});

describe('probe responder', () => {
  let responder: ProbeResponder;
  let socket: Socket;
  let agentUp = true;
  beforeEach(async () => {
    agentUp = true;
    responder = new ProbeResponder(() => agentUp, SILENT_LOG);
    await responder.start(0, '127.0.0.1');
    responder.identity = { clusterId: 'c1', nodeId: 'peer-b', keys: [deriveProbeKey(Buffer.from('newer'), 'c1'), key] };
    socket = createSocket('udp4');
    socket.bind(0, '127.0.0.1');
    await once(socket, 'listening');
  });
  afterEach(() => {
    responder.close();
    socket.close();
  });
  const send = (packet: Uint8Array): void => socket.send(packet, responder.port, '127.0.0.1');
  const answer = async (): Promise<Buffer> => (await once(socket, 'message'))[0] as Buffer;

  it('answers an authentic probe under any of its keys, with the state of the agent', async () => {
    send(encodeRequest(key, names, nonce));
    expect(openReply(key, names, await answer())).toBe(1);
    agentUp = false;
    send(encodeRequest(key, names, Buffer.alloc(16, 8)));
    expect(openReply(key, names, await answer())).toBe(0);
  });

  it('is silent to garbage, strangers, probes meant for others, and replays', async () => {
    const good = encodeRequest(key, names, nonce);
    const stranger = encodeRequest(deriveProbeKey(Buffer.from('other'), 'c1'), names, Buffer.alloc(16, 2));
    const forOther = encodeRequest(key, { ...names, target: 'peer-c' }, Buffer.alloc(16, 3));
    const dropped = [
      Buffer.alloc(0),
      Buffer.alloc(2000, 1),
      good.subarray(0, -1),
      Buffer.concat([good, good]),
      stranger,
      forOther,
      encodeReply(key, names, nonce, 1),
    ];
    for (const packet of dropped) send(packet);
    send(good);
    expect(openReply(key, names, await answer())).toBe(1);
    send(good);
    // Datagrams on loopback keep their order: this one's answer shows that the replay got none.
    const last = Buffer.alloc(16, 9);
    send(encodeRequest(key, names, last));
    expect(decodeRequest(encodeRequest(key, names, last))?.nonce).toEqual(last);
    expect((await answer()).subarray(4, 20)).toEqual(last);
    expect(responder.counters).toEqual({ answered: 2, dropped: dropped.length + 1 });
  });

  it('is silent before the agent has said who this peer is', async () => {
    const identity = responder.identity;
    responder.identity = undefined;
    send(encodeRequest(key, names, nonce));
    responder.identity = identity;
    const other = Buffer.alloc(16, 4);
    send(encodeRequest(key, names, other));
    const first = await answer();
    // Either the first arrived before the identity came back, or both are answered in order; never one unauthenticated.
    expect(openReply(key, names, first)).toBe(1);
  });
});

describe('boot and the prober together', () => {
  let bed: BootBed;
  beforeEach(async () => {
    bed = await new BootBed().listen();
  });
  afterEach(() => bed.dispose());

  it('a probe is acknowledged while the agent is stopped, once per attempt, and a false answer never', async () => {
    bed.boot();
    const hello = await bed.event('hello');
    const port = (hello.facts as { probePort: number }).probePort;
    bed.tell({ do: 'identify', clusterId: 'c1', nodeId: 'peer-b', secret: 'secret' });
    bed.tell({ do: 'register', copyId: 'after', exclusive: false, targets: [] });
    await bed.event('registered');
    process.kill(hello.pid as number, 'SIGSTOP');
    const prober = new UdpBootProber({ self: nodeId('peer-a'), clusterId: 'c1', key: () => key });
    try {
      const acks: unknown[] = [];
      const acked = new Promise<void>((resolve) => {
        prober.onAck((peer, attempt, up) => {
          acks.push([peer, attempt, up]);
          if (attempt === 2) resolve();
        });
      });
      prober.probe(nodeId('peer-c'), 9, [`127.0.0.1:${port}`]);
      prober.probe(nodeId('peer-b'), 1, ['nonsense', `127.0.0.1:${port}`, `127.0.0.1:${port}`]);
      prober.probe(nodeId('peer-b'), 2, [`127.0.0.1:${port}`]);
      await acked;
      expect(acks).toEqual([
        ['peer-b', 1, true],
        ['peer-b', 2, true],
      ]);
    } finally {
      process.kill(hello.pid as number, 'SIGCONT');
      prober.close();
    }
  });
});

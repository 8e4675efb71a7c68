import { randomBytes } from 'node:crypto';
import { encode } from '@ipld/dag-cbor';
import type { Connection, Stream } from '@libp2p/interface';
import { afterEach, describe, expect, test } from 'vitest';
import { bulkProtocol } from '../../../src/adapters/libp2p/bulk-server.ts';
import { admissionProtocol } from '../../../src/adapters/libp2p/gate.ts';
import { rpcProtocol } from '../../../src/adapters/libp2p/links.ts';
import { admitRaw, CLUSTER, closed, dialRaw, keyOrdered, never, Rig, type TestPeer } from './harness.ts';

// A member gone bad sends what no member sends, on every protocol. The peer must go on serving the others.

const u32 = (value: number): Uint8Array => {
  const out = Buffer.alloc(4);
  out.writeUInt32BE(value);
  return out;
};
const rpcFrame = (kind: number, id: number, text: string, payload: Uint8Array): Uint8Array =>
  Buffer.concat([
    u32(6 + text.length + payload.length),
    Uint8Array.of(kind),
    u32(id),
    Uint8Array.of(text.length),
    Buffer.from(text),
    payload,
  ]);
const HELLO = rpcFrame(0, 0, '', encode({ v: 1, a: [] }));
const OPEN = ((): Uint8Array => {
  const body = encode({ m: 'x', p: new Uint8Array(0) });
  return Buffer.concat([Uint8Array.of(0), u32(body.length), body]);
})();

describe('hostile frames', () => {
  let rig = new Rig();
  afterEach(async () => {
    await rig.stop();
    rig = new Rig();
  });

  /** A peer with one honest neighbour, and an admitted bare node next to it. */
  async function scene(): Promise<{ peer: TestPeer; honest: TestPeer; evil: () => Promise<Connection> }> {
    const peer = await rig.peer();
    const honest = await rig.peer();
    const raw = await rig.raw(await keyOrdered('below', peer.transport.self));
    const known = [peer, honest].map(({ transport }) => ({ id: transport.self, addresses: transport.addresses() }));
    for (const { transport } of [peer, honest]) transport.setPeers([...known, { id: raw.id, addresses: [] }]);
    await honest.transport.dial(peer.transport.self, never);
    return {
      peer,
      honest,
      evil: async () => {
        const connection = await dialRaw(raw, peer);
        await admitRaw(raw, connection, rig.secret);
        return connection;
      },
    };
  }
  const ended = (stream: Stream): Promise<void> =>
    new Promise((resolve) => {
      if (stream.status !== 'open') resolve();
      else stream.addEventListener('close', () => resolve(), { once: true });
    });
  const stillServes = async (peer: TestPeer, honest: TestPeer): Promise<void> => {
    const answer = await honest.transport.request(peer.transport.self, 'echo', Uint8Array.of(1), { timeoutMs: 5_000 });
    expect([...answer]).toEqual([1]);
    expect(honest.recorder.count('disconnected')).toBe(0);
  };

  test.each([
    ['garbage before the hello', [randomBytes(4096)], /^rpc_(oversized|unexpected|malformed)$/],
    ['an oversized length', [HELLO, u32(0x7fffffff)], /^rpc_oversized$/],
    ['an empty frame', [HELLO, u32(0)], /^rpc_malformed$/],
    ['a frame shorter than its header', [HELLO, u32(3), randomBytes(3)], /^rpc_malformed$/],
    ['an unknown kind', [HELLO, rpcFrame(99, 1, '', randomBytes(8))], /^rpc_malformed$/],
    ['an unknown channel', [HELLO, rpcFrame(1, 77, '', randomBytes(8))], /^rpc_malformed$/],
    ['a hello of another version', [rpcFrame(0, 0, '', encode({ v: 9, a: [] }))], /^rpc_wrong_version$/],
    ['a hello that is no cbor', [rpcFrame(0, 0, '', randomBytes(32))], /^rpc_(malformed|wrong_version)$/],
    [
      'a request id used twice',
      [HELLO, rpcFrame(2, 5, 'hold', new Uint8Array(0)), rpcFrame(2, 5, 'hold', new Uint8Array(0))],
      /^rpc_unexpected$/,
    ],
  ])('framed stream: %s', async (_name, chunks, counter) => {
    const { peer, honest, evil } = await scene();
    peer.recorder.serve = async (_from, method, payload) => (method === 'hold' ? new Promise(() => {}) : payload);
    const connection = await evil();
    const stream = await connection.newStream(rpcProtocol(CLUSTER));
    const gone = closed(connection);
    for (const chunk of chunks) stream.send(chunk);
    await gone;
    expect(Object.keys(peer.transport.counters()).filter((name) => counter.test(name)).length).toBeGreaterThan(0);
    await stillServes(peer, honest);
  });

  test('framed stream: truncated within a frame', async () => {
    const { peer, honest, evil } = await scene();
    const connection = await evil();
    const stream = await connection.newStream(rpcProtocol(CLUSTER));
    const gone = closed(connection);
    stream.send(Buffer.concat([HELLO, u32(1000), randomBytes(10)]));
    await stream.close();
    await gone;
    expect(peer.transport.counters().rpc_truncated).toBe(1);
    await stillServes(peer, honest);
  });

  test('framed stream: answers and errors nobody asked for are ignored', async () => {
    const { peer, honest, evil } = await scene();
    const connection = await evil();
    const stream = await connection.newStream(rpcProtocol(CLUSTER));
    for (const kind of [3, 4, 5, 7])
      stream.send(
        kind === 3
          ? Buffer.concat([HELLO, rpcFrame(kind, 1, '', randomBytes(8))])
          : rpcFrame(kind, 1, '', randomBytes(8)),
      );
    stream.send(rpcFrame(1, 0, '', Uint8Array.of(42)));
    await peer.recorder.until('the message after them', (heard) =>
      heard.some((event) => event.type === 'message' && event.payload[0] === 42),
    );
    await stillServes(peer, honest);
  });

  test.each([
    ['garbage', [Buffer.concat([Uint8Array.of(200), randomBytes(4096)])], /^bulk_(unexpected|malformed|oversized)$/],
    ['data before it is opened', [Buffer.concat([Uint8Array.of(1), u32(10), randomBytes(10)])], /^bulk_unexpected$/],
    ['an oversized opening', [Buffer.concat([Uint8Array.of(0), u32(0x7fffffff)])], /^bulk_oversized$/],
    ['an opening that is no cbor', [Buffer.concat([Uint8Array.of(0), u32(16), randomBytes(16)])], /^bulk_malformed$/],
    ['data beyond the credit', [OPEN, Buffer.concat([Uint8Array.of(1), u32(0x10000000)])], /^bulk_oversized$/],
    ['credit beyond the window', [OPEN, Buffer.concat([Uint8Array.of(2), u32(0xffffffff)])], /^bulk_unexpected$/],
  ])('bulk: %s', async (_name, chunks, counter) => {
    const { peer, honest, evil } = await scene();
    peer.recorder.stream = () => new Promise(() => {});
    const stream = await (await evil()).newStream(bulkProtocol(CLUSTER));
    const gone = ended(stream);
    for (const chunk of chunks) stream.send(chunk);
    await gone;
    expect(Object.keys(peer.transport.counters()).filter((name) => counter.test(name)).length).toBeGreaterThan(0);
    await stillServes(peer, honest);
  });

  test.each([
    ['garbage', Buffer.concat([u32(64), randomBytes(64)]), 'refused_malformed'],
    ['an oversized frame', u32(0x7fffffff), 'refused_oversized'],
    [
      'a hello with a short nonce',
      ((): Uint8Array => {
        const body = encode({ t: 'hello', m: 'member', n: new Uint8Array(3), k: ['x'] });
        return Buffer.concat([u32(body.length), body]);
      })(),
      'refused_malformed',
    ],
    [
      'a hello of a thousand keys',
      ((): Uint8Array => {
        const body = encode({
          t: 'hello',
          m: 'member',
          n: new Uint8Array(32),
          k: Array.from({ length: 1000 }, () => 'k'),
        });
        return Buffer.concat([u32(body.length), body]);
      })(),
      'refused_malformed',
    ],
  ])('admission: %s', async (_name, chunk, counter) => {
    const { peer, honest } = await scene();
    const raw = await rig.raw();
    const connection = await dialRaw(raw, peer);
    const gone = closed(connection);
    (await connection.newStream(admissionProtocol(CLUSTER))).send(chunk);
    await gone;
    expect(peer.transport.counters()[counter]).toBe(1);
    await stillServes(peer, honest);
  });

  test('gossip: garbage, oversized and truncated frames, and unsigned messages, are not heard and harm nobody', async () => {
    const { peer, honest, evil } = await scene();
    for (const chunk of [
      Buffer.concat([Uint8Array.of(64), randomBytes(64)]),
      Uint8Array.of(0xff, 0xff, 0xff, 0xff, 0x07),
      Uint8Array.of(100, 1, 2, 3),
      unsigned(),
    ]) {
      const connection = await evil();
      const stream = await connection.newStream('/meshsub/1.1.0');
      stream.send(chunk);
      await stream.close().catch(() => {});
      await connection.close();
    }
    const heard = (): boolean =>
      peer.recorder.heard.some((event) => event.type === 'gossip' && event.from === honest.transport.self);
    const repeat = setInterval(() => void honest.transport.publish('tasks', Uint8Array.of(1)), 50);
    try {
      await peer.recorder.until('honest gossip', heard);
    } finally {
      clearInterval(repeat);
    }
    expect(peer.recorder.heard.every((event) => event.type !== 'gossip' || event.from === honest.transport.self)).toBe(
      true,
    );
    await stillServes(peer, honest);
  });

  /** An RPC {message: {data, topic}} with no signature. */
  function unsigned(): Uint8Array {
    const topic = Buffer.from(`task-org/${CLUSTER}/tasks`);
    const message = Buffer.concat([Uint8Array.of(0x12, 3, 1, 2, 3, 0x22, topic.length), topic]);
    const rpc = Buffer.concat([Uint8Array.of(0x12, message.length), message]);
    return Buffer.concat([Uint8Array.of(rpc.length), rpc]);
  }
});

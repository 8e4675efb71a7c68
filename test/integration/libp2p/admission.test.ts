import { randomBytes } from 'node:crypto';
import { decode, encode } from '@ipld/dag-cbor';
import { afterEach, describe, expect, test } from 'vitest';
import { proofMac, secretKey, type Transcript } from '../../../src/adapters/libp2p/admission.ts';
import { bulkProtocol } from '../../../src/adapters/libp2p/bulk-server.ts';
import { FrameChannel } from '../../../src/adapters/libp2p/frame-channel.ts';
import { admissionProtocol } from '../../../src/adapters/libp2p/gate.ts';
import { rpcProtocol } from '../../../src/adapters/libp2p/links.ts';
import { clusterId, nodeId } from '../../../src/model/ids.ts';
import { admitRaw, CLUSTER, closed, dialRaw, introduce, keyOrdered, never, Rig } from './harness.ts';

describe('admission', () => {
  let rig = new Rig();
  afterEach(async () => {
    await rig.stop();
    rig = new Rig();
  });
  const transcript: Transcript = {
    mode: 'member',
    clusterId: CLUSTER,
    dialler: nodeId('D'),
    listener: nodeId('L'),
    diallerNonce: randomBytes(32),
    listenerNonce: randomBytes(32),
    keyId: 'k',
  };

  test('a proof is bound to role, mode, cluster, both peers and both nonces', () => {
    const key = randomBytes(32);
    const proofs = [
      proofMac(key, 'dialler', transcript),
      proofMac(key, 'listener', transcript),
      proofMac(key, 'dialler', { ...transcript, mode: 'join' }),
      proofMac(key, 'dialler', { ...transcript, clusterId: clusterId('other') }),
      proofMac(key, 'dialler', { ...transcript, dialler: transcript.listener, listener: transcript.dialler }),
      proofMac(key, 'dialler', {
        ...transcript,
        diallerNonce: transcript.listenerNonce,
        listenerNonce: transcript.diallerNonce,
      }),
      proofMac(key, 'dialler', { ...transcript, keyId: 'other' }),
      proofMac(randomBytes(32), 'dialler', transcript),
    ].map((proof) => Buffer.from(proof).toString('hex'));
    expect(new Set(proofs).size).toBe(proofs.length);
    expect(secretKey(key, CLUSTER, true).id).not.toBe(secretKey(key, clusterId('other'), true).id);
  });

  test('a stranger is cut within about a second and reaches no protocol', async () => {
    const peer = await rig.peer();
    const raw = await rig.raw();
    const startedAt = performance.now();
    const connection = await dialRaw(raw, peer);
    const gone = closed(connection);
    const gossip = '/meshsub/1.1.0';
    for (const protocol of [rpcProtocol(CLUSTER), bulkProtocol(CLUSTER), gossip]) {
      const stream = await connection.newStream(protocol).catch(() => null);
      // The stream may be negotiated; it must be reset, with nothing read from it.
      if (stream) {
        const reset = new Promise((resolve) => stream.addEventListener('close', resolve, { once: true }));
        if (stream.status === 'open') await reset;
      }
    }
    await gone;
    expect(performance.now() - startedAt).toBeLessThan(2_000);
    expect(peer.recorder.heard).toEqual([]);
    expect(peer.transport.connected()).toEqual([]);
    expect(peer.transport.counters()).toMatchObject({
      refused_rpc_stream: 1,
      refused_bulk_stream: 1,
      refused_gossip_stream: 1,
      refused_deadline: 1,
    });
  });

  test('a peer of another secret or another cluster is refused, though it is in the allow-list', async () => {
    const peer = await rig.peer();
    for (const options of [
      { secrets: { current: randomBytes(32), previous: [] } },
      { clusterId: clusterId('cluster-b') },
    ]) {
      const other = await rig.peer(options);
      introduce(peer, other);
      await expect(other.transport.dial(peer.transport.self, AbortSignal.timeout(1_500))).rejects.toMatchObject({
        code: 'unreachable',
      });
      expect([peer.recorder.count('connected'), other.recorder.count('connected')]).toEqual([0, 0]);
    }
    expect(peer.transport.counters().refused_not_admitted).toBe(1);
  });

  test('an echoed proof (reflection) is refused', async () => {
    const peer = await rig.peer();
    const raw = await rig.raw();
    peer.transport.setPeers([{ id: raw.id, addresses: [] }]);
    const connection = await dialRaw(raw, peer);
    const gone = closed(connection);
    const channel = new FrameChannel(await connection.newStream(admissionProtocol(CLUSTER)), 1 << 16);
    channel.write(
      encode({ t: 'hello', m: 'member', n: randomBytes(32), k: [secretKey(rig.secret, CLUSTER, true).id] }),
    );
    const challenge = decode<{ p: Uint8Array }>(await channel.read());
    channel.write(encode({ t: 'proof', p: challenge.p }));
    expect(decode(await channel.read())).toMatchObject({ t: 'refused', c: 'not_admitted' });
    await gone;
    expect(peer.transport.counters().refused_not_admitted).toBe(1);
    expect(peer.recorder.heard).toEqual([]);
  });

  test('a proof relayed from another connection is refused: the peers and nonces differ', async () => {
    const [a, b] = [await rig.peer(), await rig.peer()];
    const raw = await rig.raw();
    for (const { transport } of [a, b]) transport.setPeers([{ id: raw.id, addresses: [] }]);
    const open = async (
      peer: typeof a,
      nonce: Uint8Array,
    ): Promise<[FrameChannel, { n: Uint8Array; p: Uint8Array }]> => {
      const connection = await dialRaw(raw, peer);
      const channel = new FrameChannel(await connection.newStream(admissionProtocol(CLUSTER)), 1 << 16);
      channel.write(encode({ t: 'hello', m: 'member', n: nonce, k: [secretKey(rig.secret, CLUSTER, true).id] }));
      return [channel, decode(await channel.read())];
    };
    const [toA, challengeA] = await open(a, randomBytes(32));
    // Ask b with a's nonce, and give b's answer to a.
    const [, challengeB] = await open(b, challengeA.n);
    toA.write(encode({ t: 'proof', p: challengeB.p }));
    expect(decode(await toA.read())).toMatchObject({ t: 'refused', c: 'not_admitted' });
  });

  test('secrets rotate without a cut: the previous one is accepted for listed peers, and only for them', async () => {
    const fresh = randomBytes(32);
    const rotated = await rig.peer({ secrets: { current: fresh, previous: [rig.secret] } });
    const behind = await rig.peer();
    introduce(rotated, behind);
    await behind.transport.dial(rotated.transport.self, never);
    // A removed peer that still knows the old secret: refused at once, not held.
    const raw = await rig.raw();
    const connection = await dialRaw(raw, rotated);
    await expect(admitRaw(raw, connection, rig.secret)).rejects.toMatchObject({ code: 'not_admitted' });
    // The new secret, not in the list: held, and cut when it is withdrawn from everybody.
    behind.transport.setSecrets({ current: fresh, previous: [] });
    const late = await rig.peer({ secrets: { current: fresh, previous: [] } });
    late.transport.setPeers([{ id: rotated.transport.self, addresses: rotated.transport.addresses() }]);
    const dialling = late.transport.dial(rotated.transport.self, never);
    setTimeout(() => introduce(rotated, behind, late), 100);
    await dialling;
    expect(rotated.transport.counters().held).toBeGreaterThan(0);
  });

  test('a dead connection gives way to a newer one of the same peer', async () => {
    const peer = await rig.peer();
    const key = await keyOrdered('above', peer.transport.self);
    const first = await rig.raw(key);
    peer.transport.setPeers([{ id: first.id, addresses: [] }]);
    // The first node answers the framed stream with a hello and then never again, like a machine without power.
    const hello = (): Uint8Array => {
      const body = encode({ v: 1, a: [] });
      const bytes = Buffer.alloc(10 + body.length);
      bytes.writeUInt32BE(6 + body.length);
      bytes.set(body, 10);
      return bytes;
    };
    const serve = (node: typeof first): Promise<void> =>
      node.libp2p.handle(rpcProtocol(CLUSTER), (stream) => void stream.send(hello()));
    await serve(first);
    await admitRaw(first, await dialRaw(first, peer), rig.secret);
    await peer.recorder.until('connected', () => peer.recorder.count('connected') === 1);
    const second = await rig.raw(key);
    await serve(second);
    await admitRaw(second, await dialRaw(second, peer), rig.secret);
    await peer.recorder.until('replaced', () => peer.recorder.count('connected') === 2);
    expect(peer.recorder.heard.map((event) => event.type)).toEqual(['connected', 'disconnected', 'connected']);
    expect(peer.transport.counters().links_replaced).toBe(1);
  });
});

import { randomBytes } from 'node:crypto';
import { connect } from 'node:net';
import { afterEach, describe, expect, test } from 'vitest';
import { admissionProtocol } from '../../../src/adapters/libp2p/gate.ts';
import { CLUSTER, closed, dialRaw, introduce, never, Rig, type TestPeer } from './harness.ts';

// A stranger's bytes are counted before libp2p's own parsing gets them.

describe('what a stranger may send', () => {
  let rig = new Rig();
  afterEach(async () => {
    await rig.stop();
    rig = new Rig();
  });
  const port = ({ transport }: TestPeer): number => Number(/tcp\/(\d+)/.exec(transport.addresses()[0] ?? '')?.[1]);
  const cutOff = ({ transport }: TestPeer): number => transport.counters().refused_allowance ?? 0;

  test.each([
    ['a length that never ends', Buffer.alloc(1 << 20, 0xff)],
    [
      'the same after a proper greeting',
      Buffer.concat([Buffer.from('\u0013/multistream/1.0.0\n'), Buffer.alloc(1 << 20, 0xff)]),
    ],
  ])('%s is cut off, and a member connects meanwhile', async (_, noise) => {
    const [peer, member] = [await rig.peer(), await rig.peer()];
    introduce(peer, member);
    const socket = connect({ host: '127.0.0.1', port: port(peer) });
    socket.on('error', () => {});
    const ended = new Promise((resolve) => socket.once('close', resolve));
    socket.resume().end(noise);
    await Promise.all([ended, member.transport.dial(peer.transport.self, never)]);
    expect(cutOff(peer)).toBe(1);
    await peer.recorder.until('connected', () => peer.recorder.count('connected') === 1);
  });

  test('encrypted, and not admitted: cut off as well', async () => {
    const peer = await rig.peer();
    const raw = await rig.raw();
    const connection = await dialRaw(raw, peer);
    const gone = closed(connection);
    const stream = await connection.newStream(admissionProtocol(CLUSTER));
    // One frame that is announced and goes on and on.
    stream.send(Buffer.from([0, 1, 0, 0]));
    for (let i = 0; i < 8 && stream.status === 'open'; i++) stream.send(randomBytes(32 * 1024));
    await gone;
    expect(cutOff(peer)).toBe(1);
  });

  test('a member sends as much as it likes', async () => {
    const [peer, member] = [await rig.peer(), await rig.peer()];
    introduce(peer, member);
    await member.transport.dial(peer.transport.self, never);
    for (let i = 0; i < 10; i++) member.transport.send(peer.transport.self, 'raft', randomBytes(100 * 1024));
    await peer.recorder.until('all', () => peer.recorder.count('message') === 10);
    expect(cutOff(peer)).toBe(0);
  });
});

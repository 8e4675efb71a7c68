import { afterEach, describe, expect, test } from 'vitest';
import { introduce, Rig } from './harness.ts';

describe('a crowd behind one address', () => {
  let rig = new Rig();
  afterEach(async () => {
    await rig.stop();
    rig = new Rig();
  });

  // libp2p's defaults take 5 connections a second from one address, and gossipsub turns more than 10 peers on one IP away.
  test('twelve peers start at once, all connect, one stream a pair, and gossip reaches everybody', async () => {
    const peers = await Promise.all(Array.from({ length: 12 }, () => rig.peer()));
    introduce(...peers);
    const ids = peers.map(({ transport }) => transport.self);
    for (const { transport } of peers) transport.setWanted(ids);
    await Promise.all(
      peers.map(({ transport, recorder }) =>
        recorder.until('all connected', () => transport.connected().length === 11, 20_000),
      ),
    );
    const [first] = peers;
    const others = peers.slice(1);
    const reached = (): boolean =>
      others.every(({ recorder }) => recorder.heard.some((event) => event.type === 'gossip'));
    const repeat = setInterval(() => void first?.transport.publish('members', Uint8Array.of(1)), 100);
    try {
      await Promise.all(
        others.map(({ recorder }) =>
          recorder.until('gossip', (heard) => heard.some((event) => event.type === 'gossip')),
        ),
      );
    } finally {
      clearInterval(repeat);
    }
    expect(reached()).toBe(true);
    expect(peers.map(({ recorder }) => recorder.count('disconnected'))).toEqual(peers.map(() => 0));
    expect(peers.map(({ recorder }) => recorder.count('connected'))).toEqual(peers.map(() => 11));
  });
});

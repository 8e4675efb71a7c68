import { afterEach, describe, expect, test } from 'vitest';
import { Counters, silentLog } from '../../../src/adapters/libp2p/counters.ts';
import { Mdns, serviceTag } from '../../../src/adapters/libp2p/mdns.ts';
import { clusterId, type NodeId } from '../../../src/model/ids.ts';
import { CLUSTER, Rig } from './harness.ts';

// On loopback and a port of its own: peers that listen on loopback only do not bother the LAN.
const somePort = (): number => 20_000 + Math.floor(Math.random() * 20_000);

describe('mDNS', () => {
  let rig = new Rig();
  afterEach(async () => {
    await rig.stop();
    rig = new Rig();
  });

  test('peers of one cluster find and connect each other; another cluster on the same segment is not seen', async () => {
    const mdnsPort = somePort();
    const stranger = await rig.peer({ mdns: true, mdnsPort, clusterId: clusterId('cluster-b') });
    const [a, b] = [await rig.peer({ mdns: true, mdnsPort }), await rig.peer({ mdns: true, mdnsPort })];
    const ids = [a, b, stranger].map(({ transport }) => transport.self);
    for (const { transport } of [a, b, stranger]) {
      // Known by name only: no address but what mDNS tells.
      transport.setPeers(ids.map((id) => ({ id, addresses: [] })));
      transport.setWanted(ids);
    }
    await Promise.all(
      [a, b].map(({ recorder }) => recorder.until('connected', () => recorder.count('connected') === 1)),
    );
    expect(stranger.recorder.count('connected')).toBe(0);
    expect(stranger.transport.counters().mdns_answers_in).toBeUndefined();
  });

  test('a peer that asks only is not announced, and gets its answer', async () => {
    const port = somePort();
    const member = await rig.peer({ mdns: true, mdnsPort: port });
    const counters = new Counters();
    const found = Promise.withResolvers<[NodeId, readonly string[]]>();
    const self = (await rig.raw()).id;
    const asker = new Mdns(
      { clusterId: CLUSTER, self, addresses: () => ['/ip4/127.0.0.1/tcp/1'], announce: false, port },
      (peer, addresses) => found.resolve([peer, addresses]),
      counters,
      silentLog,
    );
    asker.start();
    try {
      const [peer, addresses] = await found.promise;
      expect(peer).toBe(member.transport.self);
      expect(addresses.map((address) => `${address}/p2p/${peer}`)).toEqual(member.transport.addresses());
      expect(counters.get('mdns_answers_out')).toBe(0);
      expect(member.transport.counters().mdns_answers_in).toBeUndefined();
    } finally {
      await asker.stop();
    }
  });

  test('the service tag carries a hash of the cluster id, not the id', () => {
    expect(serviceTag(CLUSTER)).toMatch(/^_torg-[0-9a-f]{24}\._udp\.local$/);
    expect(serviceTag(CLUSTER)).not.toBe(serviceTag(clusterId('cluster-b')));
  });
});

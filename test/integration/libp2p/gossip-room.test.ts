import { generateKeyPair } from '@libp2p/crypto/keys';
import type { Connection } from '@libp2p/interface';
import { multiaddr } from '@multiformats/multiaddr';
import { afterEach, describe, expect, test } from 'vitest';
import { Counters } from '../../../src/adapters/libp2p/counters.ts';
import { GossipRoom } from '../../../src/adapters/libp2p/gossip.ts';
import { type BuiltNode, createNode, startNode } from '../../../src/adapters/libp2p/node.ts';
import { type NodeId, nodeId } from '../../../src/model/ids.ts';
import { LIMITS } from '../../../src/model/limits.ts';
import { CLUSTER, never } from './harness.ts';

interface Member {
  readonly node: BuiltNode;
  readonly room: GossipRoom;
  readonly counters: Counters;
  readonly id: NodeId;
  readonly known: Set<NodeId>;
  heard: () => void;
}

describe('gossip room', () => {
  const stops: (() => Promise<void>)[] = [];
  afterEach(async () => {
    for (const stop of stops.splice(0)) await stop();
  });

  async function member(): Promise<Member> {
    const listen = ['/ip4/127.0.0.1/tcp/0'];
    const node = await createNode({ privateKey: await generateKeyPair('Ed25519'), listen });
    const counters = new Counters();
    const known = new Set<NodeId>();
    const self: Member = {
      node,
      counters,
      known,
      id: nodeId(node.libp2p.peerId.toString()),
      heard: () => {},
      room: new GossipRoom(
        node.components,
        { clusterId: CLUSTER, gossipFrameBytes: LIMITS.gossipFrameBytes },
        {
          admitted: () => true,
          isKnown: (peer) => known.has(peer),
          isUp: () => true,
          onGossip: () => self.heard(),
          onBroken: () => {},
        },
        counters,
      ),
    };
    await startNode(node, listen);
    await self.room.start();
    stops.push(async () => {
      await self.room.stop();
      await node.libp2p.stop();
    });
    return self;
  }
  const delivered = async (from: Member, to: Member): Promise<void> => {
    const heard = Promise.withResolvers<void>();
    to.heard = () => heard.resolve();
    const repeat = setInterval(() => void from.room.publish('log', Uint8Array.of(1)), 50);
    await heard.promise.finally(() => clearInterval(repeat));
  };

  async function pair(): Promise<{ a: Member; b: Member; connection: Connection }> {
    const [a, b] = [await member(), await member()];
    a.known.add(b.id);
    b.known.add(a.id);
    const inbound = new Promise<Connection>((resolve) =>
      b.node.libp2p.addEventListener('connection:open', (event) => resolve(event.detail), { once: true }),
    );
    const connection = await a.node.components.transportManager.dial(
      multiaddr(b.node.libp2p.getMultiaddrs()[0]?.toString()),
      { signal: never },
    );
    a.room.peerUp(b.id, connection);
    b.room.peerUp(a.id, await inbound);
    return { a, b, connection };
  }

  test('gossip streams that were reset come back while the connection lives', async () => {
    const { a, b, connection } = await pair();
    await delivered(a, b);
    const streams = connection.streams.filter((stream) => stream.protocol.startsWith('/meshsub/'));
    expect(streams.length).toBeGreaterThan(0);
    for (const stream of streams) stream.abort(new Error('test'));
    await delivered(a, b);
    await delivered(b, a);
    expect(a.counters.get('gossip_repairs') + b.counters.get('gossip_repairs')).toBeGreaterThan(0);
    expect(connection.status).toBe('open');
  });

  test('a message signed by somebody outside the allow-list is not delivered', async () => {
    const { a, b } = await pair();
    await delivered(a, b);
    b.known.delete(a.id);
    let leaked = false;
    b.heard = () => {
      leaked = true;
    };
    const before = b.counters.get('gossip_refused_signer');
    await a.room.publish('tasks', Uint8Array.of(9));
    // A second message, allowed again, shows that the first has been through.
    while (b.counters.get('gossip_refused_signer') === before) await new Promise(setImmediate);
    expect(leaked).toBe(false);
  });
});

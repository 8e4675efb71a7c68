import type { NodeFacts } from '../../model/facts.ts';
import type { NodeId } from '../../model/ids.ts';
import type { ClusterState } from '../state/types.ts';

/** A peer and where it may be dialled. */
export interface KnownPeer {
  readonly id: NodeId;
  readonly addresses: readonly string[];
}

/**
 * The allow-list and whom to stay connected to. Before the log has reached a new peer, the peers named at its admission
 * (`seeds`) stand in for the committed list.
 */
export interface Topology {
  peers(): readonly KnownPeer[];
  ids(): readonly NodeId[];
  allowed(id: NodeId): boolean;
  /** Recomputes from the records; true when anything changed. */
  refresh(state: ClusterState, facts: ReadonlyMap<NodeId, NodeFacts>): boolean;
  /** Whom to stay connected to: everybody in a small cluster; else the monitored members and the voters. */
  wanted(monitored: readonly NodeId[], voters: readonly NodeId[], fullMeshPeers: number): readonly NodeId[];
  /** Whether the records have named this peer in this life. */
  listed(): boolean;
}

export function createTopology(self: NodeId, seeds: readonly KnownPeer[]): Topology {
  let peers = new Map<NodeId, KnownPeer>(seeds.filter((p) => p.id !== self).map((p) => [p.id, p]));
  let ids: NodeId[] = [self, ...peers.keys()];
  let listed = false;

  const refresh: Topology['refresh'] = (state, facts) => {
    if (!state.peers.has(self)) return false;
    listed = true;
    const next = new Map<NodeId, KnownPeer>();
    let changed = false;
    for (const record of state.peers.values()) {
      if (record.nodeId === self) continue;
      // Newest first: what the peer says of itself now, then what it was admitted with.
      const addresses = [...new Set([...(facts.get(record.nodeId)?.addresses ?? []), ...record.addresses])];
      const before = peers.get(record.nodeId);
      const same =
        before !== undefined &&
        before.addresses.length === addresses.length &&
        before.addresses.every((a, i) => a === addresses[i]);
      if (!same) changed = true;
      next.set(record.nodeId, same ? before : { id: record.nodeId, addresses });
    }
    if (next.size !== peers.size) changed = true;
    if (!changed) return false;
    peers = next;
    ids = [self, ...peers.keys()];
    return true;
  };

  return {
    peers: () => [...peers.values()],
    ids: () => ids,
    allowed: (id) => id === self || peers.has(id),
    refresh,
    wanted: (monitored, voters, fullMeshPeers) => {
      if (ids.length <= fullMeshPeers) return [...peers.keys()];
      return [...new Set([...monitored, ...voters])].filter((id) => id !== self && peers.has(id));
    },
    listed: () => listed,
  };
}

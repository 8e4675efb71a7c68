import type { MonoMs, NodeId } from '../../model/ids.ts';
import type { MembershipEvent, MemberView } from '../membership/types.ts';
import { type Hub, later } from './hub.ts';
import type { Topology } from './topology.ts';

// Who is told of whom: consensus hears who lives and who learns, membership hears who is admitted and who votes, the
// transport hears whom to know and whom to stay connected to.

/** A fresh assignee that is no voter is sent the log directly for this long. */
const DIRECT_MS = 30_000;

export interface Electorate {
  voting(): NodeId[];
  tellHealth(): void;
  tellLearners(): void;
  tellMembership(): void;
  tellTransport(): void;
  /** Membership, learners and transport: the voters changed, or everything begins. */
  tellAll(): void;
  /** The leader gave this node a slot: it is to hear of it at once, voter or not. */
  serveDirectly(node: NodeId): void;
}

export function createElectorate(
  hub: Hub,
  parts: {
    readonly topology: Topology;
    readonly view: (id: NodeId) => MemberView | undefined;
    readonly monitored: () => readonly NodeId[];
    /** It reads this peer's log: not of another epoch of a recovered cluster. */
    readonly shares: (id: NodeId) => boolean;
    readonly memberStep: (event: MembershipEvent) => void;
  },
): Electorate {
  const { topology } = parts;
  const direct = new Map<NodeId, MonoMs>();

  const voting = (): NodeId[] => {
    const m = hub.consensus().membership;
    return [...m.voters, ...(m.outgoing ?? [])];
  };

  function tellLearners(): void {
    const now = hub.now();
    const voters = new Set(voting());
    for (const [id, until] of direct) if (until <= now || voters.has(id)) direct.delete(id);
    const learners = topology.ids().filter((id) => !voters.has(id));
    hub.consense({ type: 'learners', learners, direct: [...direct.keys()] });
  }

  const tellMembership = (): void => parts.memberStep({ type: 'peers', peers: topology.ids(), voters: voting() });
  const tellTransport = (): void => {
    const wanted = topology.wanted(parts.monitored(), voting(), hub.config.membership.fullMeshPeers);
    hub.emit({ type: 'peers', peers: topology.peers(), wanted });
  };

  return {
    voting,
    tellLearners,
    tellMembership,
    tellTransport,
    tellAll: () => {
      tellMembership();
      tellLearners();
      tellTransport();
    },
    tellHealth: () => {
      const counted = (id: NodeId): boolean => parts.view(id)?.status === 'alive' && parts.shares(id);
      const alive = topology.ids().filter((id) => id === hub.self || counted(id));
      hub.consense({ type: 'health', alive });
    },
    serveDirectly: (node) => {
      if (hub.consensus().role !== 'leader' || node === hub.self || direct.has(node) || voting().includes(node)) return;
      direct.set(node, later(hub, DIRECT_MS));
      tellLearners();
    },
  };
}

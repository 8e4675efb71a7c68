import type { ApplyResult, Command } from '../../model/commands.ts';
import type { EpochFact, NodeFacts } from '../../model/facts.ts';
import type { Incarnation, LogIndex, MonoMs, NodeId, TaskId, Term, WallMs } from '../../model/ids.ts';
import type { ControlMessage, FactsMessage } from '../../model/peer-messages.ts';
import type { ClusterEvent, Submission } from '../../model/records.ts';
import type {
  ConsensusConfig,
  ConsensusRestore,
  ConsensusRole,
  LogEntry,
  Membership,
  PersistOp,
  RaftMessage,
} from '../consensus/types.ts';
import type { LeaseConfig, LeaseKey, LeaseMessage } from '../lease/types.ts';
import type { MemberChange, MembershipConfig, MembershipMessage, MemberUpdate } from '../membership/types.ts';
import type { ReconcileEffect, ReconcileEvent } from '../reconcile/types.ts';
import type { StatePut } from '../state/types.ts';

// One whole peer as a value: membership, consensus, replicated state, master, leases and reconciliation wired together.
// The agent's driver and the simulator run this same composition.

import type { ProvisionalDecision } from './caretaking.ts';
import type { KnownPeer } from './topology.ts';

export interface PeerConfig {
  readonly membership: MembershipConfig;
  readonly consensus: ConsensusConfig;
  readonly lease: LeaseConfig;
  /** Copy facts are gathered this long before they are spread. */
  readonly factsDebounceMs: number;
  /** Own load is told to the master this often, and to everybody every max(this, peers * factsPerPeerMs). */
  readonly factsHeadMs: number;
  readonly factsPerPeerMs: number;
  /** A forwarded proposal or a read is given up after this. */
  readonly requestTimeoutMs: number;
  /** Unsettled submissions are sent again to the master this often. */
  readonly submissionRetryMs: number;
}

export type ChannelMessage =
  | { readonly channel: 'membership'; readonly message: MembershipMessage }
  | { readonly channel: 'raft'; readonly message: RaftMessage & Stamped }
  | { readonly channel: 'lease'; readonly message: LeaseMessage }
  | { readonly channel: 'facts'; readonly message: FactsMessage }
  | { readonly channel: 'control'; readonly message: ControlMessage };

/** The epoch of a recovered cluster; absent in one that never was. */
export interface Stamped {
  readonly epoch?: string;
}

export interface CommittedEntries extends Stamped {
  readonly prevIndex: LogIndex;
  readonly prevTerm: Term;
  readonly entries: readonly LogEntry[];
  readonly commit: LogIndex;
}

export type GossipMessage =
  | { readonly topic: 'tasks'; readonly message: Submission }
  | {
      readonly topic: 'members';
      readonly message:
        | { readonly type: 'updates'; readonly updates: readonly MemberUpdate[] }
        | Extract<FactsMessage, { type: 'facts-delta' }>;
    }
  | { readonly topic: 'log'; readonly message: CommittedEntries };

export interface ClientProposal {
  readonly requestId: number;
  readonly command: Command;
}

export type PeerEvent =
  | { readonly type: 'tick'; readonly lateMs: number }
  | ({ readonly type: 'message'; readonly from: NodeId } & ChannelMessage)
  | ({ readonly type: 'gossip'; readonly from: NodeId } & GossipMessage)
  | { readonly type: 'connected'; readonly peer: NodeId }
  | { readonly type: 'disconnected'; readonly peer: NodeId }
  | { readonly type: 'dial-failed'; readonly peer: NodeId; readonly refused: boolean }
  | { readonly type: 'boot-ack'; readonly peer: NodeId; readonly attempt: number }
  | { readonly type: 'persisted'; readonly persistId: number }
  /** The state batch with puts up to `index` is written. */
  | { readonly type: 'state-written'; readonly index: LogIndex }
  /** The submission asked to be kept is durable. */
  | { readonly type: 'submission-kept'; readonly id: TaskId }
  /** What this machine is (everything of NodeFacts but identity, version and copies). */
  | { readonly type: 'host-facts'; readonly head: HostFacts }
  | { readonly type: 'runtime'; readonly event: ReconcileEvent }
  /** Boot proves these copies dead (all processes reaped). */
  | { readonly type: 'proven-dead'; readonly keys: readonly LeaseKey[] }
  | { readonly type: 'range-reply'; readonly entries: CommittedEntries }
  | {
      readonly type: 'snapshot-installed';
      readonly index: LogIndex;
      readonly term: Term;
      readonly membership: Membership;
      readonly pairs: readonly StatePut[];
    }
  | { readonly type: 'client-submit'; readonly requestId: number; readonly submission: Submission }
  | { readonly type: 'client-propose'; readonly requestId: number; readonly command: Command }
  /** What clients asked for in one turn of the event loop: appended, sent and made durable together. */
  | { readonly type: 'client-proposals'; readonly proposals: readonly ClientProposal[] }
  | { readonly type: 'client-read'; readonly requestId: number }
  | { readonly type: 'leave' };

export type HostFacts = Omit<NodeFacts, 'nodeId' | 'incarnation' | 'version' | 'copies'>;

export type ClientResult =
  | { readonly ok: true; readonly index: LogIndex; readonly result: ApplyResult; readonly copies: number }
  | { readonly ok: false; readonly reason: 'no-master' | 'busy' | 'timeout' | 'superseded'; readonly message: string };

export type PeerEffect =
  | { readonly type: 'persist'; readonly persistId: number; readonly ops: readonly PersistOp[] }
  | { readonly type: 'write-state'; readonly puts: readonly StatePut[]; readonly applied: LogIndex }
  | { readonly type: 'keep-submission'; readonly submission: Submission }
  | { readonly type: 'drop-submissions'; readonly ids: readonly TaskId[] }
  | ({ readonly type: 'send'; readonly to: NodeId; readonly afterPersist: boolean } & ChannelMessage)
  | ({ readonly type: 'publish' } & GossipMessage)
  | {
      readonly type: 'probe-boot';
      readonly peer: NodeId;
      readonly attempt: number;
      readonly addresses: readonly string[];
    }
  | { readonly type: 'dial'; readonly peer: NodeId }
  | { readonly type: 'hang-up'; readonly peer: NodeId }
  /** The allow-list with addresses, and whom to stay connected to. */
  | {
      readonly type: 'peers';
      readonly peers: readonly { readonly id: NodeId; readonly addresses: readonly string[] }[];
      readonly wanted: readonly NodeId[];
    }
  /** Invitations or the cluster secret changed in the records. */
  | { readonly type: 'credentials-changed' }
  | { readonly type: 'incarnation'; readonly incarnation: Incarnation }
  | { readonly type: 'runtime'; readonly effect: Extract<ReconcileEffect, { type: 'start' | 'stop' | 'check-health' }> }
  /** Tell boot until when this exclusive slot's copies may live; undefined = kill now. */
  | { readonly type: 'lease-deadline'; readonly key: LeaseKey; readonly deadline: MonoMs | undefined }
  | {
      readonly type: 'fetch-entries';
      readonly from: LogIndex;
      readonly to: LogIndex;
      readonly peers: readonly NodeId[];
    }
  | {
      readonly type: 'fetch-snapshot';
      readonly from: NodeId;
      readonly index: LogIndex;
      readonly term: Term;
      readonly membership: Membership;
    }
  | { readonly type: 'client-reply'; readonly requestId: number; readonly result: ClientResult }
  /** This peer's epoch was superseded by a recovery: set the log aside and start again as a learner of that one. */
  | { readonly type: 'rejoin'; readonly epochId: string; readonly from: NodeId }
  | { readonly type: 'notify'; readonly notice: PeerNotice };

/** State changes worth a line in the log, an event for a watching client, or a step in a scenario's timeline. */
export type PeerNotice =
  | { readonly type: 'member'; readonly change: MemberChange; readonly at: WallMs }
  | { readonly type: 'role'; readonly role: ConsensusRole; readonly term: Term; readonly leader: NodeId | null }
  | { readonly type: 'voters'; readonly membership: Membership; readonly committed: boolean }
  | { readonly type: 'cluster-event'; readonly event: ClusterEvent }
  | { readonly type: 'tasks-changed'; readonly tasks: readonly TaskId[] }
  | { readonly type: 'removed'; readonly message: string }
  | { readonly type: 'copies-changed' }
  /** Another recovery of this cluster, or one that left a majority behind, is in reach: an operator must choose. */
  | { readonly type: 'epoch-conflict'; readonly peer: NodeId; readonly epoch: EpochFact; readonly at: WallMs }
  /** This side has no majority in reach (any more); whose word counts on it meanwhile. */
  | { readonly type: 'caretaker'; readonly alone: boolean; readonly caretaker: NodeId | null; readonly at: WallMs }
  /** This peer, as caretaker, has ordered a copy. */
  | { readonly type: 'provisional'; readonly decision: ProvisionalDecision };

export interface PeerOptions {
  readonly self: NodeId;
  readonly config: PeerConfig;
  readonly seed: string;
  readonly incarnation: Incarnation;
  readonly consensus: ConsensusRestore;
  readonly state: readonly StatePut[];
  readonly pending: readonly Submission[];
  /** Peers named at admission or remembered from the last run. */
  readonly seeds: readonly KnownPeer[];
  /** Deadlines of exclusive copies that boot kept over a restart of the agent. */
  readonly adoptedLeases: readonly { readonly key: LeaseKey; readonly deadline: MonoMs }[];
  /** The epoch this peer was recovered into, or told to join; undefined: whatever its records say. */
  readonly epoch?: string;
  /** Bully rank: configured priority, then capability; ties by PeerId. */
  readonly rank: number;
}

import type { DurationMs, LogIndex, NodeId, Term } from '../../model/ids.ts';

// Raft (Ongaro & Ousterhout 2014; section numbers of Ongaro's thesis where given), with PreVote (9.6), CheckQuorum (6.2),
// joint consensus (4.3), leadership transfer (3.10), ReadIndex (6.4), learners (4.2.1), and one departure that only
// strengthens commit: an entry also waits for a second machine whenever the leader holds one alive.
//
// The shape is that of etcd-io/raft: events in, effects out, in three classes the driver keeps apart:
//  - `persist` effects of one or many steps are merged into one fsynced batch (group commit);
//  - messages marked `afterPersist` leave only after that batch is durable; the others at once. The leader's appends need
//    not wait for its own disk (thesis 10.2.1): it counts itself for a commit only after `persisted`;
//  - `committed` hands entries to the state machine, in order, once.

export interface ConsensusConfig {
  /** Election timeout is drawn uniformly from [min, max] of this range. */
  readonly electionTimeoutMinMs: DurationMs;
  readonly electionTimeoutMaxMs: DurationMs;
  readonly heartbeatMs: DurationMs;
  /** Entries and payload bytes in one append; appends in flight to one follower. */
  readonly maxAppendEntries: number;
  readonly maxAppendBytes: number;
  readonly maxInFlight: number;
  readonly maxProposals: number;
  /** Applied entries kept before the log is compacted. */
  readonly logRetained: number;
  /** Learners sent appends directly (the rest follow the log topic). */
  readonly directLearners: number;
  /** A dead voter is replaced after it was dead (and its successor healthy) this long. */
  readonly transferTimeoutMs: DurationMs;
}

export const DEFAULT_CONSENSUS_CONFIG: ConsensusConfig = {
  electionTimeoutMinMs: 600 as DurationMs,
  electionTimeoutMaxMs: 1000 as DurationMs,
  heartbeatMs: 150 as DurationMs,
  maxAppendEntries: 512,
  maxAppendBytes: 768 * 1024,
  maxInFlight: 32,
  maxProposals: 4096,
  logRetained: 8192,
  directLearners: 2,
  transferTimeoutMs: 1000 as DurationMs,
};

/** `voters` decide; while `outgoing` is set, a majority of both sets is needed (joint consensus, thesis 4.3). */
export interface Membership {
  readonly voters: readonly NodeId[];
  readonly outgoing: readonly NodeId[] | null;
}

export interface LogEntry {
  readonly index: LogIndex;
  readonly term: Term;
  readonly payload:
    | { readonly kind: 'noop' }
    | { readonly kind: 'command'; readonly bytes: Uint8Array }
    | { readonly kind: 'membership'; readonly membership: Membership };
}

export interface HardState {
  readonly term: Term;
  readonly votedFor: NodeId | null;
}

/** What a starting peer read back from its disk. `entries` are contiguous and follow `snapshot.index`. */
export interface ConsensusRestore {
  readonly hardState: HardState;
  readonly snapshot: { readonly index: LogIndex; readonly term: Term; readonly membership: Membership };
  readonly entries: readonly LogEntry[];
  /** Index applied to the durable state machine (>= snapshot.index): entries up to here are not handed out again. */
  readonly applied: LogIndex;
  /** False when the log was lost or is corrupt: never votes, never counts for commit, until re-admitted as a learner. */
  readonly mayVote: boolean;
}

export type RaftMessage =
  | {
      readonly type: 'vote-request';
      readonly term: Term;
      readonly preVote: boolean;
      readonly transfer: boolean;
      readonly lastIndex: LogIndex;
      readonly lastTerm: Term;
      readonly rank: number;
    }
  | { readonly type: 'vote-reply'; readonly term: Term; readonly preVote: boolean; readonly granted: boolean }
  | {
      readonly type: 'append';
      readonly term: Term;
      readonly prevIndex: LogIndex;
      readonly prevTerm: Term;
      readonly entries: readonly LogEntry[];
      readonly commit: LogIndex;
      readonly round: number;
      readonly learner: boolean;
    }
  | {
      readonly type: 'append-reply';
      readonly term: Term;
      readonly ok: boolean /** ok: last durable match; not ok: follower's hint of where to try. */;
      readonly index: LogIndex;
      readonly hintTerm: Term;
      readonly round: number;
      readonly applied: LogIndex;
      readonly mayVote: boolean;
    }
  /** The follower's log is behind the leader's first entry: fetch a snapshot (over the bulk channel), then say so. */
  | {
      readonly type: 'snapshot-offer';
      readonly term: Term;
      readonly index: LogIndex;
      readonly lastTerm: Term;
      readonly membership: Membership;
    }
  | { readonly type: 'timeout-now'; readonly term: Term }
  /** A follower asks the leader for a read index / forwards nothing else. */
  | { readonly type: 'read-request'; readonly id: number }
  | { readonly type: 'read-reply'; readonly id: number; readonly index: LogIndex; readonly ok: boolean };

export type ConsensusEvent =
  | { readonly type: 'tick' }
  | { readonly type: 'message'; readonly from: NodeId; readonly message: RaftMessage }
  /** `proposalId`s are the caller's; each is answered by one `proposal` effect, now or later. */
  | {
      readonly type: 'propose';
      readonly proposals: readonly { readonly proposalId: number; readonly bytes: Uint8Array }[];
    }
  /** The batch holding everything asked for by persist effects up to `persistId` is durable. */
  | { readonly type: 'persisted'; readonly persistId: number }
  /** The state machine (durable) has applied up to here. */
  | { readonly type: 'applied'; readonly index: LogIndex }
  /** Membership view of peers: who can be counted on as the second machine, who is dead (so not waited for). */
  | { readonly type: 'health'; readonly alive: readonly NodeId[] }
  /** Learners the leader should know of (admitted peers that do not vote). */
  | {
      readonly type: 'learners';
      readonly learners: readonly NodeId[] /** Sent appends directly although not among the first `directLearners`: catching up to become voters, assignees of fresh entries. */;
      readonly direct: readonly NodeId[];
    }
  | { readonly type: 'change-voters'; readonly voters: readonly NodeId[]; readonly proposalId: number }
  | { readonly type: 'transfer'; readonly to: NodeId }
  | { readonly type: 'read-index'; readonly id: number }
  /** A snapshot fetched after `install-snapshot` is durable in the state store. */
  | {
      readonly type: 'snapshot-installed';
      readonly index: LogIndex;
      readonly term: Term;
      readonly membership: Membership;
    }
  /** Committed entries from the log topic or a neighbour's range reply (learners only). They must join on. */
  | {
      readonly type: 'committed-entries';
      readonly prevIndex: LogIndex;
      readonly prevTerm: Term;
      readonly entries: readonly LogEntry[];
      readonly commit: LogIndex;
    }
  /** The leader's connection is gone: start PreVote soon instead of waiting for the whole timeout. */
  | { readonly type: 'leader-lost' }
  /** A local stall or low health: hand over if leading. */
  | { readonly type: 'step-down'; readonly reason: string };

export type PersistOp =
  /** `readmitted`: a peer whose log was lost votes again; from this batch on it restores with `mayVote: true`. */
  | { readonly type: 'hard-state'; readonly hardState: HardState; readonly readmitted?: true }
  | { readonly type: 'append'; readonly entries: readonly LogEntry[] }
  /** Delete entries with index >= from (a conflicting suffix). Always before the appends of the same step. */
  | { readonly type: 'truncate'; readonly from: LogIndex }
  /** Entries with index <= upTo may be deleted; the snapshot is now (upTo, term, membership). */
  | { readonly type: 'compact'; readonly upTo: LogIndex; readonly term: Term; readonly membership: Membership };

export type ConsensusRole = 'leader' | 'candidate' | 'pre-candidate' | 'follower' | 'learner';

export type ConsensusEffect =
  | { readonly type: 'persist'; readonly persistId: number; readonly ops: readonly PersistOp[] }
  | { readonly type: 'send'; readonly to: NodeId; readonly message: RaftMessage; readonly afterPersist: boolean }
  | { readonly type: 'committed'; readonly entries: readonly LogEntry[] }
  /** Verdict on a proposal: committed (at index, applied in order after), or not taken / lost (outcome unknown when it was once appended). */
  | {
      readonly type: 'proposal';
      readonly proposalId: number;
      readonly result:
        | { readonly ok: true; readonly index: LogIndex; readonly copies: number }
        | { readonly ok: false; readonly reason: 'not-leader' | 'busy' | 'superseded' | 'changing' };
    }
  | { readonly type: 'role'; readonly role: ConsensusRole; readonly term: Term; readonly leader: NodeId | null }
  | { readonly type: 'membership'; readonly membership: Membership; readonly committed: boolean }
  | { readonly type: 'read-ready'; readonly id: number; readonly ok: boolean; readonly index: LogIndex }
  | {
      readonly type: 'install-snapshot';
      readonly from: NodeId;
      readonly index: LogIndex;
      readonly term: Term;
      readonly membership: Membership;
    }
  /** A learner is missing entries [from, to): ask any neighbour. */
  | { readonly type: 'fetch-entries'; readonly from: LogIndex; readonly to: LogIndex }
  /** Leader only: entries newly committed, to be published on the log topic for the learners not sent to directly. */
  | {
      readonly type: 'publish-committed';
      readonly prevIndex: LogIndex;
      readonly prevTerm: Term;
      readonly entries: readonly LogEntry[];
      readonly commit: LogIndex;
    };

/** What others may read of the core at any time. */
export interface ConsensusView {
  readonly role: ConsensusRole;
  readonly term: Term;
  readonly leader: NodeId | null;
  readonly commit: LogIndex;
  readonly applied: LogIndex;
  readonly lastIndex: LogIndex;
  readonly membership: Membership;
  readonly mayVote: boolean;
  /** Leader: the no-op of its own term is applied, so it may decide. */
  readonly established: boolean;
  /** Leader: last durable match per peer. */
  readonly match: ReadonlyMap<NodeId, LogIndex>;
  /** Leader: peers that say their log was lost (`mayVote: false`): as voters they count for nothing and are to be removed. */
  readonly logLost?: ReadonlySet<NodeId>;
}

import type { Generation } from './generation.ts';
import type { ClusterId, LogIndex, NodeId, TaskId, WallMs } from './ids.ts';
import type { TaskSpec } from './task-spec.ts';

// Replicated records: the same on every peer at the same applied index (core/state), mirrored into LevelDB.

export interface ClusterRecord {
  readonly clusterId: ClusterId;
  readonly epoch: number;
  /** Random id of the epoch: logs of different epochs never mix. */
  readonly epochId: string;
  readonly name: string;
  /** Ids of the epochs before this one, oldest first. Absent in a cluster that was never recovered. */
  readonly parents?: readonly string[];
  /**
   * After a recovery: the voters of the epoch before, and those of them that can grant no lease there any more (they are of
   * this epoch now, or an operator named them dead). Gone once the others are too few to be a majority.
   */
  readonly unsettled?: { readonly voters: readonly NodeId[]; readonly accounted: readonly NodeId[] };
}

/** An admitted peer: the allow-list. */
export interface PeerRecord {
  readonly nodeId: NodeId;
  readonly name: string;
  readonly addresses: readonly string[];
  readonly labels: Readonly<Record<string, string>>;
  readonly priority: number;
  readonly witness: boolean;
  /** `drain`: keeps what it must finish moving, gets nothing new. */
  readonly availability: 'active' | 'drain';
  readonly admittedAt: LogIndex;
}

export interface InvitationRecord {
  /** Public id of the invitation key, carried by the token. */
  readonly id: string;
  /** The invitation key, base64url, 32 bytes. Known to admitted peers only. */
  readonly key: string;
  readonly expiresAt: WallMs;
  readonly usesLeft: number;
}

/** A slot's assignment states. They move forward only, within one generation. */
export type SlotState =
  /** No open assignment; waits for the scheduler. */
  | { readonly kind: 'pending'; readonly reason: string }
  /** Node holds generation. */
  | {
      readonly kind: 'assigned';
      readonly node: NodeId;
      readonly at: WallMs;
      /** The copy that runs there was started under this provisional generation and adopted as it ran: it keeps that name. */
      readonly adopted?: Generation;
    }
  /** Closed by the master: renewals are refused; may be granted again once the lease has run out. */
  | { readonly kind: 'closed'; readonly node: NodeId; readonly at: WallMs; readonly reason: string }
  /** The run ended by itself and is not to be repeated. */
  | {
      readonly kind: 'finished';
      readonly node: NodeId;
      readonly exitCode: number | null;
      readonly error: string;
      readonly at: WallMs;
    }
  | {
      readonly kind: 'failed';
      readonly node: NodeId;
      readonly exitCode: number | null;
      readonly error: string;
      readonly at: WallMs;
    };

export interface SlotRecord {
  readonly slot: number;
  /** Highest generation ever committed for this slot; g = 0 before the first assignment. */
  readonly generation: Generation;
  readonly state: SlotState;
  /** Provisional generations up to this one (of the same base) have lost against the committed copy. */
  readonly dropped?: Generation;
}

/** One recorded decision with its evidence: what `task-org why` prints. */
export interface Decision {
  readonly at: WallMs;
  readonly index: LogIndex;
  readonly slot: number;
  /** The peer that decided (the master of that term). */
  readonly by: NodeId;
  readonly what:
    | 'accepted'
    | 'assigned'
    | 'closed'
    | 'dropped'
    | 'finished'
    | 'failed'
    | 'waiting'
    | 'stopped'
    | 'updated'
    | 'restarted';
  readonly generation: Generation | null;
  readonly node: NodeId | null;
  readonly reason: string;
  /** Facts the decision rests on, already in plain words and ids: suspecters, confirmers, scores of candidates. */
  readonly evidence: readonly string[];
}

export interface TaskRecord {
  readonly id: TaskId;
  readonly spec: TaskSpec;
  /** Raised by every update of the spec or restart order; a copy of an older version is replaced. */
  readonly specVersion: number;
  readonly desired: 'running' | 'stopped';
  readonly acceptedAt: WallMs;
  readonly acceptedIndex: LogIndex;
  readonly submittedBy: NodeId;
  readonly slots: readonly SlotRecord[];
  /** Newest last; bounded by LIMITS.decisionsPerTask. */
  readonly decisions: readonly Decision[];
}

/** A submission as it travels on the `tasks` topic and over RPC. */
export interface Submission {
  /** Client's own id or CID of (spec, nonce, expiry). */
  readonly id: TaskId;
  readonly spec: TaskSpec;
  readonly nonce: string;
  readonly expiresAt: WallMs;
  /** The peer that took it in (whose signature vouches for it). */
  readonly from: NodeId;
}

/** The verdict on a submission id, remembered for twice the expiry so that nothing removed comes back. */
/** Why the state machine refuses a command. */
export type RefusalCode = 'name_in_use' | 'not_found' | 'stale' | 'already_exists' | 'refused' | 'limit';

export interface SubmissionVerdict {
  readonly id: TaskId;
  readonly verdict: 'accepted' | 'refused' | 'removed';
  /** Of a refusal: so that whoever asks again is answered as the first time. */
  readonly code: RefusalCode | null;
  readonly index: LogIndex;
  readonly reason: string;
  readonly forgetAt: WallMs;
}

export interface ClusterEvent {
  readonly index: LogIndex;
  readonly at: WallMs;
  readonly type: string;
  readonly subject: string;
  readonly message: string;
}

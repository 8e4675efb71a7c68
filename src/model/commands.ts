import type { Generation } from './generation.ts';
import type { NodeId, TaskId, WallMs } from './ids.ts';
import type { ClusterRecord, InvitationRecord, PeerRecord, Submission, RefusalCode } from './records.ts';
import type { TaskSpec } from './task-spec.ts';

// Intents: what stands in the replicated log. Encoded as dag-cbor {v: 1, ...command}. Applied by core/state, the same on
// every peer. `by` is the proposer, `at` its wall clock, for people only.

export const COMMAND_VERSION = 1;

export interface CommandMeta {
  readonly by: NodeId;
  readonly at: WallMs;
}

export type Command = CommandMeta &
  (
    | {
        readonly type: 'cluster.init';
        readonly cluster: ClusterRecord;
        readonly founder: Omit<PeerRecord, 'admittedAt'>;
      }
    /** `cluster recover --force`: the log goes on in a new epoch, of which the proposer is the only voter at first. */
    | {
        readonly type: 'cluster.recover';
        readonly epoch: number;
        readonly epochId: string;
        /** Voters of the epoch before. */
        readonly voters: readonly NodeId[];
        /** Machines that the operator named dead. */
        readonly dead: readonly NodeId[];
      }
    /** These voters of the epoch before can grant nothing there any more. */
    | {
        readonly type: 'cluster.account';
        readonly nodes: readonly NodeId[];
        readonly how: 'named dead' | 'of this epoch';
      }
    | {
        readonly type: 'peer.admit';
        readonly peer: Omit<PeerRecord, 'admittedAt'>;
        readonly invitationId: string | null;
      }
    | {
        readonly type: 'peer.update';
        readonly nodeId: NodeId;
        readonly patch: Partial<Pick<PeerRecord, 'name' | 'addresses' | 'labels' | 'priority' | 'availability'>>;
      }
    | { readonly type: 'peer.remove'; readonly nodeId: NodeId }
    | { readonly type: 'invitation.add'; readonly invitation: InvitationRecord }
    | { readonly type: 'invitation.remove'; readonly id: string }
    | { readonly type: 'task.submit'; readonly submission: Submission }
    | { readonly type: 'task.refuse'; readonly id: TaskId; readonly reason: string; readonly expiresAt: WallMs }
    | { readonly type: 'task.update'; readonly taskId: TaskId; readonly spec: TaskSpec }
    | {
        readonly type: 'task.desire';
        readonly taskId: TaskId;
        readonly desired: 'running' | 'stopped';
        readonly restart: boolean;
      }
    | { readonly type: 'task.remove'; readonly taskId: TaskId }
    | {
        readonly type: 'slot.assign';
        readonly taskId: TaskId;
        readonly slot: number;
        readonly generation: Generation;
        readonly node: NodeId;
        /** A provisional copy that runs there goes on as this generation, as it is. */
        readonly adopts?: Generation;
        readonly reason: string;
        readonly evidence: readonly string[];
      }
    /** Provisional copies up to `generation` have lost: the committed one runs. They stop; what they wrote is kept. */
    | {
        readonly type: 'slot.drop';
        readonly taskId: TaskId;
        readonly slot: number;
        readonly generation: Generation;
        readonly reason: string;
        readonly evidence: readonly string[];
      }
    | {
        readonly type: 'slot.close';
        readonly taskId: TaskId;
        readonly slot: number;
        readonly generation: Generation;
        readonly reason: string;
        readonly evidence: readonly string[];
      }
    | {
        readonly type: 'slot.release';
        readonly taskId: TaskId;
        readonly slot: number;
        readonly generation: Generation;
        readonly reason: string;
      }
    | {
        readonly type: 'slot.end';
        readonly taskId: TaskId;
        readonly slot: number;
        readonly generation: Generation;
        readonly outcome: 'finished' | 'failed';
        readonly exitCode: number | null;
        readonly error: string;
      }
    | { readonly type: 'setting.set'; readonly key: string; readonly value: string }
  );
export type CommandType = Command['type'];

/** What applying a command did. Deterministic, so every peer knows it; the proposer hands it to the waiting client. */
export type ApplyResult =
  | { readonly ok: true }
  /** Refused by the state machine (e.g. name in use, stale generation). The entry stands; the state is unchanged. */
  | {
      readonly ok: false;
      readonly code: RefusalCode;
      readonly reason: string;
    };

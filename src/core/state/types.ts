import type { ApplyResult, Command } from '../../model/commands.ts';
import type { ClusterId, LogIndex, NodeId, TaskId, WallMs } from '../../model/ids.ts';
import type {
  ClusterEvent,
  ClusterRecord,
  InvitationRecord,
  PeerRecord,
  SubmissionVerdict,
  TaskRecord,
} from '../../model/records.ts';

// The replicated state machine: apply(state, index, command) changes the maps in place and says what changed. Everything
// here is deterministic: the same log gives the same state, puts and results on every peer.

export interface ClusterState {
  cluster: ClusterRecord | undefined;
  readonly peers: Map<NodeId, PeerRecord>;
  readonly invitations: Map<string, InvitationRecord>;
  readonly tasks: Map<TaskId, TaskRecord>;
  /** name -> id of the live task that bears it. */
  readonly taskNames: Map<string, TaskId>;
  /** Accepted while the task lives (and until the id may be forgotten), then removed; or refused. */
  readonly verdicts: Map<TaskId, SubmissionVerdict>;
  readonly settings: Map<string, string>;
  /** Ring of the newest cluster events, oldest first; bounded by LIMITS.eventsKept. */
  readonly events: ClusterEvent[];
  applied: LogIndex;

  // Indexes over the records above, kept by every change, so that nobody scans all tasks for one event. Not stored.

  /** Slots assigned to each node. No entry for a node without any. */
  readonly assignments: Map<NodeId, Map<SlotText, SlotRef>>;
  /** Every assigned slot. */
  readonly openSlots: Map<SlotText, SlotRef>;
  /** Pending slots of tasks that are to run: what the scheduler has to place. */
  readonly pendingSlots: Map<SlotText, SlotRef>;
  /** Closed slots of tasks that are to run: may be granted again once their lease has run out. */
  readonly closedSlots: Map<SlotText, SlotRef>;
  readonly peerNames: Map<string, NodeId>;
  /** Refused and removed verdicts by the time they may be forgotten. */
  readonly forgetting: ForgetQueue;
}

/** `TASKID/SLOT` */
export type SlotText = string;
export interface SlotRef {
  readonly taskId: TaskId;
  readonly slot: number;
}

/** Verdicts ordered by (forgetAt, id): the same order whatever the order of insertion. */
export interface ForgetQueue {
  readonly size: number;
  push(verdict: SubmissionVerdict): void;
  /** Takes the first verdict if it may be forgotten at `now`. */
  popDue(now: WallMs): SubmissionVerdict | undefined;
}

/** A durable change: the driver writes these and the applied index in one batch. `null` deletes. Values are plain records. */
export interface StatePut {
  /**
   * `cluster`, `peer/ID`, `invitation/ID`, `setting/KEY`, `verdict/ID`, `event/INDEX` (16 digits), and of a task, in parts so
   * that a change of one slot does not write 500 of them: `task/ID` (no slots, no decisions), `slot/ID/SLOT` (4 digits),
   * `decision/ID/INDEX.SLOT` (16 and 4 digits; slot + 1, so that 0000 is the task as a whole).
   */
  readonly key: string;
  readonly value: unknown;
}

export interface Applied {
  readonly index: LogIndex;
  readonly command: Command | UnreadableCommand;
  readonly result: ApplyResult;
  readonly puts: readonly StatePut[];
  readonly events: readonly ClusterEvent[];
  /** Tasks whose record changed (removed ones too). */
  readonly tasks: readonly TaskId[];
  readonly peersChanged: boolean;
}

/** Stands for the bytes of an entry that did not decode: applied as nothing, on every peer alike. */
export interface UnreadableCommand {
  readonly type: 'unreadable';
  readonly error: string;
}

/*
 * Functions of this room (state.ts):
 *   createState(): ClusterState
 *   apply(state, index, command): Applied
 *   applyEntry(state, index, bytes): Applied                                 decodes, then applies; never throws
 *   nextGeneration(state, slot): Generation                                  the only one slot.assign may bear
 *   slotText(taskId, slot): SlotText
 *   restoreState(pairs: Iterable<StatePut>, applied): ClusterState          from LevelDB or a snapshot
 *   dumpState(state): Iterable<StatePut>                                     a snapshot, in key order
 *   stateDigest(state): string                                               same on all peers at the same index
 */
export type { ClusterId };

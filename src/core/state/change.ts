import type { LogIndex, NodeId, TaskId, WallMs } from '../../model/ids.ts';
import { LIMITS } from '../../model/limits.ts';
import type {
  ClusterEvent,
  Decision,
  PeerRecord,
  SlotRecord,
  SubmissionVerdict,
  TaskRecord,
} from '../../model/records.ts';
import { decisionKey, eventKey, peerKey, slotKey, taskKey, taskMeta, verdictKey } from './keys.ts';
import type { ClusterState, SlotRef, SlotText } from './types.ts';

// One command's change while it is made: the maps, their indexes and the durable puts move together, here and nowhere else.
// Records are never changed in place (puts hand them to the store, which writes later); a new record replaces the old.

export interface Change {
  readonly state: ClusterState;
  readonly index: LogIndex;
  readonly by: NodeId;
  readonly at: WallMs;
  /** Last value per key wins. */
  readonly puts: Map<string, unknown>;
  readonly events: ClusterEvent[];
  readonly tasks: Set<TaskId>;
  peersChanged: boolean;
}

export const slotText = (taskId: TaskId, slot: number): SlotText => `${taskId}/${slot}`;

/** At most one event per command, so the index names it. */
export function addEvent(c: Change, type: string, subject: string, message: string): void {
  const event: ClusterEvent = { index: c.index, at: c.at, type, subject, message };
  c.state.events.push(event);
  c.events.push(event);
  c.puts.set(eventKey(event), event);
  while (c.state.events.length > LIMITS.eventsKept) c.puts.set(eventKey(c.state.events.shift() as ClusterEvent), null);
}

// ---- peers -----------------------------------------------------------------------------------------------------------

export function putPeer(c: Change, record: PeerRecord): void {
  const before = c.state.peers.get(record.nodeId);
  if (before !== undefined) c.state.peerNames.delete(before.name);
  c.state.peers.set(record.nodeId, record);
  c.state.peerNames.set(record.name, record.nodeId);
  c.puts.set(peerKey(record.nodeId), record);
  c.peersChanged = true;
}

export function deletePeer(c: Change, record: PeerRecord): void {
  c.state.peers.delete(record.nodeId);
  c.state.peerNames.delete(record.name);
  c.puts.set(peerKey(record.nodeId), null);
  c.peersChanged = true;
}

// ---- tasks -----------------------------------------------------------------------------------------------------------

/** Replaces a task's record; writes the parts that differ and moves the indexes. `after` undefined: removes it. */
export function putTask(c: Change, before: TaskRecord | undefined, after: TaskRecord | undefined): void {
  const id = (after ?? before)?.id;
  if (id === undefined) return;
  c.tasks.add(id);
  if (after === undefined) c.state.tasks.delete(id);
  else c.state.tasks.set(id, after);
  putTaskName(c.state, before, after);
  putTaskMeta(c, id, before, after);
  const slots = Math.max(before?.slots.length ?? 0, after?.slots.length ?? 0);
  const sameDesire = before?.desired === after?.desired;
  for (let i = 0; i < slots; i++) {
    const old = before?.slots[i];
    const now = after?.slots[i];
    if (old === now && sameDesire) continue;
    if (old !== now) c.puts.set(slotKey(id, i), now ?? null);
    unindexSlot(c.state, id, old);
    if (after !== undefined) indexSlot(c.state, after, now);
  }
  putDecisions(c, id, before?.decisions ?? [], after?.decisions ?? []);
}

function putTaskName(state: ClusterState, before: TaskRecord | undefined, after: TaskRecord | undefined): void {
  if (before?.spec.name === after?.spec.name) return;
  if (before !== undefined) state.taskNames.delete(before.spec.name);
  if (after !== undefined) state.taskNames.set(after.spec.name, after.id);
}

function putTaskMeta(c: Change, id: TaskId, before: TaskRecord | undefined, after: TaskRecord | undefined): void {
  const same =
    before?.spec === after?.spec && before?.specVersion === after?.specVersion && before?.desired === after?.desired;
  if (!same) c.puts.set(taskKey(id), after === undefined ? null : taskMeta(after));
}

function putDecisions(c: Change, id: TaskId, before: readonly Decision[], after: readonly Decision[]): void {
  if (before === after) return;
  const kept = new Set(after);
  const known = new Set(before);
  for (const d of before) if (!kept.has(d)) c.puts.set(decisionKey(id, d), null);
  for (const d of after) if (!known.has(d)) c.puts.set(decisionKey(id, d), d);
}

export function indexSlot(state: ClusterState, task: TaskRecord, slot: SlotRecord | undefined): void {
  if (slot === undefined) return;
  const text = slotText(task.id, slot.slot);
  const ref: SlotRef = { taskId: task.id, slot: slot.slot };
  if (slot.state.kind === 'assigned') {
    const { node } = slot.state;
    const ofNode = state.assignments.get(node) ?? new Map<SlotText, SlotRef>();
    state.assignments.set(node, ofNode.set(text, ref));
    state.openSlots.set(text, ref);
  } else if (task.desired === 'running') {
    if (slot.state.kind === 'pending') state.pendingSlots.set(text, ref);
    else if (slot.state.kind === 'closed') state.closedSlots.set(text, ref);
  }
}

function unindexSlot(state: ClusterState, id: TaskId, slot: SlotRecord | undefined): void {
  if (slot === undefined) return;
  const text = slotText(id, slot.slot);
  state.openSlots.delete(text);
  state.pendingSlots.delete(text);
  state.closedSlots.delete(text);
  if (slot.state.kind !== 'assigned') return;
  const ofNode = state.assignments.get(slot.state.node);
  ofNode?.delete(text);
  if (ofNode?.size === 0) state.assignments.delete(slot.state.node);
}

export type DecisionDraft = Pick<Decision, 'slot' | 'what' | 'generation' | 'node' | 'reason' | 'evidence'>;
/** `slot` of a decision about the task as a whole. */
export const WHOLE_TASK = -1;

/** The record with decisions added, newest last; the oldest give way. */
export function decided(c: Change, task: TaskRecord, ...drafts: readonly DecisionDraft[]): TaskRecord {
  const added = drafts.map((d): Decision => ({ ...d, at: c.at, index: c.index, by: c.by }));
  return { ...task, decisions: [...task.decisions, ...added].slice(-LIMITS.decisionsPerTask) };
}

/** The record with one slot replaced. */
export function withSlot(task: TaskRecord, slot: SlotRecord): TaskRecord {
  return { ...task, slots: task.slots.with(slot.slot, slot) };
}

// ---- verdicts --------------------------------------------------------------------------------------------------------

/** Records a verdict. Only refused and removed ones are ever forgotten; they do not change any more. */
export function putVerdict(c: Change, verdict: SubmissionVerdict): void {
  c.state.verdicts.set(verdict.id, verdict);
  c.puts.set(verdictKey(verdict.id), verdict);
  if (verdict.verdict !== 'accepted') c.state.forgetting.push(verdict);
}

/** Most verdicts forgotten by one command; the next ones go on. */
const FORGOTTEN_PER_COMMAND = 64;

/** Forgets what may be forgotten at the command's own time, so that every peer forgets the same at the same index. */
export function forgetVerdicts(c: Change): void {
  for (let i = 0; i < FORGOTTEN_PER_COMMAND; i++) {
    const verdict = c.state.forgetting.popDue(c.at);
    if (verdict === undefined) return;
    c.state.verdicts.delete(verdict.id);
    c.puts.set(verdictKey(verdict.id), null);
  }
}

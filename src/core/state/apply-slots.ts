import type { ApplyResult, Command } from '../../model/commands.ts';
import {
  compareGeneration,
  formatGeneration,
  type Generation,
  sameBase,
  sameGeneration,
} from '../../model/generation.ts';
import type { NodeId } from '../../model/ids.ts';
import type { SlotRecord, SlotState, TaskRecord } from '../../model/records.ts';
import { isExclusive } from '../../model/task-spec.ts';
import { addEvent, type Change, type DecisionDraft, decided, putTask, withSlot } from './change.ts';
import { OK, refused } from './results.ts';
import type { ClusterState } from './types.ts';

// Who runs a slot. The rules of fencing stand here: a generation is given once, to one node, and only when no other is open.

type Of<T extends Command['type']> = Extract<Command, { type: T }>;
type Found =
  | { readonly ok: true; readonly task: TaskRecord; readonly slot: SlotRecord }
  | (ApplyResult & { readonly ok: false });

/** The only generation the next assignment of a slot may bear: above all before it, in the epoch of the cluster. */
export function nextGeneration(state: ClusterState, slot: SlotRecord): Generation {
  return { epoch: Math.max(state.cluster?.epoch ?? 0, slot.generation.epoch), g: slot.generation.g + 1 };
}

function find(c: Change, command: Of<'slot.assign' | 'slot.drop' | 'slot.close' | 'slot.release' | 'slot.end'>): Found {
  const task = c.state.tasks.get(command.taskId);
  const slot = task?.slots[command.slot];
  if (task === undefined) return { ok: false, code: 'not_found', reason: `no task ${command.taskId}` };
  if (slot === undefined)
    return { ok: false, code: 'not_found', reason: `task ${task.spec.name} has no slot ${command.slot}` };
  return { ok: true, task, slot };
}

export function slotAssign(c: Change, command: Of<'slot.assign'>): ApplyResult {
  const found = find(c, command);
  if (!found.ok) return found;
  const { task, slot } = found;
  if (slot.state.kind === 'assigned')
    return refused(
      'stale',
      `slot ${slot.slot} is assigned with generation ${formatGeneration(slot.generation)}; it must be closed first`,
    );
  const next = nextGeneration(c.state, slot);
  if (command.generation.provisional !== undefined || !sameGeneration(command.generation, next)) {
    return refused(
      'stale',
      `the next generation of slot ${slot.slot} is ${formatGeneration(next)}, not ${formatGeneration(command.generation)}`,
    );
  }
  if (task.desired === 'stopped') return refused('refused', `task ${task.spec.name} is stopped`);
  if (slot.state.kind === 'finished' || slot.state.kind === 'failed')
    return refused('refused', `slot ${slot.slot} has ${slot.state.kind}; it runs again when it is restarted`);
  const unfit = unfitness(c.state, command.node);
  if (unfit !== undefined) return refused('refused', unfit);
  const wrong = adoptionFault(task, slot, command.adopts);
  if (wrong !== undefined) return refused('refused', wrong);
  const adopted = command.adopts === undefined ? {} : { adopted: command.adopts };
  const after: SlotRecord = {
    slot: slot.slot,
    generation: next,
    state: { kind: 'assigned', node: command.node, at: c.at, ...adopted },
  };
  change(c, task, after, {
    slot: slot.slot,
    what: 'assigned',
    generation: next,
    node: command.node,
    reason: command.reason,
    evidence: command.evidence,
  });
  addEvent(
    c,
    'slot.assigned',
    label(task, after),
    `${label(task, after)} goes to ${nameOf(c.state, command.node)}: ${command.reason}`,
  );
  return OK;
}

/** Only an available slot has provisional copies, and only those that grew from its last committed generation can be adopted. */
function adoptionFault(task: TaskRecord, slot: SlotRecord, adopts: Generation | undefined): string | undefined {
  if (adopts === undefined) return undefined;
  if (isExclusive(task.spec)) return `task ${task.spec.name} is exclusive: it has no provisional copies`;
  if (adopts.provisional === undefined || !sameBase(adopts, slot.generation))
    return `${formatGeneration(adopts)} is no provisional copy of ${formatGeneration(slot.generation)}`;
  return hasLost(slot, adopts) ? `${formatGeneration(adopts)} was dropped` : undefined;
}

/** Whether the records say that a provisional copy is no longer the one to run. */
export function hasLost(slot: SlotRecord, provisional: Generation): boolean {
  if (!sameBase(slot.generation, provisional)) return compareGeneration(slot.generation, provisional) > 0;
  return slot.dropped !== undefined && compareGeneration(provisional, slot.dropped) <= 0;
}

export function slotDrop(c: Change, command: Of<'slot.drop'>): ApplyResult {
  const found = find(c, command);
  if (!found.ok) return found;
  const { task, slot } = found;
  const { generation, reason, evidence } = command;
  if (generation.provisional === undefined || !sameBase(generation, slot.generation) || hasLost(slot, generation))
    return refused('stale', `${formatGeneration(generation)} is no open provisional copy of slot ${slot.slot}`);
  const node = holderOf(slot);
  change(
    c,
    task,
    { ...slot, dropped: generation },
    { slot: slot.slot, what: 'dropped', generation, node, reason, evidence },
  );
  addEvent(
    c,
    'slot.dropped',
    label(task, slot),
    `${label(task, slot)}: ${formatGeneration(generation)} stops: ${reason}`,
  );
  return OK;
}

/** The master may have decided before it saw a peer's removal or drain in the log; the log's order counts. */
function unfitness(state: ClusterState, node: NodeId): string | undefined {
  const peer = state.peers.get(node);
  if (peer === undefined) return `${node} is no peer of the cluster`;
  if (peer.witness) return `${peer.name} is a witness: it votes and runs nothing`;
  return peer.availability === 'drain' ? `${peer.name} is drained` : undefined;
}

export function slotClose(c: Change, command: Of<'slot.close'>): ApplyResult {
  const found = find(c, command);
  if (!found.ok) return found;
  const { task, slot } = found;
  if (slot.state.kind !== 'assigned' || !sameGeneration(slot.generation, command.generation))
    return notOpen(slot, command.generation);
  const { node } = slot.state;
  const after = withState(slot, { kind: 'closed', node, at: c.at, reason: command.reason });
  change(c, task, after, {
    slot: slot.slot,
    what: 'closed',
    generation: slot.generation,
    node,
    reason: command.reason,
    evidence: command.evidence,
  });
  addEvent(
    c,
    'slot.closed',
    label(task, after),
    `${label(task, after)} is taken from ${nameOf(c.state, node)}: ${command.reason}`,
  );
  return OK;
}

/** The holder gave its generation back (or its lease ran out): the slot waits for the scheduler. */
export function slotRelease(c: Change, command: Of<'slot.release'>): ApplyResult {
  const found = find(c, command);
  if (!found.ok) return found;
  const { task, slot } = found;
  if (!current(slot, command.generation)) return notOpen(slot, command.generation);
  const node = holderOf(slot);
  const after = withState(slot, { kind: 'pending', reason: command.reason });
  change(c, task, after, {
    slot: slot.slot,
    what: 'closed',
    generation: slot.generation,
    node,
    reason: `released: ${command.reason}`,
    evidence: [],
  });
  addEvent(c, 'slot.released', label(task, after), `${label(task, after)} is free again: ${command.reason}`);
  return OK;
}

/** The run ended by itself for good. A run that ended while its slot was being closed has ended all the same. */
export function slotEnd(c: Change, command: Of<'slot.end'>): ApplyResult {
  const found = find(c, command);
  if (!found.ok) return found;
  const { task, slot } = found;
  const node = holderOf(slot);
  if (node === null || !current(slot, command.generation)) return notOpen(slot, command.generation);
  const { outcome, exitCode, error } = command;
  const after = withState(slot, { kind: outcome, node, exitCode, error, at: c.at });
  const reason = error === '' ? `exit code ${exitCode ?? 'unknown'}` : error;
  change(c, task, after, { slot: slot.slot, what: outcome, generation: slot.generation, node, reason, evidence: [] });
  addEvent(
    c,
    `slot.${outcome}`,
    label(task, after),
    `${label(task, after)} ${outcome} on ${nameOf(c.state, node)}: ${reason}`,
  );
  return OK;
}

const current = (slot: SlotRecord, generation: Generation): boolean =>
  (slot.state.kind === 'assigned' || slot.state.kind === 'closed') && sameGeneration(slot.generation, generation);

const holderOf = (slot: SlotRecord): NodeId | null =>
  slot.state.kind === 'assigned' || slot.state.kind === 'closed' ? slot.state.node : null;

function notOpen(slot: SlotRecord, generation: Generation): ApplyResult {
  return refused(
    'stale',
    `generation ${formatGeneration(generation)} of slot ${slot.slot} is not open: it is ${slot.state.kind} at ${formatGeneration(slot.generation)}`,
  );
}

const withState = (slot: SlotRecord, state: SlotState): SlotRecord => ({ ...slot, state });

function change(c: Change, task: TaskRecord, slot: SlotRecord, decision: DecisionDraft): void {
  putTask(c, task, decided(c, withSlot(task, slot), decision));
}

const label = (task: TaskRecord, slot: SlotRecord): string =>
  task.spec.replicas > 1 ? `${task.spec.name}.${slot.slot}` : task.spec.name;
const nameOf = (state: ClusterState, node: NodeId): string => state.peers.get(node)?.name ?? node;

import type { ApplyResult, Command } from '../../model/commands.ts';
import { type WallMs, wallMs } from '../../model/ids.ts';
import { LIMITS } from '../../model/limits.ts';
import type { SlotRecord, SlotState, Submission, TaskRecord } from '../../model/records.ts';
import { addEvent, type Change, type DecisionDraft, decided, putTask, putVerdict, WHOLE_TASK } from './change.ts';
import { OK, refused } from './results.ts';
import { sameValue } from './stable.ts';

// Tasks: taken in, refused, updated, stopped, started, removed. A task's slots follow what is wanted; who runs them is
// decided by slot commands.

type Of<T extends Command['type']> = Extract<Command, { type: T }>;

export function taskSubmit(c: Change, { submission }: Of<'task.submit'>): ApplyResult {
  const { id, spec, expiresAt } = submission;
  const settled = settledBefore(c, submission);
  if (settled !== undefined) return settled;
  const { state } = c;
  if (state.verdicts.size >= LIMITS.rememberedSubmissions)
    return refused('limit', `${LIMITS.rememberedSubmissions} submissions are remembered already; try again later`);
  const refuse = (result: ApplyResult & { ok: false }): ApplyResult => {
    rememberRefusal(c, id, result, expiresAt);
    return result;
  };
  if (expiresAt <= c.at) return refuse({ ok: false, code: 'refused', reason: 'the submission has expired' });
  if (state.taskNames.has(spec.name))
    return refuse({ ok: false, code: 'name_in_use', reason: `a task called ${spec.name} exists` });
  if (state.tasks.size >= LIMITS.tasks)
    return refuse({ ok: false, code: 'limit', reason: `the cluster holds ${LIMITS.tasks} tasks already` });
  const slots = Array.from(
    { length: spec.replicas },
    (_, slot): SlotRecord => ({ slot, generation: { epoch: epochOf(c), g: 0 }, state: pending('new') }),
  );
  const record: TaskRecord = {
    id,
    spec,
    specVersion: 1,
    desired: 'running',
    acceptedAt: c.at,
    acceptedIndex: c.index,
    submittedBy: submission.from,
    slots,
    decisions: [],
  };
  putTask(c, undefined, decided(c, record, forTask('accepted', `accepted from ${submission.from}`)));
  putVerdict(c, { id, verdict: 'accepted', code: null, index: c.index, reason: '', forgetAt: twice(c, expiresAt) });
  addEvent(c, 'task.accepted', spec.name, `task ${spec.name} accepted`);
  return OK;
}

/** The answer to an id that was settled before: a retry is safe, a removed task does not come back. */
function settledBefore(c: Change, submission: Submission): ApplyResult | undefined {
  const { id, spec } = submission;
  const task = c.state.tasks.get(id);
  if (task !== undefined) {
    if (task.specVersion > 1 || sameValue(task.spec, spec)) return OK;
    return refused('already_exists', `another task document was submitted under the id ${id}`);
  }
  const verdict = c.state.verdicts.get(id);
  if (verdict === undefined) return undefined;
  return verdict.verdict === 'removed'
    ? refused('refused', 'the task of this id was removed')
    : refused(verdict.code ?? 'refused', verdict.reason);
}

export function taskRefuse(c: Change, command: Of<'task.refuse'>): ApplyResult {
  if (c.state.tasks.has(command.id)) return refused('already_exists', `task ${command.id} was accepted before`);
  if (c.state.verdicts.has(command.id)) return OK;
  if (c.state.verdicts.size >= LIMITS.rememberedSubmissions)
    return refused('limit', `${LIMITS.rememberedSubmissions} submissions are remembered already`);
  rememberRefusal(c, command.id, { code: 'refused', reason: command.reason }, command.expiresAt);
  return OK;
}

function rememberRefusal(
  c: Change,
  id: Submission['id'],
  { code, reason }: Pick<ApplyResult & { ok: false }, 'code' | 'reason'>,
  expiresAt: WallMs,
): void {
  putVerdict(c, { id, verdict: 'refused', code, index: c.index, reason, forgetAt: twice(c, expiresAt) });
  addEvent(c, 'task.refused', id, reason);
}

/** Twice the time to expiry from now: a peer back from a long cut cannot bring a settled submission back. */
function twice(c: Change, expiresAt: WallMs): WallMs {
  return wallMs(c.at + 2 * Math.max(0, expiresAt - c.at));
}

/** The spec is replaced as a whole; ended slots run again; the highest slots go when fewer are wanted. */
export function taskUpdate(c: Change, { taskId, spec }: Of<'task.update'>): ApplyResult {
  const before = c.state.tasks.get(taskId);
  if (before === undefined) return refused('not_found', `no task ${taskId}`);
  const bearer = c.state.taskNames.get(spec.name);
  if (bearer !== undefined && bearer !== taskId) return refused('name_in_use', `a task called ${spec.name} exists`);
  const kept = before.slots
    .slice(0, spec.replicas)
    .map((s) => (before.desired === 'running' ? again(s, 'updated') : s));
  const slots = [...kept, ...newSlots(c, kept.length, spec.replicas, before.desired)];
  const change = describeUpdate(before, spec);
  const after = { ...before, spec, specVersion: before.specVersion + 1, slots };
  putTask(c, before, decided(c, after, forTask('updated', change)));
  addEvent(c, 'task.updated', spec.name, `task ${spec.name}: ${change}`);
  return OK;
}

/**
 * A slot number may have been used and dropped before, and its old holder may be out of reach: generations must go on above
 * all it ever had. Each takes an entry of the log, so the index of this one is above them all.
 */
function newSlots(c: Change, from: number, to: number, desired: TaskRecord['desired']): SlotRecord[] {
  const state = pending(desired === 'running' ? 'new' : 'stopped');
  return Array.from({ length: Math.max(0, to - from) }, (_, i) => ({
    slot: from + i,
    generation: { epoch: epochOf(c), g: c.index },
    state,
  }));
}

function describeUpdate(before: TaskRecord, spec: TaskRecord['spec']): string {
  const fields = new Set([...Object.keys(before.spec), ...Object.keys(spec)]) as Set<keyof TaskRecord['spec']>;
  const changed = [...fields].filter((f) => !sameValue(before.spec[f], spec[f])).sort();
  return changed.length === 0 ? 'the same document again' : `${changed.join(', ')} changed`;
}

/** Stop, start, restart. Asking for what is so already changes nothing. */
export function taskDesire(c: Change, { taskId, desired, restart }: Of<'task.desire'>): ApplyResult {
  const before = c.state.tasks.get(taskId);
  if (before === undefined) return refused('not_found', `no task ${taskId}`);
  if (desired === 'stopped') {
    if (before.desired === 'stopped') return OK;
    const slots = before.slots.map(
      (s): SlotRecord =>
        s.state.kind === 'finished' || s.state.kind === 'failed' ? s : { ...s, state: pending('stopped') },
    );
    putTask(c, before, decided(c, { ...before, desired, slots }, forTask('stopped', 'ordered')));
    addEvent(c, 'task.stopped', before.spec.name, `task ${before.spec.name} stopped`);
    return OK;
  }
  if (before.desired === 'running' && !restart) return OK;
  const why = restart ? 'restarted' : 'started';
  const slots = before.slots.map(
    (s): SlotRecord =>
      s.state.kind === 'pending' && s.state.reason === 'stopped' ? { ...s, state: pending(why) } : again(s, why),
  );
  const after = { ...before, desired, slots, specVersion: before.specVersion + (restart ? 1 : 0) };
  putTask(c, before, decided(c, after, forTask('restarted', restart ? 'restart ordered' : 'start ordered')));
  addEvent(c, `task.${why}`, before.spec.name, `task ${before.spec.name} ${why}`);
  return OK;
}

/** Nothing of the task stays but the verdict on its id. */
export function taskRemove(c: Change, { taskId }: Of<'task.remove'>): ApplyResult {
  const before = c.state.tasks.get(taskId);
  const verdict = c.state.verdicts.get(taskId);
  if (before === undefined) return verdict?.verdict === 'removed' ? OK : refused('not_found', `no task ${taskId}`);
  putTask(c, before, undefined);
  putVerdict(c, {
    id: taskId,
    verdict: 'removed',
    code: null,
    index: c.index,
    reason: '',
    forgetAt: verdict?.forgetAt ?? c.at,
  });
  addEvent(c, 'task.removed', before.spec.name, `task ${before.spec.name} removed`);
  return OK;
}

const pending = (reason: string): SlotState => ({ kind: 'pending', reason });
/** An ended slot waits to run again; the others go on as they are. */
const again = (slot: SlotRecord, reason: string): SlotRecord =>
  slot.state.kind === 'finished' || slot.state.kind === 'failed' ? { ...slot, state: pending(reason) } : slot;
const forTask = (what: DecisionDraft['what'], reason: string): DecisionDraft => ({
  slot: WHOLE_TASK,
  what,
  generation: null,
  node: null,
  reason,
  evidence: [],
});
const epochOf = (c: Change): number => c.state.cluster?.epoch ?? 0;

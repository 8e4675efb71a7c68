import type { Command } from '../../model/commands.ts';
import { formatGeneration } from '../../model/generation.ts';
import { assertNever, type MonoMs, monoMs, type NodeId, type TaskId } from '../../model/ids.ts';
import type { SlotRecord, TaskRecord } from '../../model/records.ts';
import { isExclusive } from '../../model/task-spec.ts';
import { slotText } from '../lease/keys.ts';
import type { LeaseKey } from '../lease/types.ts';
import { nextGeneration } from '../state/state.ts';
import { landed, type Memory, nameOf } from './memory.ts';
import { provisionalOf, REPORT_MS } from './provisional.ts';
import { exclusiveBar } from './recovery.ts';
import { blockedHere, type Need, needOf, type ProvisionalCopy } from './slots.ts';
import type { MasterContext } from './types.ts';

// From a task's record to what its slots need: commands that can be proposed at once go to `out`, slots that need a machine
// to `wishes`.

/** Facts of a death or of candidates that are kept with one decision. */
export const MAX_EVIDENCE = 16;

export interface Wish {
  readonly task: TaskRecord;
  readonly slot: SlotRecord;
  readonly text: string;
  readonly need: Extract<Need, { kind: 'place' | 'fence' }>;
  /** Asks only whether a machine would take it; if so, the slot is closed. */
  readonly dry: boolean;
}

export interface Decisions {
  readonly wishes: Wish[];
  readonly out: Command[];
}

export function lookAtTask(m: Memory, ctx: MasterContext, id: TaskId, now: MonoMs, to: Decisions): void {
  const task = ctx.state.tasks.get(id);
  const texts = task?.slots.map((s) => slotText({ taskId: id, slot: s.slot })) ?? [];
  for (const old of m.known.get(id)?.slice(texts.length) ?? []) {
    m.inFlight.delete(old);
    m.avoidance.forget(old);
    m.hold(old, undefined, task, false);
  }
  m.waiting.delete(id);
  if (task === undefined) {
    m.known.delete(id);
    return;
  }
  m.known.set(id, texts);
  for (const [i, slot] of task.slots.entries()) lookAtSlot(m, ctx, task, slot, texts[i] as string, now, to);
}

const keyOf = (task: TaskRecord, slot: SlotRecord): LeaseKey => ({
  taskId: task.id,
  slot: slot.slot,
  generation: slot.generation,
});

function lookAtSlot(
  m: Memory,
  ctx: MasterContext,
  task: TaskRecord,
  slot: SlotRecord,
  text: string,
  now: MonoMs,
  to: Decisions,
): void {
  const { state } = slot;
  const running = task.desired === 'running';
  const flight = m.inFlight.get(text);
  if (flight !== undefined && (landed(flight, slot) || now >= flight.until || !running)) m.inFlight.delete(text);
  const flying = m.inFlight.get(text);
  m.hold(text, flying?.node ?? (state.kind === 'assigned' && running ? state.node : undefined), task, false);
  if (flying !== undefined) {
    m.wakes.setEarlier(`t${task.id}`, flying.until);
    return;
  }
  const at = state.kind === 'assigned' ? state.node : undefined;
  const facts = at === undefined ? undefined : ctx.facts.get(at);
  const since = at === undefined ? m.masterSince : Math.max(m.masterSince, ctx.members.get(at)?.since ?? 0);
  const provisional = provisionalOf(m, ctx, task, slot, now);
  if (provisional.length > 0 && now < since + REPORT_MS) m.wakes.setEarlier(`t${task.id}`, since + REPORT_MS);
  const need = needOf({
    task,
    slot,
    facts,
    provisional,
    epoch: ctx.state.cluster?.epoch ?? 0,
    settled: now >= since + REPORT_MS,
    condition: (id) => m.condition(ctx, id, now),
    nameOf: (id) => nameOf(ctx, id),
    draining: (id) => ctx.state.peers.get(id)?.availability === 'drain',
    released: at !== undefined && isExclusive(task.spec) && ctx.granter.isReleased(keyOf(task, slot), at),
  });
  const blocked = at === undefined ? undefined : blockedHere(facts, task, slot);
  if (at !== undefined && blocked !== undefined) m.avoidance.add(text, at, slot.generation, blocked, now);
  switch (need.kind) {
    case 'nothing':
      break;
    case 'wait':
      m.wait(task, slot, need.reason, []);
      break;
    case 'place':
      wish(m, { task, slot, text, need, dry: false }, to);
      break;
    case 'adopt':
      adopt(m, ctx, task, slot, text, need, now, to.out);
      break;
    case 'drop':
      to.out.push({
        type: 'slot.drop',
        by: m.self,
        at: ctx.wall,
        ...keyOf(task, slot),
        generation: need.generation,
        reason: need.reason,
        evidence: provisional.map((c) => describe(ctx, c)).slice(0, MAX_EVIDENCE),
      });
      m.takeOff(task, text, undefined, need.about, now, need.generation);
      break;
    case 'fence':
      fence(m, ctx, { task, slot, text, need, dry: false }, need, now, to);
      break;
    default:
      assertNever(need, 'need');
  }
}

const describe = (ctx: MasterContext, { node, fact }: ProvisionalCopy): string => {
  const { provisional } = fact.generation;
  const by = provisional === undefined ? '' : ` by order of caretaker ${nameOf(ctx, provisional.caretaker)}`;
  const age =
    fact.startedAt === null
      ? ''
      : `, for ${Math.max(0, Math.round((ctx.wall - fact.startedAt) / 1000))} s by its clock`;
  return `${formatGeneration(fact.generation)} is ${fact.state} on ${nameOf(ctx, node)}${by}${age}`;
};

function adopt(
  m: Memory,
  ctx: MasterContext,
  task: TaskRecord,
  slot: SlotRecord,
  text: string,
  need: Extract<Need, { kind: 'adopt' }>,
  now: MonoMs,
  out: Command[],
): void {
  const generation = nextGeneration(ctx.state, slot);
  const { node, fact } = need.copy;
  const about = evidenceAbout(ctx, need.about);
  const key = { taskId: task.id, slot: slot.slot };
  const meta = { by: m.self, at: ctx.wall };
  if (need.close)
    out.push({
      type: 'slot.close',
      ...meta,
      ...key,
      generation: slot.generation,
      reason: need.reason,
      evidence: about,
    });
  out.push({
    type: 'slot.assign',
    ...meta,
    ...key,
    generation,
    node,
    adopts: fact.generation,
    reason: `${need.reason}; the copy that ${nameOf(ctx, node)} runs goes on as it is`,
    evidence: [...about, describe(ctx, need.copy)].slice(-MAX_EVIDENCE),
  });
  m.takeOff(task, text, generation, node, now);
  m.hold(text, node, task, false);
}

/** One slot at a time leaves a drained machine; the others wish again when it has gone. */
function wish(m: Memory, w: Wish, to: Decisions): void {
  const move = w.need.drain && w.need.about !== null ? m.drains.get(w.need.about) : undefined;
  if (move === undefined || move.text === w.text) to.wishes.push(w);
}

function fence(
  m: Memory,
  ctx: MasterContext,
  w: Wish,
  need: Extract<Need, { kind: 'fence' }>,
  now: MonoMs,
  to: Decisions,
): void {
  if (need.close) {
    if (need.only === 'if-placeable') wish(m, { ...w, dry: true }, to);
    else close(m, ctx, w, now, to.out);
    return;
  }
  const bar = exclusiveBar(ctx);
  if (bar !== undefined) {
    m.wait(w.task, w.slot, bar, []);
    return;
  }
  const key = keyOf(w.task, w.slot);
  ctx.granter.close(key, need.about, now);
  const granted = ctx.granter.mayGrantAt(key);
  if (granted === undefined) return;
  const at = monoMs(Math.max(granted, m.barredUntil));
  if (now >= at) {
    wish(m, w, to);
    return;
  }
  m.wakes.setEarlier(`t${w.task.id}`, at);
  m.wait(w.task, w.slot, `waits until the lease of its old copy has run out (${need.reason})`, []);
}

/** Closes a slot whose successor cannot be named yet. */
export function close(m: Memory, ctx: MasterContext, w: Wish, now: MonoMs, out: Command[]): void {
  // From this moment on no renewal is acknowledged, whatever becomes of the proposal.
  if (isExclusive(w.task.spec)) ctx.granter.close(keyOf(w.task, w.slot), w.need.about, now);
  out.push(closeCommand(m, ctx, w));
  m.takeOff(w.task, w.text, undefined, undefined, now);
}

export const closeCommand = (m: Memory, ctx: MasterContext, { task, slot, need }: Wish): Command => ({
  type: 'slot.close',
  by: m.self,
  at: ctx.wall,
  ...keyOf(task, slot),
  reason: need.reason,
  evidence: evidenceAbout(ctx, need.about),
});

export const evidenceAbout = (ctx: MasterContext, node: NodeId | null): readonly string[] =>
  node === null ? [] : ctx.evidenceOf(node).slice(0, MAX_EVIDENCE);

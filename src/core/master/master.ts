import type { Command } from '../../model/commands.ts';
import { compareGeneration, type Generation } from '../../model/generation.ts';
import { assertNever, type MonoMs, monoMs, type NodeId, type TaskId, type Term } from '../../model/ids.ts';
import { LIMITS } from '../../model/limits.ts';
import type { SlotRecord, TaskRecord } from '../../model/records.ts';
import { isExclusive } from '../../model/task-spec.ts';
import { slotText } from '../lease/keys.ts';
import { createWakeQueue } from '../lease/wake-queue.ts';
import { place } from '../scheduling/scheduling.ts';
import type { Candidate, Placement, PlacementRequest, Rejection } from '../scheduling/types.ts';
import { nextGeneration } from '../state/state.ts';
import { createAvoidance } from './avoidance.ts';
import { DEFAULT_MASTER_CONFIG, type MasterConfig } from './config.ts';
import { type Condition, conditionOf, createFleet } from './fleet.ts';
import { createLeadership } from './leadership.ts';
import { blockedHere, type Need, needOf } from './slots.ts';
import { createSubmissionDesk } from './submissions.ts';
import type { MasterContext, MasterEffect, MasterMark, Waiting } from './types.ts';

// The master's decisions, level-triggered: each is made from the applied records and what membership and facts say now,
// so a lost proposal, a change of master or a repeated event costs nothing but another look. One pass over everything when
// mastery begins; after that only what was marked. See README.md beside this file.

export interface Master {
  mark(what: MasterMark): void;
  /** Decides; [] unless leader and established. Cheap when nothing is marked and nothing is due. */
  evaluate(ctx: MasterContext, now: MonoMs): MasterEffect[];
  /** Leadership lost: forgets everything, and the granter grants nothing any more. Idempotent. */
  stepDown(ctx: Pick<MasterContext, 'granter'>): void;
  /** A proposal of this core was answered. `false`: none of those in flight is counted on any longer. */
  proposalDone(ok: boolean): void;
  nextWake(): MonoMs | undefined;
  /** Why slots have no machine; empty on peers that are not master. */
  waiting(): ReadonlyMap<TaskId, Waiting>;
}

export type Place = (requests: readonly PlacementRequest[], candidates: readonly Candidate[]) => readonly Placement[];

interface Flight {
  readonly taskId: TaskId;
  readonly until: number;
  /** assign: done once the slot's generation reached this. close: done once it is no longer assigned. */
  readonly expect: Generation | undefined;
  readonly node: NodeId | undefined;
}

interface Wish {
  readonly task: TaskRecord;
  readonly slot: SlotRecord;
  readonly text: string;
  readonly need: Extract<Need, { kind: 'place' | 'fence' }>;
  /** Only whether a machine would take it; then close. */
  readonly dry: boolean;
}

const MAX_IN_FLIGHT = LIMITS.proposalsInFlight / 2;
const MAX_EVIDENCE = 16;
const MAX_REJECTIONS = 32;

export function createMaster(
  options: Partial<MasterConfig>,
  self: NodeId,
  deps: { readonly place?: Place } = {},
): Master {
  const config: MasterConfig = { ...DEFAULT_MASTER_CONFIG, ...options };
  const fleet = createFleet();
  const leadership = createLeadership(config);
  const avoidance = createAvoidance(config);
  const desk = createSubmissionDesk(config, self);
  const wakes = createWakeQueue();
  const dirtyTasks = new Set<TaskId>();
  const dirtyNodes = new Set<NodeId>();
  const dirtyFacts = new Set<NodeId>();
  const inFlight = new Map<string, Flight>();
  /** Slots of each task known to `fleet`, to let go of those that vanish. */
  const known = new Map<TaskId, readonly string[]>();
  const nodeStates = new Map<NodeId, string>();
  /** Draining machine -> the one slot that is on its way elsewhere. */
  const drains = new Map<
    NodeId,
    { readonly text: string; readonly taskId: TaskId; readonly slot: number; readonly until: number }
  >();
  const waiting = new Map<TaskId, { reason: string; rejections: readonly Rejection[]; slots: Set<number> }>();
  let term: Term | undefined;
  let masterSince = monoMs(0);
  let all = false;
  let roomFreed = false;
  let retriedAt = Number.NEGATIVE_INFINITY;
  let leadershipDirty = false;
  let unfinished = false;

  const forgetAll = (): void => {
    fleet.clear();
    avoidance.clear();
    desk.clear();
    wakes.clear();
    for (const m of [dirtyTasks, dirtyNodes, dirtyFacts, inFlight, known, nodeStates, drains, waiting]) m.clear();
    roomFreed = false;
    unfinished = false;
  };

  const nameOf = (ctx: MasterContext, id: NodeId): string => ctx.state.peers.get(id)?.name || id;

  // ---- machines ------------------------------------------------------------------------------------------------------

  function lookAtNode(ctx: MasterContext, id: NodeId, now: MonoMs): void {
    const condition = conditionOf(id, self, ctx, masterSince, now, config.agentDownMs);
    if (condition.kind === 'unsure' && condition.until !== undefined) wakes.set(`n${id}`, condition.until);
    const peer = ctx.state.peers.get(id);
    const state = `${condition.kind} ${peer?.availability} ${peer?.witness} ${JSON.stringify(peer?.labels)}`;
    leadershipDirty = true;
    if (nodeStates.get(id) === state) return;
    if (peer === undefined) {
      nodeStates.delete(id);
      fleet.forget(id);
    } else nodeStates.set(id, state);
    for (const text of fleet.slotsOn(id)) dirtyTasks.add(taskOf(text));
    if (condition.kind === 'ok') roomFreed = true;
  }

  function lookAtFacts(ctx: MasterContext, id: NodeId): void {
    const facts = ctx.facts.get(id);
    if (facts === undefined) return;
    if (fleet.headChanged(facts)) {
      roomFreed = true;
      leadershipDirty = true;
    }
    for (const c of facts.copies)
      if (c.state === 'failed' && c.startedAt === null && ctx.state.tasks.has(c.taskId)) dirtyTasks.add(c.taskId);
    for (const [source, move] of drains) if (fleet.holderOf(move.text) === id) dirtyNodes.add(source);
  }

  /** One copy at a time leaves a drained machine: the next once the last one runs elsewhere, is gone, or takes too long. */
  function stepDrain(ctx: MasterContext, source: NodeId, now: MonoMs): void {
    const move = drains.get(source);
    if (move === undefined) return;
    const state = ctx.state.tasks.get(move.taskId)?.slots.find((s) => s.slot === move.slot)?.state;
    const target = state?.kind === 'assigned' ? state.node : undefined;
    const arrived =
      target !== undefined &&
      target !== source &&
      ctx.facts
        .get(target)
        ?.copies.some((c) => c.taskId === move.taskId && c.slot === move.slot && c.state === 'running');
    const over = state === undefined || state.kind === 'finished' || state.kind === 'failed';
    if (!arrived && !over && now < move.until) return;
    drains.delete(source);
    for (const text of fleet.slotsOn(source)) dirtyTasks.add(taskOf(text));
  }

  // ---- tasks ---------------------------------------------------------------------------------------------------------

  function lookAtTask(ctx: MasterContext, id: TaskId, now: MonoMs, wishes: Wish[], out: Command[]): void {
    const task = ctx.state.tasks.get(id);
    const texts = task?.slots.map((s) => slotText({ taskId: id, slot: s.slot })) ?? [];
    for (const old of known.get(id) ?? []) {
      if (texts.includes(old)) continue;
      inFlight.delete(old);
      avoidance.forget(old);
      if (fleet.hold(old, undefined, task, false)) roomFreed = true;
    }
    waiting.delete(id);
    if (task === undefined) {
      known.delete(id);
      return;
    }
    known.set(id, texts);
    for (const [i, slot] of task.slots.entries()) lookAtSlot(ctx, task, slot, texts[i] as string, now, wishes, out);
  }

  function lookAtSlot(
    ctx: MasterContext,
    task: TaskRecord,
    slot: SlotRecord,
    text: string,
    now: MonoMs,
    wishes: Wish[],
    out: Command[],
  ): void {
    const { state } = slot;
    const flight = inFlight.get(text);
    if (flight !== undefined && (landed(flight, slot) || now >= flight.until || task.desired === 'stopped'))
      inFlight.delete(text);
    const flying = inFlight.get(text);
    const node = flying?.node ?? (state.kind === 'assigned' && task.desired === 'running' ? state.node : undefined);
    if (fleet.hold(text, node, task, false)) roomFreed = true;
    if (flying !== undefined) {
      wakes.setEarlier(`t${task.id}`, flying.until);
      return;
    }
    const exclusive = isExclusive(task.spec);
    const key = { taskId: task.id, slot: slot.slot, generation: slot.generation };
    const at = state.kind === 'assigned' ? state.node : undefined;
    const facts = at === undefined ? undefined : ctx.facts.get(at);
    const need = needOf({
      task,
      slot,
      facts,
      condition: (id): Condition => conditionOf(id, self, ctx, masterSince, now, config.agentDownMs),
      nameOf: (id) => nameOf(ctx, id),
      draining: (id) => ctx.state.peers.get(id)?.availability === 'drain',
      released: exclusive && at !== undefined && ctx.granter.isReleased(key, at),
    });
    if (at !== undefined) {
      const blocked = blockedHere(facts, task, slot);
      if (blocked !== undefined) avoidance.add(text, at, slot.generation, blocked, now);
    }
    switch (need.kind) {
      case 'nothing':
        return;
      case 'wait':
        wait(task, slot, need.reason, []);
        return;
      case 'place':
        wish({ task, slot, text, need, dry: false }, wishes);
        return;
      case 'fence':
        fence(ctx, { task, slot, text, need, dry: false }, now, wishes, out);
        return;
      default:
        assertNever(need, 'need');
    }
  }

  function wish(w: Wish, wishes: Wish[]): void {
    const source = w.need.drain ? w.need.about : null;
    const move = source === null ? undefined : drains.get(source);
    if (move === undefined || move.text === w.text) wishes.push(w);
  }

  function fence(ctx: MasterContext, w: Wish, now: MonoMs, wishes: Wish[], out: Command[]): void {
    if (w.need.close) {
      if (w.need.kind === 'fence' && w.need.only === 'if-placeable') wish({ ...w, dry: true }, wishes);
      else close(ctx, w.task, w.slot, w.text, w.need.reason, w.need.about, now, out);
      return;
    }
    const key = { taskId: w.task.id, slot: w.slot.slot, generation: w.slot.generation };
    ctx.granter.close(key, w.need.about, now);
    const at = ctx.granter.mayGrantAt(key);
    if (at === undefined) return;
    if (now >= at) {
      wish(w, wishes);
      return;
    }
    wakes.setEarlier(`t${w.task.id}`, at);
    wait(w.task, w.slot, `waits until the lease of its old copy has run out (${w.need.reason})`, []);
  }

  function close(
    ctx: MasterContext,
    task: TaskRecord,
    slot: SlotRecord,
    text: string,
    reason: string,
    about: NodeId | null,
    now: MonoMs,
    out: Command[],
  ): void {
    // From this moment on no renewal is acknowledged, whatever becomes of the proposal.
    if (isExclusive(task.spec))
      ctx.granter.close({ taskId: task.id, slot: slot.slot, generation: slot.generation }, about, now);
    out.push(closeCommand(ctx, task, slot, reason, about));
    takeOff(task, text, undefined, undefined, now);
  }

  const closeCommand = (
    ctx: MasterContext,
    task: TaskRecord,
    slot: SlotRecord,
    reason: string,
    about: NodeId | null,
  ): Command => ({
    type: 'slot.close',
    by: self,
    at: ctx.wall,
    taskId: task.id,
    slot: slot.slot,
    generation: slot.generation,
    reason,
    evidence: about === null ? [] : ctx.evidenceOf(about).slice(0, MAX_EVIDENCE),
  });

  function takeOff(
    task: TaskRecord,
    text: string,
    expect: Generation | undefined,
    node: NodeId | undefined,
    now: MonoMs,
  ): void {
    const until = now + config.proposalTimeoutMs;
    inFlight.set(text, { taskId: task.id, until, expect, node });
    wakes.setEarlier(`t${task.id}`, until);
  }

  function wait(task: TaskRecord, slot: SlotRecord, reason: string, rejections: readonly Rejection[]): void {
    const entry = waiting.get(task.id) ?? { reason, rejections, slots: new Set<number>() };
    entry.reason = reason;
    if (rejections.length > 0) entry.rejections = rejections.slice(0, MAX_REJECTIONS);
    entry.slots.add(slot.slot);
    waiting.set(task.id, entry);
  }

  // ---- placement -----------------------------------------------------------------------------------------------------

  function placeAll(ctx: MasterContext, wishes: Wish[], now: MonoMs, out: Command[]): void {
    if (wishes.length === 0) return;
    wishes.sort(
      (a, b) =>
        b.task.spec.priority - a.task.spec.priority ||
        a.task.acceptedIndex - b.task.acceptedIndex ||
        a.slot.slot - b.slot.slot,
    );
    const room = Math.min(config.placeAtOnce, MAX_IN_FLIGHT - inFlight.size);
    for (const w of wishes.splice(Math.max(0, room))) {
      dirtyTasks.add(w.task.id);
      unfinished = true;
    }
    const candidates: Candidate[] = [];
    for (const id of ctx.state.peers.keys()) {
      const condition = conditionOf(id, self, ctx, masterSince, now, config.agentDownMs);
      const candidate = condition.kind === 'ok' ? fleet.candidate(ctx, id) : undefined;
      if (candidate !== undefined) candidates.push(candidate);
    }
    const requests = wishes.map(
      (w): PlacementRequest => ({
        taskId: w.task.id,
        slot: w.slot.slot,
        spec: w.task.spec,
        avoid: avoidance.of(w.text, now),
      }),
    );
    const byText = new Map(
      (deps.place ?? place)(requests, candidates).map((p) => [`${p.request.taskId}.${p.request.slot}`, p]),
    );
    for (const w of wishes) {
      const placement = byText.get(w.text);
      if (placement?.ok) carryOut(ctx, w, placement, now, out);
      else {
        if (placement !== undefined)
          wait(w.task, w.slot, `${placement.reason} (${w.need.reason})`, placement.rejections);
        const retry = avoidance.nextOf(w.text, now);
        if (retry !== undefined) wakes.setEarlier(`t${w.task.id}`, retry);
      }
    }
  }

  function carryOut(
    ctx: MasterContext,
    w: Wish,
    p: Extract<Placement, { ok: true }>,
    now: MonoMs,
    out: Command[],
  ): void {
    const { task, slot, need } = w;
    if (need.drain && need.about !== null) {
      const move = drains.get(need.about);
      if (move !== undefined && move.text !== w.text) {
        fleet.spoil(p.node);
        return;
      }
      const until = now + config.drainStepMs;
      drains.set(need.about, { text: w.text, taskId: task.id, slot: slot.slot, until });
      wakes.set(`n${need.about}`, until);
    }
    if (w.dry) {
      fleet.spoil(p.node);
      close(ctx, task, slot, w.text, need.reason, need.about, now, out);
      return;
    }
    const generation = nextGeneration(ctx.state, slot);
    if (need.close) out.push(closeCommand(ctx, task, slot, need.reason, need.about));
    if (isExclusive(task.spec)) ctx.granter.assigning({ taskId: task.id, slot: slot.slot, generation });
    const about = need.about === null ? [] : ctx.evidenceOf(need.about);
    out.push({
      type: 'slot.assign',
      by: self,
      at: ctx.wall,
      taskId: task.id,
      slot: slot.slot,
      generation,
      node: p.node,
      reason: `${need.reason}; ${p.reason}`,
      evidence: [...about, ...p.evidence].slice(0, MAX_EVIDENCE),
    });
    takeOff(task, w.text, generation, p.node, now);
    if (fleet.hold(w.text, p.node, task, true)) roomFreed = true;
  }

  // ---- the whole -----------------------------------------------------------------------------------------------------

  function begin(ctx: MasterContext, now: MonoMs): void {
    forgetAll();
    term = ctx.consensus.term;
    masterSince = now;
    all = true;
    leadership.begin(self, now);
    ctx.granter.becameMaster(term, now);
  }

  function collect(ctx: MasterContext, now: MonoMs): void {
    if (all) {
      all = false;
      for (const id of ctx.state.peers.keys()) dirtyNodes.add(id);
      for (const id of nodeStates.keys()) dirtyNodes.add(id);
      for (const id of ctx.facts.keys()) dirtyFacts.add(id);
      for (const id of ctx.state.tasks.keys()) dirtyTasks.add(id);
      for (const id of known.keys()) dirtyTasks.add(id);
      desk.mark();
    }
    for (const name of wakes.due(now)) {
      if (name.startsWith('n')) dirtyNodes.add(name.slice(1) as NodeId);
      else if (name.startsWith('t')) dirtyTasks.add(name.slice(1) as TaskId);
    }
    for (const id of dirtyFacts) lookAtFacts(ctx, id);
    dirtyFacts.clear();
    for (const id of dirtyNodes) {
      lookAtNode(ctx, id, now);
      stepDrain(ctx, id, now);
    }
    dirtyNodes.clear();
    if (!roomFreed || waiting.size === 0) {
      roomFreed = roomFreed && waiting.size > 0;
      return;
    }
    if (now - retriedAt < config.retryWaitingMs) {
      wakes.setEarlier('w', retriedAt + config.retryWaitingMs);
      return;
    }
    retriedAt = now;
    roomFreed = false;
    for (const id of waiting.keys()) dirtyTasks.add(id);
  }

  function evaluate(ctx: MasterContext, now: MonoMs): MasterEffect[] {
    if (ctx.consensus.role !== 'leader' || !ctx.consensus.established) {
      stepDown(ctx);
      return [];
    }
    if (term !== ctx.consensus.term) begin(ctx, now);
    unfinished = false;
    collect(ctx, now);
    const commands: Command[] = [];
    if (dirtyTasks.size > 0) {
      const wishes: Wish[] = [];
      const ids = [...dirtyTasks];
      dirtyTasks.clear();
      for (const id of ids) lookAtTask(ctx, id, now, wishes, commands);
      placeAll(ctx, wishes, now, commands);
    }
    commands.push(...desk.evaluate(ctx, now));
    const effects: MasterEffect[] = commands.length > 0 ? [{ type: 'propose', commands }] : [];
    const wake = leadership.nextWake();
    if (leadershipDirty || (wake !== undefined && now >= wake) || ctx.localHealth > config.maxLocalHealth) {
      leadershipDirty = false;
      effects.push(...leadership.evaluate(ctx, self, now));
    }
    if (unfinished || desk.unfinished()) wakes.set('w', now + 1);
    return effects;
  }

  function stepDown(ctx: Pick<MasterContext, 'granter'>): void {
    ctx.granter.lostMaster();
    if (term === undefined) return;
    term = undefined;
    forgetAll();
  }

  return {
    mark(what) {
      if (term === undefined) return;
      for (const id of what.tasks ?? []) dirtyTasks.add(id);
      for (const id of what.nodes ?? []) dirtyNodes.add(id);
      for (const id of what.facts ?? []) dirtyFacts.add(id);
      if (what.submissions === true) desk.mark();
      if (what.all === true) all = true;
    },
    evaluate,
    stepDown,
    proposalDone(ok) {
      if (ok || term === undefined) return;
      for (const flight of inFlight.values()) dirtyTasks.add(flight.taskId);
      inFlight.clear();
      desk.retry();
    },
    nextWake() {
      if (term === undefined) return undefined;
      const a = wakes.next();
      const b = leadership.nextWake();
      const at = Math.min(a ?? Number.POSITIVE_INFINITY, b ?? Number.POSITIVE_INFINITY);
      return at === Number.POSITIVE_INFINITY ? undefined : monoMs(at);
    },
    waiting: () =>
      new Map([...waiting].map(([id, w]) => [id, { reason: w.reason, rejections: w.rejections, slots: [...w.slots] }])),
  };
}

const taskOf = (text: string): TaskId => text.slice(0, text.lastIndexOf('.')) as TaskId;

function landed(flight: Flight, slot: SlotRecord): boolean {
  if (flight.expect !== undefined) return compareGeneration(slot.generation, flight.expect) >= 0;
  return slot.state.kind !== 'assigned';
}

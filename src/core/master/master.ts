import { type MonoMs, monoMs, type NodeId, type TaskId, type Term } from '../../model/ids.ts';
import { slotText } from '../lease/keys.ts';
import { place } from '../scheduling/scheduling.ts';
import { DEFAULT_MASTER_CONFIG, type MasterConfig } from './config.ts';
import { createLeadership } from './leadership.ts';
import { lookAtFacts, lookAtNode, stepDrain } from './machines.ts';
import { Memory, type Place } from './memory.ts';
import { placeAll } from './placing.ts';
import { createSubmissionDesk } from './submissions.ts';
import { accountFor } from './recovery.ts';
import { type Decisions, lookAtTask } from './tasks.ts';
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
  /** Decisions proposed and not seen applied. */
  inFlight(): number;
}

export function createMaster(
  options: Partial<MasterConfig>,
  self: NodeId,
  deps: { readonly place?: Place } = {},
): Master {
  const config: MasterConfig = { ...DEFAULT_MASTER_CONFIG, ...options };
  const m = new Memory(config, self, deps.place ?? place);
  const leadership = createLeadership(config);
  const desk = createSubmissionDesk(config, self);
  let term: Term | undefined;
  let all = false;
  let accountAt = Number.NEGATIVE_INFINITY;

  const forgetAll = (): void => {
    m.clear();
    desk.clear();
  };

  function begin(ctx: MasterContext, now: MonoMs): void {
    forgetAll();
    term = ctx.consensus.term;
    m.masterSince = now;
    all = true;
    leadership.begin(self, now);
    ctx.granter.becameMaster(term, now);
  }

  function markAll(ctx: MasterContext): void {
    for (const id of [...ctx.state.peers.keys(), ...m.nodeStates.keys()]) m.dirtyNodes.add(id);
    for (const id of ctx.facts.keys()) m.dirtyFacts.add(id);
    for (const id of [...ctx.state.tasks.keys(), ...m.known.keys()]) m.dirtyTasks.add(id);
    desk.mark();
  }

  /** Turns what was marked and what has become due into tasks to decide upon. */
  function collect(ctx: MasterContext, now: MonoMs): void {
    if (all) markAll(ctx);
    all = false;
    for (const name of m.wakes.due(now)) {
      if (name.startsWith('n')) m.dirtyNodes.add(name.slice(1) as NodeId);
      else if (name.startsWith('t')) m.dirtyTasks.add(name.slice(1) as TaskId);
    }
    for (const id of m.dirtyFacts) lookAtFacts(m, ctx, id);
    m.dirtyFacts.clear();
    for (const id of m.dirtyNodes) {
      lookAtNode(m, ctx, id, now);
      stepDrain(m, ctx, id, now);
    }
    m.dirtyNodes.clear();
    retryWaiting(now);
  }

  /** Room was freed: what waits is looked at again, at most every retryWaitingMs. */
  function retryWaiting(now: MonoMs): void {
    if (!m.roomFreed) return;
    if (m.waiting.size > 0 && now - m.retriedAt < config.retryWaitingMs) {
      m.wakes.setEarlier('w', m.retriedAt + config.retryWaitingMs);
      return;
    }
    m.roomFreed = false;
    if (m.waiting.size === 0) return;
    m.retriedAt = now;
    for (const id of m.waiting.keys()) m.dirtyTasks.add(id);
  }

  function decide(ctx: MasterContext, now: MonoMs): Decisions['out'] {
    const to: Decisions = { wishes: [], out: [] };
    const ids = [...m.dirtyTasks];
    m.dirtyTasks.clear();
    for (const id of ids) lookAtTask(m, ctx, id, now, to);
    placeAll(m, ctx, to, now);
    return to.out;
  }

  /** After a recovery by force: voters of the epoch before are counted in; when they suffice, old leases are waited out. */
  function accounting(ctx: MasterContext, now: MonoMs): Decisions['out'] {
    const barred = ctx.state.cluster?.unsettled !== undefined;
    if (m.wasBarred && !barred) {
      m.barredUntil = monoMs(now + ctx.granter.waitMs);
      all = true;
      m.wakes.set('w', now + 1);
    }
    m.wasBarred = barred;
    // What waits says for whom.
    const accounted = ctx.state.cluster?.unsettled?.accounted.length ?? 0;
    if (accounted !== m.accounted) m.roomFreed = true;
    m.accounted = accounted;
    if (!barred || now < accountAt) return [];
    const commands = accountFor(ctx, self);
    if (commands.length > 0) accountAt = now + config.proposalTimeoutMs;
    return commands;
  }

  function evaluate(ctx: MasterContext, now: MonoMs): MasterEffect[] {
    if (ctx.consensus.role !== 'leader' || !ctx.consensus.established) {
      stepDown(ctx);
      return [];
    }
    if (term !== ctx.consensus.term) begin(ctx, now);
    m.unfinished = false;
    collect(ctx, now);
    const commands = m.dirtyTasks.size > 0 ? decide(ctx, now) : [];
    // These decisions may themselves have freed room (a task removed, a slot moved away).
    retryWaiting(now);
    if (m.dirtyTasks.size > 0 && !m.unfinished) commands.push(...decide(ctx, now));
    if (m.roomFreed && m.waiting.size > 0)
      m.wakes.setEarlier('w', Math.max(now + 1, m.retriedAt + config.retryWaitingMs));
    commands.push(...desk.evaluate(ctx, now), ...accounting(ctx, now));
    const effects: MasterEffect[] = commands.length > 0 ? [{ type: 'propose', commands }] : [];
    const wake = leadership.nextWake();
    if (m.leadershipDirty || (wake !== undefined && now >= wake) || ctx.localHealth > config.maxLocalHealth) {
      m.leadershipDirty = false;
      effects.push(...leadership.evaluate(ctx, self, now));
    }
    if (m.unfinished || desk.unfinished()) m.wakes.set('w', now + 1);
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
      for (const id of what.tasks ?? []) m.dirtyTasks.add(id);
      for (const id of what.nodes ?? []) m.dirtyNodes.add(id);
      for (const id of what.facts ?? []) m.dirtyFacts.add(id);
      for (const slot of what.refused ?? []) {
        m.inFlight.delete(slotText(slot));
        m.dirtyTasks.add(slot.taskId);
      }
      if (what.submissions === true) desk.mark();
      if (what.all === true) all = true;
    },
    evaluate,
    stepDown,
    proposalDone(ok) {
      if (ok || term === undefined) return;
      for (const flight of m.inFlight.values()) m.dirtyTasks.add(flight.taskId);
      m.inFlight.clear();
      desk.retry();
    },
    nextWake() {
      if (term === undefined) return undefined;
      const wakes = [m.wakes.next(), leadership.nextWake(), desk.nextWake()].filter((at) => at !== undefined);
      return wakes.length === 0 ? undefined : monoMs(Math.min(...wakes));
    },
    inFlight: () => m.inFlight.size,
    waiting: () =>
      new Map(
        [...m.waiting].map(([id, w]) => [id, { reason: w.reason, rejections: w.rejections, slots: [...w.slots] }]),
      ),
  };
}

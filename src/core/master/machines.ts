import type { MonoMs, NodeId } from '../../model/ids.ts';
import type { Memory } from './memory.ts';
import type { MasterContext } from './types.ts';

// What a change of a machine (its membership, its record, its facts) makes worth deciding again.

/** Status, record or availability of a machine may have changed. */
export function lookAtNode(m: Memory, ctx: MasterContext, id: NodeId, now: MonoMs): void {
  const condition = m.condition(ctx, id, now);
  if (condition.kind === 'unsure' && condition.until !== undefined) m.wakes.set(`n${id}`, condition.until);
  const peer = ctx.state.peers.get(id);
  const state = `${condition.kind} ${peer?.availability} ${peer?.witness} ${JSON.stringify(peer?.labels)}`;
  m.leadershipDirty = true;
  if (m.nodeStates.get(id) === state) return;
  m.touchSlotsOn(id);
  if (peer === undefined) {
    m.nodeStates.delete(id);
    m.fleet.forget(id);
  } else m.nodeStates.set(id, state);
  if (condition.kind === 'ok') m.roomFreed = true;
}

export function lookAtFacts(m: Memory, ctx: MasterContext, id: NodeId): void {
  const facts = ctx.facts.get(id);
  if (facts === undefined) return;
  if (m.fleet.headChanged(facts)) {
    m.roomFreed = true;
    m.leadershipDirty = true;
  }
  const provisional = facts.copies.filter((c) => c.generation.provisional !== undefined);
  if (provisional.length > 0) m.provisionals.set(id, provisional);
  else m.provisionals.delete(id);
  // Whatever else a holder reports of a slot with provisional copies may settle which of them is to stay.
  if (m.provisionals.size > 0)
    for (const list of m.provisionals.values()) for (const c of list) m.dirtyTasks.add(c.taskId);
  for (const c of facts.copies) {
    if (c.state === 'failed' && c.startedAt === null && ctx.state.tasks.has(c.taskId)) m.dirtyTasks.add(c.taskId);
  }
  for (const [source, move] of m.drains) if (m.fleet.holderOf(move.text) === id) m.dirtyNodes.add(source);
}

/** One copy at a time leaves a drained machine: the next once the last one runs elsewhere, is gone, or takes too long. */
export function stepDrain(m: Memory, ctx: MasterContext, source: NodeId, now: MonoMs): void {
  const move = m.drains.get(source);
  if (move === undefined) return;
  const state = ctx.state.tasks.get(move.taskId)?.slots[move.slot]?.state;
  const target = state?.kind === 'assigned' ? state.node : undefined;
  const copies = target === undefined || target === source ? [] : (ctx.facts.get(target)?.copies ?? []);
  const arrived = copies.some((c) => c.taskId === move.taskId && c.slot === move.slot && c.state === 'running');
  const over = state === undefined || state.kind === 'finished' || state.kind === 'failed';
  if (!arrived && !over && now < move.until) return;
  m.drains.delete(source);
  m.touchSlotsOn(source);
}

import type { CopyFact } from '../../model/facts.ts';
import { sameBase } from '../../model/generation.ts';
import type { MonoMs, NodeId } from '../../model/ids.ts';
import type { SlotRecord, TaskRecord } from '../../model/records.ts';
import { isExclusive } from '../../model/task-spec.ts';
import { hasLost } from '../state/state.ts';
import type { Memory } from './memory.ts';
import type { ProvisionalCopy } from './slots.ts';
import type { MasterContext } from './types.ts';

// Copies that caretakers started while there was no majority, as their machines report them.

/** A machine that has just come back says within this time what runs on it. */
export const REPORT_MS = 1000;

/** A copy that runs, or will without further orders. */
export const isLive = (c: CopyFact): boolean =>
  c.state === 'running' || c.state === 'starting' || c.state === 'preparing' || c.state === 'backoff';
/** Its run is over; that is the end of the slot's run, once somebody with a majority says so. */
export const hasEnded = (c: CopyFact): boolean =>
  c.state === 'finished' || (c.state === 'failed' && c.startedAt !== null);

/** The copy that has run for longest; those that run before those that do not. */
export function longestRunning<T extends { readonly fact: CopyFact; readonly node: NodeId }>(
  copies: readonly T[],
): T | undefined {
  const since = (c: T): number => c.fact.startedAt ?? Number.MAX_SAFE_INTEGER;
  const waits = (c: T): number => (c.fact.state === 'running' ? 0 : hasEnded(c.fact) ? 1 : 2);
  return [...copies].sort((a, b) => waits(a) - waits(b) || since(a) - since(b) || (a.node < b.node ? -1 : 1))[0];
}

/** Open provisional copies of a slot on machines that are there and may keep them. */
export function provisionalOf(
  m: Memory,
  ctx: MasterContext,
  task: TaskRecord,
  slot: SlotRecord,
  now: MonoMs,
): readonly ProvisionalCopy[] {
  if (m.provisionals.size === 0 || isExclusive(task.spec)) return [];
  const found: ProvisionalCopy[] = [];
  for (const [node, list] of m.provisionals) {
    const peer = ctx.state.peers.get(node);
    if (peer === undefined || peer.availability !== 'active' || m.condition(ctx, node, now).kind !== 'ok') continue;
    for (const fact of list) {
      if (fact.taskId !== task.id || fact.slot !== slot.slot || !sameBase(fact.generation, slot.generation)) continue;
      if (!hasLost(slot, fact.generation) && (isLive(fact) || hasEnded(fact))) found.push({ node, fact });
    }
  }
  return found;
}

import type { CopyFact, NodeFacts } from '../../model/facts.ts';
import { compareGeneration, type Generation, sameGeneration } from '../../model/generation.ts';
import type { NodeId } from '../../model/ids.ts';
import type { SlotRecord, TaskRecord } from '../../model/records.ts';
import { isExclusive } from '../../model/task-spec.ts';
import { longestRunning } from './provisional.ts';
import type { Condition } from './fleet.ts';

// What one slot needs, from its record and its machine's condition. Pure: the core in master.ts does it.

export type Need =
  | { readonly kind: 'nothing' }
  /** Nothing can be done now; said to whoever asks why. */
  | { readonly kind: 'wait'; readonly reason: string }
  /** Assign g+1, closing g in the same batch when it is open. Left as it is when no machine is found. */
  | {
      readonly kind: 'place';
      readonly reason: string;
      readonly about: NodeId | null;
      readonly close: boolean;
      readonly drain: boolean;
    }
  /**
   * Exclusive: g must be closed and its lease run out before g+1. `only: 'if-placeable'`: not before another machine is
   * known to take it (drain, blocked): the copy runs on meanwhile.
   */
  | {
      readonly kind: 'fence';
      readonly reason: string;
      readonly about: NodeId | null;
      readonly close: boolean;
      readonly only: 'always' | 'if-placeable';
      readonly drain: boolean;
    }
  /** A provisional copy goes on, as it runs, under g+1. */
  | {
      readonly kind: 'adopt';
      readonly copy: ProvisionalCopy;
      readonly reason: string;
      readonly about: NodeId | null;
      readonly close: boolean;
    }
  /** The committed copy runs: provisional ones up to this stop. */
  | { readonly kind: 'drop'; readonly generation: Generation; readonly reason: string; readonly about: NodeId };

/** A provisional copy that a caretaker started, on a machine that is there. */
export interface ProvisionalCopy {
  readonly node: NodeId;
  readonly fact: CopyFact;
}

const NOTHING: Need = { kind: 'nothing' };

export interface SlotView {
  readonly task: TaskRecord;
  readonly slot: SlotRecord;
  readonly condition: (node: NodeId) => Condition;
  readonly facts: NodeFacts | undefined;
  readonly nameOf: (node: NodeId) => string;
  readonly draining: (node: NodeId) => boolean;
  /** Of this slot's last committed generation; none of an exclusive slot. */
  readonly provisional: readonly ProvisionalCopy[];
  /** Of the cluster. */
  readonly epoch: number;
  /** Its machine has been there for long enough to have said what runs on it. */
  readonly settled: boolean;
  /** Exclusive: its holder proved the copy dead and will not start it again. */
  readonly released: boolean;
}

/** The copy's machine says that it cannot run it (not: that its run failed): the words it gives. */
export function blockedHere(facts: NodeFacts | undefined, task: TaskRecord, slot: SlotRecord): string | undefined {
  const copy = facts?.copies.find(
    (c) => c.taskId === task.id && c.slot === slot.slot && sameGeneration(c.generation, slot.generation),
  );
  if (copy === undefined || copy.state !== 'failed' || copy.startedAt !== null) return undefined;
  return copy.error || 'it cannot start there';
}

export function needOf(v: SlotView): Need {
  const { task, slot } = v;
  const exclusive = isExclusive(task.spec);
  const { state } = slot;
  if (task.desired === 'stopped') return NOTHING;
  switch (state.kind) {
    case 'finished':
    case 'failed':
      return NOTHING;
    case 'pending':
    case 'closed': {
      const about = state.kind === 'closed' ? state.node : null;
      const reason = state.reason || 'it has no machine';
      // An exclusive slot that ever had a generation may still have a lease of it running somewhere.
      if (exclusive && slot.generation.g > 0)
        return { kind: 'fence', reason, about, close: false, only: 'always', drain: false };
      return adopt(v, reason, about, false) ?? { kind: 'place', reason, about, close: false, drain: false };
    }
    case 'assigned':
      return assignedNeed(v, state.node, exclusive);
  }
}

function assignedNeed(v: SlotView, node: NodeId, exclusive: boolean): Need {
  const name = v.nameOf(node);
  const condition = v.condition(node);
  const move = (reason: string, only: 'always' | 'if-placeable', drain = false): Need =>
    exclusive
      ? { kind: 'fence', reason, about: node, close: true, only, drain }
      : { kind: 'place', reason, about: node, close: true, drain };
  if (condition.kind === 'lost') {
    const reason = `${name} ${condition.why}`;
    if (v.task.spec.onNodeLoss === 'wait' && !condition.removed)
      return { kind: 'wait', reason: `${reason}; the task waits for it (onNodeLoss: wait)` };
    return adopt(v, reason, node, true) ?? move(reason, 'always');
  }
  if (v.provisional.length > 0 && condition.kind === 'ok') return settleProvisional(v, node, name);
  if (exclusive && v.slot.generation.epoch < v.epoch)
    return move('it was granted before the cluster was recovered by force', 'always');
  if (exclusive && v.released) return move(`${name} gave it up, proven dead`, 'always');
  if (condition.kind === 'unsure') return NOTHING;
  const blocked = blockedHere(v.facts, v.task, v.slot);
  if (blocked !== undefined) return move(`${name} cannot run it: ${blocked}`, 'if-placeable');
  if (v.draining(node)) return move(`${name} is being drained`, 'if-placeable', true);
  return NOTHING;
}

/** On heal the longest-running provisional copy goes on where the committed one does not run. */
function adopt(v: SlotView, reason: string, about: NodeId | null, close: boolean): Need | undefined {
  const copy = longestRunning(v.provisional);
  if (copy === undefined) return undefined;
  return { kind: 'adopt', copy, reason, about, close };
}

/** A running copy of the highest committed generation wins; what its machine does not run is taken from it. */
function settleProvisional(v: SlotView, node: NodeId, name: string): Need {
  const own = v.facts?.copies.find(
    (c) => c.taskId === v.task.id && c.slot === v.slot.slot && sameGeneration(c.generation, v.slot.generation),
  );
  if (own?.state === 'running') {
    const highest = v.provisional
      .map((c) => c.fact.generation)
      .sort(compareGeneration)
      .at(-1) as Generation;
    return {
      kind: 'drop',
      generation: highest,
      reason: `the copy on ${name} still runs, and it was committed`,
      about: node,
    };
  }
  if (!v.settled) return NOTHING;
  return adopt(v, `${name} does not run it`, node, true) ?? NOTHING;
}

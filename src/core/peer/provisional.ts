import { compareGeneration, type Generation, sameGeneration } from '../../model/generation.ts';
import type { NodeId, TaskId } from '../../model/ids.ts';
import type { SlotRecord, TaskRecord } from '../../model/records.ts';
import { isExclusive } from '../../model/task-spec.ts';
import type { Orders } from '../caretaker/types.ts';
import { slotRecord, slotText } from '../lease/keys.ts';
import type { CopyId, DesiredCopy, PresentCopy } from '../reconcile/types.ts';
import { hasLost } from '../state/state.ts';
import type { ClusterState } from '../state/types.ts';

// The provisional copies of this machine: ordered by a caretaker, or found running after a restart of the agent. Each goes on,
// caretaker or not, until a committed record says that it lost, or that it was adopted; or until a caretaker drops it.

interface Held {
  readonly taskId: TaskId;
  readonly slot: number;
  readonly generation: Generation;
}

export interface Provisional {
  /** Takes orders in; true when they changed anything. */
  take(state: ClusterState, orders: Orders): boolean;
  /** What is to run beside the committed copies, and what on this machine has lost. */
  wish(
    state: ClusterState,
    present: readonly PresentCopy[],
  ): { readonly copies: readonly DesiredCopy[]; readonly lost: CopyId[] };
}

/** The task, while the records leave a provisional copy of this slot open. */
function openTask(state: ClusterState, held: Held): TaskRecord | undefined {
  const task = state.tasks.get(held.taskId);
  const slot = slotRecord(state, held);
  if (task === undefined || slot === undefined || isExclusive(task.spec) || task.desired !== 'running')
    return undefined;
  const ended = slot.state.kind === 'finished' || slot.state.kind === 'failed';
  return ended || hasLost(slot, held.generation) ? undefined : task;
}

/** A copy whose slot has gone on to another generation, of a task that is still to run: what it wrote may be wanted. */
export function isSuperseded(state: ClusterState, copy: PresentCopy): boolean {
  const slot = slotRecord(state, copy);
  const task = state.tasks.get(copy.taskId);
  return (
    slot !== undefined &&
    task?.desired === 'running' &&
    compareGeneration(slot.generation, copy.generation) > 0 &&
    !copy.lost
  );
}

/** Whether this machine was told to go on with the copy under a committed generation. */
const adoptedBy = (self: NodeId, slot: SlotRecord | undefined, generation: Generation): boolean =>
  slot?.state.kind === 'assigned' &&
  slot.state.node === self &&
  slot.state.adopted !== undefined &&
  sameGeneration(slot.state.adopted, generation);

export function createProvisional(self: NodeId): Provisional {
  const bySlot = new Map<string, Held>();
  /** Dropped by a caretaker's word, in this life of the agent. */
  const dropped = new Map<string, Generation>();

  const isDropped = (text: string, generation: Generation): boolean => {
    const last = dropped.get(text);
    return last !== undefined && sameGeneration(last, generation);
  };

  return {
    take(state, orders) {
      let changed = false;
      for (const { taskId, slot, generation } of orders.starts) {
        const text = slotText({ taskId, slot });
        const before = bySlot.get(text);
        if (generation.provisional === undefined || !openTask(state, { taskId, slot, generation })) continue;
        if (before !== undefined && sameGeneration(before.generation, generation)) continue;
        bySlot.set(text, { taskId, slot, generation });
        changed = true;
      }
      for (const key of orders.drops) {
        const text = slotText(key);
        if (key.generation.provisional === undefined || isDropped(text, key.generation)) continue;
        dropped.set(text, key.generation);
        const held = bySlot.get(text);
        if (held !== undefined && sameGeneration(held.generation, key.generation)) bySlot.delete(text);
        changed = true;
      }
      return changed;
    },
    wish(state, present) {
      for (const c of present) {
        const text = slotText(c);
        if (c.generation.provisional === undefined || c.lost || isDropped(text, c.generation)) continue;
        if (adoptedBy(self, slotRecord(state, c), c.generation)) continue;
        const held = bySlot.get(text);
        if (held === undefined || compareGeneration(c.generation, held.generation) > 0)
          bySlot.set(text, { taskId: c.taskId, slot: c.slot, generation: c.generation });
      }
      const copies: DesiredCopy[] = [];
      for (const [text, held] of bySlot) {
        const task = openTask(state, held);
        if (task === undefined) bySlot.delete(text);
        else
          copies.push({
            taskId: held.taskId,
            slot: held.slot,
            generation: held.generation,
            specVersion: task.specVersion,
            spec: task.spec,
            exclusive: false,
          });
      }
      for (const text of dropped.keys()) if (!present.some((c) => slotText(c) === text)) dropped.delete(text);
      const lost = present
        .filter((c) => c.generation.provisional !== undefined && !c.lost)
        .filter((c) => state.tasks.get(c.taskId)?.desired === 'running')
        .filter((c) => !copies.some((d) => slotText(d) === slotText(c) && sameGeneration(d.generation, c.generation)))
        .filter((c) => !adoptedBy(self, slotRecord(state, c), c.generation))
        .map((c) => c.copyId);
      return { copies, lost };
    },
  };
}

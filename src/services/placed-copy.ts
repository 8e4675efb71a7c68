import { longestRunning } from '../core/master/provisional.ts';
import { slotText } from '../core/lease/keys.ts';
import { copyKey } from '../core/peer/facts-book.ts';
import type { Peer } from '../core/peer/peer.ts';
import { hasLost } from '../core/state/state.ts';
import type { CopyFact } from '../model/facts.ts';
import { type Generation, sameBase } from '../model/generation.ts';
import type { NodeId } from '../model/ids.ts';
import type { SlotRecord, TaskRecord } from '../model/records.ts';

// Which copy stands for a slot, as this peer knows it: the committed one, or on a side without a majority the one its
// caretaker started.

export interface PlacedCopy {
  readonly node: NodeId;
  readonly fact: CopyFact;
  /** The generation in the name the copy bears on its machine. */
  readonly named: Generation;
}

type Sight = Pick<Peer, 'self' | 'facts' | 'members'>;

/** Provisional copies on machines in reach, by `TASKID.SLOT`. */
export function provisionalCopies(peer: Sight): ReadonlyMap<string, readonly PlacedCopy[]> {
  const found = new Map<string, PlacedCopy[]>();
  for (const [node, facts] of peer.facts()) {
    if (node !== peer.self && peer.members().get(node)?.status !== 'alive') continue;
    for (const fact of facts.copies) {
      if (fact.generation.provisional === undefined) continue;
      const text = slotText(fact);
      found.set(text, [...(found.get(text) ?? []), { node, fact, named: fact.generation }]);
    }
  }
  return found;
}

/** `copyOf`: the fact of a machine under a copyKey. */
export function placedCopy(
  peer: Sight,
  task: TaskRecord,
  slot: SlotRecord,
  copyOf: (node: NodeId, key: string) => CopyFact | undefined,
  provisional: ReadonlyMap<string, readonly PlacedCopy[]>,
): PlacedCopy | undefined {
  const { state, generation } = slot;
  const key = { taskId: task.id, slot: slot.slot, generation };
  const fact = state.kind === 'pending' ? undefined : copyOf(state.node, copyKey(key));
  const named = (state.kind === 'assigned' ? state.adopted : undefined) ?? generation;
  const committed = state.kind === 'pending' || fact === undefined ? undefined : { node: state.node, fact, named };
  const there = committed?.node === peer.self || peer.members().get(committed?.node as NodeId)?.status === 'alive';
  if (committed?.fact.state === 'running' && there) return committed;
  const open = (provisional.get(slotText(key)) ?? []).filter(
    (c) => sameBase(c.fact.generation, generation) && !hasLost(slot, c.fact.generation),
  );
  return longestRunning(open) ?? committed;
}

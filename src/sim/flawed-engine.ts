import type { PeerNotice } from '../core/peer/types.ts';
import { formatCopyId } from '../core/reconcile/copy-id.ts';
import type { DesiredCopy } from '../core/reconcile/types.ts';
import type { Generation } from '../model/generation.ts';
import type { NodeId, TaskId } from '../model/ids.ts';
import type { SlotRecord, TaskRecord } from '../model/records.ts';
import { isExclusive } from '../model/task-spec.ts';
import type { SimEngine } from './engine.ts';
import type { Machine } from './machine.ts';

// What planted defects make of a runtime: copies that run unasked, that are not where they are said to be, or that stay.

/** Planted: after a machine is known dead, its copies are revived without a commit after this long. */
const UNASKED_MS = 5000;
/** Planted: of so many starts one does not happen. */
const PHANTOM_ONE_IN = 6;

type Puts = readonly { readonly key: string; readonly value: unknown }[];

export class EngineFlaws {
  readonly #machine: Machine;
  readonly #engine: SimEngine;

  constructor(machine: Machine, engine: SimEngine) {
    this.#machine = machine;
    this.#engine = engine;
  }

  ignoresStop(copy: DesiredCopy): boolean {
    const { world } = this.#machine;
    return (
      world.has('false-proof-of-death') ||
      (world.has('undead-provisional') && copy.generation.provisional !== undefined)
    );
  }
  phantom(): boolean {
    return this.#machine.world.has('phantom-start') && this.#machine.rng.int(1, PHANTOM_ONE_IN) === 1;
  }

  /** What is assigned runs, lease or not. */
  startAtOnce(puts: Puts): void {
    for (const { task, slot } of this.#mine(puts))
      if (isExclusive(task.spec)) this.#launch(task, slot, slot.generation, true);
  }
  loseAdopted(puts: Puts): void {
    for (const { task, slot } of this.#mine(puts)) {
      if (slot.state.kind !== 'assigned' || slot.state.adopted === undefined) continue;
      for (const copy of [...this.#engine.copies.values()])
        if (copy.desired.taskId === task.id && copy.desired.slot === slot.slot) this.#engine.copyGone(copy);
    }
  }

  noticed(notice: PeerNotice): void {
    const { world, id } = this.#machine;
    if (world.has('exclusive-provisional') && notice.type === 'caretaker' && notice.caretaker === id)
      this.#revive((spec, node) => spec && node !== id);
    if (world.has('provisional-with-majority') && notice.type === 'member' && notice.change.to === 'dead')
      this.#machine.after(UNASKED_MS, () => this.#revive((exclusive) => !exclusive));
  }

  /** Whatever the records give to others, as if nobody could ask a majority. */
  #revive(which: (exclusive: boolean, node: NodeId) => boolean): void {
    for (const task of this.#machine.peer?.state().tasks.values() ?? [])
      for (const slot of task.slots)
        if (slot.state.kind === 'assigned' && which(isExclusive(task.spec), slot.state.node))
          this.#launch(task, slot, { ...slot.generation, provisional: { caretaker: this.#machine.id, n: 1 } }, false);
  }

  *#mine(puts: Puts): Generator<{ readonly task: TaskRecord; readonly slot: SlotRecord }> {
    for (const { key, value } of puts) {
      const slot = value as SlotRecord | null;
      const id = key.startsWith('slot/') ? (key.slice(5, key.lastIndexOf('/')) as TaskId) : undefined;
      const task = id === undefined ? undefined : this.#machine.peer?.state().tasks.get(id);
      if (task && slot?.state.kind === 'assigned' && slot.state.node === this.#machine.id) yield { task, slot };
    }
  }

  #launch(task: TaskRecord, slot: SlotRecord, generation: Generation, exclusive: boolean): void {
    const { id: taskId, spec, specVersion } = task;
    const desired = { taskId, slot: slot.slot, generation, specVersion, spec, exclusive };
    if (this.#engine.copies.has(formatCopyId(desired))) return;
    if (generation.provisional !== undefined) this.#machine.world.watch.provisional(this.#machine, desired);
    this.#engine.launch(formatCopyId(desired), desired, desired);
  }
}

import type { LeaseKey } from '../core/lease/types.ts';
import type { PeerEffect } from '../core/peer/types.ts';
import { formatCopyId } from '../core/reconcile/copy-id.ts';
import type { CopyId, DesiredCopy, ObservedCopy } from '../core/reconcile/types.ts';
import { type TaskId, wallMs } from '../model/ids.ts';
import type { SlotRecord } from '../model/records.ts';
import { isExclusive } from '../model/task-spec.ts';
import type { RunningCopy } from './boot.ts';
import type { Machine } from './machine.ts';

// The runtime of a simulated machine and the copies it runs: starts and stops take time, and the whole of it may die.

export class SimEngine {
  readonly #machine: Machine;
  up = true;
  /** Survive the agent, not the machine. */
  readonly copies = new Map<CopyId, RunningCopy>();

  constructor(machine: Machine) {
    this.#machine = machine;
  }

  #observed(c: RunningCopy): ObservedCopy {
    const { taskId, slot, generation, specVersion } = c.desired;
    return {
      copyId: formatCopyId(c.desired),
      taskId,
      slot,
      generation,
      specVersion,
      runtime: 'process',
      handle: `sim:${this.#machine.index}`,
      running: true,
      startedAt: wallMs(c.startedAt),
      exitCode: null,
      ports: [],
    };
  }
  /** Tells the agent what is there. */
  list(): void {
    this.#machine.post({
      type: 'runtime',
      event: { type: 'listing', runtime: 'process', copies: [...this.copies.values()].map((c) => this.#observed(c)) },
    });
  }

  run(effect: Extract<PeerEffect, { type: 'runtime' }>['effect']): void {
    const { life } = this.#machine;
    const { world } = this.#machine;
    const soon = (delay: number, run: () => void): void =>
      world.after(delay, () => {
        if (this.#machine.life === life) run();
      });
    if (effect.type === 'start')
      soon(world.startMs(this.#machine), () => this.#started(effect.copyId, effect.copy, life));
    else if (effect.type === 'stop') {
      soon(
        effect.graceful
          ? 20 + this.#machine.rng.next() * Math.min(effect.graceMs, 500)
          : 5 + this.#machine.rng.next() * 50,
        () => {
          const copy = this.copies.get(effect.copyId);
          if (copy && !world.has('false-proof-of-death')) this.copyGone(copy);
          this.#machine.post({ type: 'runtime', event: { type: 'stopped', copyId: effect.copyId } });
        },
      );
    } else
      soon(5, () =>
        this.#machine.post({ type: 'runtime', event: { type: 'health', copyId: effect.copyId, ok: true, output: '' } }),
      );
  }

  #started(copyId: CopyId, desired: DesiredCopy, life: number): void {
    const old = this.copies.get(copyId);
    if (old?.condemned) {
      // Boot is killing its namesake: registering waits for that.
      this.#machine.world.after(50, () => {
        if (this.#machine.life === life) this.#started(copyId, desired, life);
      });
      return;
    }
    const fail = (error: string): void =>
      this.#machine.post({ type: 'runtime', event: { type: 'start-failed', copyId, error, retryable: true } });
    if (!this.up) return fail('the engine does not answer');
    const key: LeaseKey = { taskId: desired.taskId, slot: desired.slot, generation: desired.generation };
    if (!old && desired.exclusive && this.#machine.boot.until(key) === undefined) return fail('its lease ran out');
    if (this.#machine.world.has('starts-twice')) this.#launch(copyId, desired, key);
    const copy = old ?? this.#launch(copyId, desired, key);
    this.#machine.post({ type: 'runtime', event: { type: 'started', copy: this.#observed(copy) } });
  }

  #launch(copyId: CopyId, desired: DesiredCopy, key: LeaseKey): RunningCopy {
    const { world } = this.#machine;
    const interval = desired.exclusive
      ? {
          slot: `${key.taskId}/${key.slot}`,
          node: this.#machine.id,
          generation: key.generation,
          from: world.now,
          until: this.#machine.boot.until(key) ?? 0,
          to: undefined,
        }
      : undefined;
    const copy: RunningCopy = { desired, interval, startedAt: world.wallNow(), condemned: false };
    this.copies.set(copyId, copy);
    if (interval) world.invariants.copyStarted(interval);
    world.copyRuns(this.#machine, desired);
    return copy;
  }

  /** The planted defect: what is assigned runs, lease or not. */
  startAtOnce(puts: readonly { readonly key: string; readonly value: unknown }[]): void {
    for (const { key, value } of puts) {
      const slot = value as SlotRecord | null;
      const id = key.startsWith('slot/') ? (key.slice(5, key.lastIndexOf('/')) as TaskId) : undefined;
      const task = id === undefined ? undefined : this.#machine.peer?.state().tasks.get(id);
      if (!task || slot?.state.kind !== 'assigned' || slot.state.node !== this.#machine.id || !isExclusive(task.spec))
        continue;
      const desired = {
        taskId: task.id,
        slot: slot.slot,
        generation: slot.generation,
        specVersion: task.specVersion,
        spec: task.spec,
        exclusive: true,
      };
      if (!this.copies.has(formatCopyId(desired))) this.#launch(formatCopyId(desired), desired, desired);
    }
  }

  /** The runtime dies and takes its copies with it; nothing starts until it is back. */
  kill(): void {
    if (!this.#machine.powered || !this.up) return;
    this.up = false;
    this.#machine.post({
      type: 'runtime',
      event: { type: 'runtime-down', runtime: 'process', reason: 'engine killed' },
    });
  }
  start(): void {
    if (!this.#machine.powered || this.up) return;
    this.up = true;
    for (const copy of [...this.copies.values()]) this.copyGone(copy);
    this.list();
  }

  /** Its processes are gone. Idempotent. */
  copyGone(copy: RunningCopy): void {
    const copyId = formatCopyId(copy.desired);
    if (this.copies.get(copyId) !== copy) return;
    this.copies.delete(copyId);
    if (copy.interval) this.#machine.world.invariants.copyEnded(copy.interval, this.#machine.world.now);
    this.#machine.world.copyGone(this.#machine, copy.desired);
  }
}

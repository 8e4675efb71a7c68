import type { LeaseKey } from '../core/lease/types.ts';
import type { PeerEffect } from '../core/peer/types.ts';
import { formatCopyId } from '../core/reconcile/copy-id.ts';
import type { CopyId, DesiredCopy, ObservedCopy } from '../core/reconcile/types.ts';
import { wallMs } from '../model/ids.ts';
import type { RunningCopy } from './boot.ts';
import { EngineFlaws } from './flawed-engine.ts';
import type { Machine } from './machine.ts';

// The runtime of a simulated machine and the copies it runs: starts and stops take time, and the whole of it may die.

/** Share of kills that are slow, and how slow they may be. */
const SLOW_KILLS = 0.1;
const SLOW_KILL_MS = 2000;

export class SimEngine {
  readonly #machine: Machine;
  up = true;
  /** Survive the agent, not the machine. */
  readonly copies = new Map<CopyId, RunningCopy>();
  readonly flaws: EngineFlaws;

  constructor(machine: Machine) {
    this.#machine = machine;
    this.flaws = new EngineFlaws(machine, this);
  }

  #observed(c: Pick<RunningCopy, 'desired' | 'startedAt'>): ObservedCopy {
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
  list(blind = false): void {
    const copies = blind ? [] : [...this.copies.values()].map((c) => this.#observed(c));
    this.#machine.post({ type: 'runtime', event: { type: 'listing', runtime: 'process', copies } });
  }

  run(effect: Extract<PeerEffect, { type: 'runtime' }>['effect']): void {
    const { life } = this.#machine;
    const { world } = this.#machine;
    const soon = (delay: number, run: () => void): void =>
      this.#machine.after(delay, () => {
        if (this.#machine.life === life || (world.has('start-in-flight') && effect.type === 'start')) run();
      });
    if (effect.type === 'start') {
      if (effect.copy.generation.provisional !== undefined) world.watch.provisional(this.#machine, effect.copy);
      const happens = this.#machine.atNextStart;
      this.#machine.atNextStart = undefined;
      if (happens !== undefined) world.after(10, happens);
      soon(world.startMs(this.#machine), () => this.#started(effect.copyId, effect.copy, life));
    } else if (effect.type === 'stop') {
      soon(effect.graceful ? 20 + this.#machine.rng.next() * Math.min(effect.graceMs, 500) : this.#killMs(), () => {
        const copy = this.copies.get(effect.copyId);
        const stays = copy !== undefined && this.flaws.ignoresStop(copy.desired);
        if (copy && !stays) this.copyGone(copy);
        this.#machine.post({ type: 'runtime', event: { type: 'stopped', copyId: effect.copyId } });
      });
    } else
      soon(5, () =>
        this.#machine.post({ type: 'runtime', event: { type: 'health', copyId: effect.copyId, ok: true, output: '' } }),
      );
  }

  /** Now and then it takes its time: boot's word must do then. */
  #killMs(): number {
    const { rng } = this.#machine;
    return rng.next() < SLOW_KILLS ? rng.next() * SLOW_KILL_MS : 5 + rng.next() * 50;
  }

  #started(copyId: CopyId, desired: DesiredCopy, life: number): void {
    const old = this.copies.get(copyId);
    if (old?.condemned) {
      // Boot is killing its namesake: registering waits for that.
      this.#machine.after(50, () => {
        if (this.#machine.life === life) this.#started(copyId, desired, life);
      });
      return;
    }
    const fail = (error: string): void =>
      this.#machine.post({ type: 'runtime', event: { type: 'start-failed', copyId, error, retryable: true } });
    if (!this.up) return fail('the engine does not answer');
    const key: LeaseKey = { taskId: desired.taskId, slot: desired.slot, generation: desired.generation };
    const unregistered = this.#machine.life !== life;
    if (!this.#machine.powered) return;
    if (!old && !unregistered && desired.exclusive && this.#machine.boot.until(key) === undefined)
      return fail('its lease ran out');
    if (this.#machine.world.has('starts-twice')) this.launch(copyId, desired, key);
    if (!old && this.flaws.phantom())
      return this.#machine.post({
        type: 'runtime',
        event: { type: 'started', copy: this.#observed({ desired, startedAt: this.#machine.world.wallNow() }) },
      });
    const copy = old ?? this.launch(copyId, desired, key, !unregistered);
    this.#machine.post({ type: 'runtime', event: { type: 'started', copy: this.#observed(copy) } });
  }

  launch(copyId: CopyId, desired: DesiredCopy, key: LeaseKey, registered = true): RunningCopy {
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
    const copy: RunningCopy = { desired, interval, startedAt: world.wallNow(), condemned: false, registered };
    this.copies.set(copyId, copy);
    if (interval) world.invariants.copyStarted(interval);
    world.copyRuns(this.#machine, desired);
    return copy;
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

import type { LeaseKey } from '../core/lease/types.ts';
import type { DesiredCopy } from '../core/reconcile/types.ts';
import { formatGeneration } from '../model/generation.ts';
import { type MonoMs, monoMs } from '../model/ids.ts';
import { InvariantBroken, type RunInterval } from './invariants.ts';
import type { Machine } from './machine.ts';

// Boot as far as leases go: it knows every exclusive copy's deadline and kills so that the copy is dead by then, agent alive
// or not. A kill takes up to the stop allowance here, so that nothing rests on its being quick.

export interface RunningCopy {
  readonly desired: DesiredCopy;
  readonly interval: RunInterval | undefined;
  readonly startedAt: number;
  /** Being killed: on its way out, and no start under its name succeeds before it is gone. */
  condemned: boolean;
  /** Boot knows of it, as it has to before anything starts. */
  readonly registered: boolean;
}

export const leaseName = (key: LeaseKey): string => `${key.taskId}.${key.slot}.${formatGeneration(key.generation)}`;

interface Lease {
  readonly key: LeaseKey;
  /** On the machine's own clock. */
  deadline: number;
  armed: boolean;
}

/** Boot's first tick after a thaw comes within this. */
const FIRST_TICK_MS = 20;

export class SimBoot {
  readonly #machine: Machine;
  readonly #leases = new Map<string, Lease>();

  constructor(machine: Machine) {
    this.#machine = machine;
  }

  /** What an agent that starts may adopt. */
  kept(): { key: LeaseKey; deadline: MonoMs }[] {
    const forever = this.#machine.world.has('eternal-adoption');
    return [...this.#leases.values()].map((l) => ({
      key: l.key,
      deadline: monoMs(forever ? this.#machine.now() + 3_600_000 : l.deadline),
    }));
  }
  /** World time until which copies under `key` may live; undefined: no lease. */
  until(key: LeaseKey): number | undefined {
    const lease = this.#leases.get(leaseName(key));
    return lease && this.#machine.worldTimeOf(lease.deadline);
  }
  powerOff(): void {
    this.#leases.clear();
  }

  set(key: LeaseKey, deadline: number): void {
    const name = leaseName(key);
    const lease = this.#leases.get(name) ?? { key, deadline, armed: false };
    lease.deadline = deadline;
    this.#leases.set(name, lease);
    const until = this.#machine.worldTimeOf(deadline);
    for (const copy of this.#copies(name)) if (copy.interval) copy.interval.until = until;
    this.#machine.world.invariants.granted(this.#machine.id, key, this.#machine.world.now, until);
    this.#arm(name, lease);
  }

  /** The agent says that there is no lease any more. */
  drop(key: LeaseKey): void {
    const name = leaseName(key);
    const lease = this.#leases.get(name);
    this.#leases.delete(name);
    this.#kill(key, lease ? this.#machine.worldTimeOf(lease.deadline) : Number.POSITIVE_INFINITY);
  }

  /** One timer a lease, however often it is renewed. */
  #arm(name: string, lease: Lease): void {
    if (lease.armed) return;
    lease.armed = true;
    const machine = this.#machine;
    const { world, boots } = machine;
    const { stopAllowanceMs } = world.config.lease;
    const allowance = world.has('late-kill') ? -500 : stopAllowanceMs;
    const killAt = (): number => machine.worldTimeOf(lease.deadline - allowance);
    const look = (): void => {
      if (machine.boots !== boots || this.#leases.get(name) !== lease) return;
      if (killAt() > world.now) return machine.at(killAt(), tick);
      this.#leases.delete(name);
      if (this.#copies(name).length === 0 && !world.has('boot-kills-neighbours')) return;
      const deadline = machine.worldTimeOf(lease.deadline);
      world.tally.leaseExpiries += 1;
      world.at(Math.max(world.now, deadline) + 0.01, () => {
        for (const copy of this.#copies(name))
          if (copy.interval && copy.interval.until < world.now && !world.invariants.excused(copy.interval, world.now))
            throw new InvariantBroken(
              'exclusive run inside its lease',
              `${name} lives on ${machine.id} at ${world.now}, its lease ended at ${copy.interval.until}`,
            );
      });
      if (!world.has('boot-asleep')) this.#kill(lease.key, deadline);
    };
    // After a thaw the machine's copies may run for a moment before boot's own timer does.
    const tick = (): void =>
      machine.thawedAt === world.now && killAt() < world.now
        ? machine.after(machine.rng.next() * FIRST_TICK_MS, look)
        : look();
    machine.at(killAt(), tick);
  }

  #copies(name: string): RunningCopy[] {
    const prefix = `${name}.`;
    const out: RunningCopy[] = [];
    for (const [copyId, copy] of this.#machine.copies) if (copyId.startsWith(prefix) && copy.registered) out.push(copy);
    return out;
  }

  #kill(key: LeaseKey, deadline: number): void {
    const machine = this.#machine;
    const { world, boots } = machine;
    const copies = world.has('boot-kills-neighbours')
      ? [...machine.copies.values()].filter((c) => c.interval !== undefined)
      : this.#copies(leaseName(key));
    for (const copy of copies) copy.condemned = true;
    const slow = machine.rng.next() < 0.2 || world.has('false-proof-of-death');
    const allowance = world.config.lease.stopAllowanceMs * 0.98;
    const takes = slow ? machine.rng.next() * allowance : 2 + machine.rng.next() * 40;
    machine.at(Math.max(world.now, Math.min(world.now + takes, deadline - 0.01)), () => {
      if (machine.boots !== boots) return;
      for (const copy of copies) machine.copyGone(copy);
      if (copies.length > 0) machine.post({ type: 'proven-dead', keys: [key] });
    });
  }
}

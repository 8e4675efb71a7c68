import fc from 'fast-check';
import { expect, test } from 'vitest';
import { formatCopyId } from '../../../src/core/reconcile/copy-id.ts';
import { createReconcile } from '../../../src/core/reconcile/reconcile.ts';
import type { DesiredCopy, ObservedCopy, ReconcileEffect, ReconcileEvent } from '../../../src/core/reconcile/types.ts';
import { type MonoMs, monoMs, wallMs } from '../../../src/model/ids.ts';
import { createRng } from '../../../src/model/random.ts';
import { observed, wanted } from './machine.ts';

// One machine with a runtime that is slow, fails, loses its engine and answers late, under records and leases that change
// at random and an agent that restarts. After every event: no slot has two copies, and an exclusive copy lives only while
// its lease does (killing takes up to S, which is what S is for). At the end, with faults gone: what is wanted runs.

const S = 1000;
const SLOTS = 3;

function world(seed: number) {
  const rng = createRng(seed);
  let t = 0;
  const queue: { at: number; life: number; run: () => void }[] = [];
  let life = 1;
  let core = createReconcile({}, `${seed}/1`);
  /** The runtime's truth. */
  const alive = new Map<string, DesiredCopy>();
  const exited = new Map<string, DesiredCopy>();
  const starting = new Map<string, { cancelled: boolean }>();
  let engineUp = true;
  let calm = false;
  /** Boot's registry, outliving the agent. */
  const deadlines = new Map<string, number>();
  let generation = SLOTS;
  let slots = [0, 1, 2].map((slot) => wanted(1, { onPartition: slot === 0 ? 'keep' : 'stop' }, { slot }));
  const problems: string[] = [];
  let started = 0;
  /** Without boot this core alone must keep copies inside their leases, as long as it lives. */
  const bootWatches = seed % 2 === 0;

  const leaseOf = (d: DesiredCopy) => ({ taskId: d.taskId, slot: d.slot, generation: d.generation });
  const text = (d: DesiredCopy) => `${d.slot}.${d.generation.g}`;
  const after = (delay: number, run: () => void, ofLife = life): void => {
    queue.push({ at: t + delay, life: ofLife, run });
  };
  const feed = (event: ReconcileEvent): void => {
    for (const e of core.step(event, monoMs(t), wallMs(t))) perform(e);
    const wake = core.nextWake();
    if (wake !== undefined) after(Math.max(0, wake - t) + rng.int(0, 5), () => feed({ type: 'tick' }));
  };
  const die = (id: string, exitCode: number | null): void => {
    const d = alive.get(id);
    if (d === undefined) return;
    alive.delete(id);
    exited.set(id, d);
    if (exitCode !== null && engineUp)
      after(rng.int(0, 20), () => feed({ type: 'exited', copyId: id, exitCode, error: '' }));
  };
  const see = (id: string, d: DesiredCopy): ObservedCopy =>
    observed(d, { copyId: id, running: alive.has(id), exitCode: alive.has(id) ? null : 1 });

  const start = (id: string, d: DesiredCopy): void => {
    const job = { cancelled: false };
    starting.set(id, job);
    const fails = !calm && rng.next() < 0.2;
    after(rng.int(1, 300), () => {
      starting.delete(id);
      const failed = fails || job.cancelled || !engineUp;
      if (!failed) {
        alive.set(id, d);
        exited.delete(id);
        started++;
        check();
      }
      const answer: ReconcileEvent = failed
        ? { type: 'start-failed', copyId: id, error: 'no', retryable: rng.next() < 0.7 || calm }
        : { type: 'started', copy: see(id, d) };
      after(rng.int(0, 50), () => feed(answer));
      if (!failed && !calm && rng.next() < 0.3) after(rng.int(1, 5000), () => die(id, rng.int(0, 1)), 0);
    });
  };
  const stop = (id: string, graceful: boolean): void => {
    const job = starting.get(id);
    if (job !== undefined && rng.next() < 0.7) job.cancelled = true;
    after(graceful ? rng.int(1, 3000) : rng.int(1, 500), () => {
      if (!calm && rng.next() < 0.1 && graceful) return feed({ type: 'stop-failed', copyId: id, error: 'busy' });
      alive.delete(id);
      exited.delete(id);
      after(rng.int(0, 50), () => feed({ type: 'stopped', copyId: id }));
    });
  };
  const perform = (e: ReconcileEffect): void => {
    if (e.type === 'start') start(e.copyId, e.copy);
    else if (e.type === 'stop') stop(e.copyId, e.graceful);
    else if (e.type === 'released') {
      for (const [id, d] of alive)
        if (d.slot === e.key.slot && d.generation.g === e.key.generation.g)
          problems.push(`${t}: ${id} released but alive`);
      deadlines.delete(`${e.key.slot}.${e.key.generation.g}`);
    }
  };
  /** Boot kills, agent or not, what is past its deadline. */
  const check = (): void => {
    const bySlot = new Map<number, string[]>();
    for (const [id, d] of alive) {
      bySlot.set(d.slot, [...(bySlot.get(d.slot) ?? []), id]);
      if (d.exclusive && t > (deadlines.get(text(d)) ?? -1))
        problems.push(`${t}: ${id} outside its lease (${deadlines.get(text(d))})`);
    }
    for (const [slot, ids] of bySlot) if (ids.length > 1) problems.push(`${t}: slot ${slot} has ${ids.join(' and ')}`);
  };
  const desire = (current: boolean): void => feed({ type: 'desired', copies: slots, current });
  const lease = (d: DesiredCopy, deadline: MonoMs | undefined): void => {
    // Refused: boot is told to kill by deadline; the core must do it within S.
    if (deadline !== undefined) deadlines.set(text(d), deadline);
    else if (deadlines.has(text(d))) deadlines.set(text(d), Math.min(deadlines.get(text(d)) as number, t + S));
    feed({ type: 'lease', key: leaseOf(d), deadline });
  };
  const actions: Record<string, () => void> = {
    move: () => {
      const slot = rng.int(0, SLOTS - 1);
      generation++;
      slots = slots.filter((d) => d.slot !== slot);
      if (rng.next() < 0.7) slots.push(wanted(generation, { onPartition: slot === 0 ? 'keep' : 'stop' }, { slot }));
      desire(rng.next() < 0.8);
    },
    update: () => {
      const i = rng.int(0, slots.length - 1);
      const d = slots[i];
      if (d !== undefined) slots[i] = { ...d, specVersion: d.specVersion + 1 };
      desire(true);
    },
    renew: () => {
      const granted = core.leaseKeys();
      for (const d of slots) {
        if (d.exclusive && granted.some((k) => k.slot === d.slot && k.generation.g === d.generation.g))
          lease(d, monoMs(t + rng.int(1500, 3960)));
      }
    },
    refuse: () => {
      const d = rng.pick(slots);
      if (d?.exclusive) lease(d, undefined);
    },
    crash: () => {
      const id = rng.pick([...alive.keys()]);
      if (id !== undefined) die(id, rng.int(0, 1));
    },
    engine: () => {
      engineUp = false;
      feed({ type: 'runtime-down', runtime: 'process', reason: 'gone' });
      if (rng.next() < 0.5) for (const id of [...alive.keys()]) die(id, null);
      after(rng.int(10, 2000), engineBack, 0);
    },
    agent: () => {
      // The agent dies: its timers and answers are void; copies run on; starts under way are abandoned without a trace.
      life++;
      starting.clear();
      core = createReconcile({}, `${seed}/${life}`);
      for (const d of slots) {
        const deadline = deadlines.get(text(d));
        if (deadline !== undefined) feed({ type: 'lease', key: leaseOf(d), deadline: monoMs(deadline) });
      }
      desire(false);
      after(rng.int(1, 100), () => engineUp && list());
      after(rng.int(1, 500), () => desire(true));
    },
  };
  const list = (): void =>
    feed({ type: 'listing', runtime: 'process', copies: [...alive, ...exited].map(([id, d]) => see(id, d)) });
  const engineBack = (): void => {
    engineUp = true;
    list();
  };
  /** Boot's own watch: by the deadline the copy is dead, whatever the agent does. */
  const bootTick = (): void => {
    for (const [id, d] of [...alive]) {
      const deadline = deadlines.get(text(d)) ?? -1;
      if (d.exclusive && t >= deadline - 5) die(id, 137);
    }
    if (t < 90_000) after(5, bootTick, 0);
  };

  const act = (name: string): void => {
    actions[name]?.();
    check();
  };
  const runUntil = (end: number): void => {
    while (queue.length > 0) {
      let best = 0;
      for (let i = 1; i < queue.length; i++) if ((queue[i]?.at ?? 0) < (queue[best]?.at ?? 0)) best = i;
      const next = queue[best];
      if (next === undefined || next.at > end) break;
      queue.splice(best, 1);
      t = Math.max(t, next.at);
      if (next.life === 0 || next.life === life) next.run();
      check();
    }
    t = end;
  };
  desire(true);
  list();
  for (let at = 50; at < 30_000; at += 400) queue.push({ at, life: 0, run: () => act('renew') });
  for (let i = 0; i < 40; i++) {
    const names = ['move', 'move', 'update', 'refuse', 'crash', 'engine'];
    const name = rng.pick(bootWatches ? [...names, 'agent'] : names) as string;
    queue.push({ at: rng.int(100, 30_000), life: 0, run: () => act(name) });
  }
  if (bootWatches) bootTick();
  runUntil(30_000);
  // Calm: every slot gets a fresh generation, as a master would give it, and leases are kept up.
  calm = true;
  slots = [0, 1, 2].map((slot) => wanted(generation + 1, { onPartition: slot === 0 ? 'keep' : 'stop' }, { slot }));
  queue.push({ at: 30_001, life: 0, run: () => desire(true) });
  for (let at = 30_010; at < 90_000; at += 400) queue.push({ at, life: 0, run: () => act('renew') });
  runUntil(90_000);
  const missing = slots.filter((d) => !alive.has(formatCopyId(d))).map(formatCopyId);
  return { problems, missing, started };
}

test('no slot has two copies, no exclusive copy runs outside its lease, and in the end what is wanted runs', () => {
  let started = 0;
  fc.assert(
    fc.property(fc.integer(), (seed) => {
      const w = world(seed);
      started += w.started;
      expect(w.problems.slice(0, 3), `seed ${seed}`).toEqual([]);
      expect(w.missing, `seed ${seed}`).toEqual([]);
    }),
    { numRuns: 40 },
  );
  expect(started).toBeGreaterThan(400);
});

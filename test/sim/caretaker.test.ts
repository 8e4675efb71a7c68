import { describe, expect, test } from 'vitest';
import { compareGeneration, formatGeneration } from '../../src/model/generation.ts';
import type { TaskId } from '../../src/model/ids.ts';
import { formCluster, makeSpec, makeWorld } from '../../src/sim/campaign.ts';
import type { Machine } from '../../src/sim/machine.ts';
import type { World } from '../../src/sim/world.ts';

// Sides without a majority, on whole clusters of real cores in virtual time (protocols: 'No majority in reach for 2 s ...').

const AVAILABLE = 't-web' as TaskId;
const EXCLUSIVE = 't-ledger' as TaskId;

const whole = (world: World): boolean => world.run(world.now + 10_000, () => world.unsettled() === undefined);
const runs = (m: Machine, task: TaskId): string[] =>
  [...m.copies.values()]
    .filter((c) => c.desired.taskId === task && !c.condemned)
    .map((c) => formatGeneration(c.desired.generation));
const holder = (world: World, task: TaskId): Machine => world.machines.find((m) => runs(m, task).length > 0) as Machine;
const everywhere = (world: World, task: TaskId): string[] => world.machines.flatMap((m) => runs(m, task));
const slotOf = (m: Machine, task: TaskId) => m.peer?.state().tasks.get(task)?.slots[0];

function started(seed: string, machines: number, witness = false): World {
  const world = makeWorld(seed, machines, { witness });
  formCluster(world);
  const first = world.machines[0] as Machine;
  world.submit(first, makeSpec('web', false));
  world.submit(first, makeSpec('ledger', true));
  expect(whole(world)).toBe(true);
  return world;
}

describe('a side without a majority', () => {
  test('revives available tasks once, after 2 s, under provisional generations; exclusive ones wait', () => {
    const world = started('minority', 5);
    const on = holder(world, AVAILABLE);
    const exclusiveOn = holder(world, EXCLUSIVE);
    const rest = world.machines.filter((m) => m !== on && m !== exclusiveOn);
    const [alone, also] = rest as [Machine, Machine];
    const survivors = [alone, also];
    const from = world.now;
    for (const m of world.machines) if (!survivors.includes(m)) m.powerOff();
    const back = world.run(world.now + 6000, () => survivors.some((m) => runs(m, AVAILABLE).length > 0));
    expect(back).toBe(true);
    expect(world.now - from).toBeGreaterThan(2000);
    expect(world.now - from).toBeLessThan(3600);
    world.run(world.now + 20_000);
    expect(everywhere(world, AVAILABLE)).toHaveLength(1);
    expect(everywhere(world, AVAILABLE)[0]).toMatch(/^1\.1~1@/);
    expect(everywhere(world, EXCLUSIVE)).toEqual([]);
    expect(survivors.map((m) => m.peer?.side()?.caretaker)).toEqual([also.id, also.id]);
    // Nothing of it is committed, and nothing else can be.
    for (const m of survivors) expect(slotOf(m, AVAILABLE)?.generation).toEqual({ epoch: 1, g: 1 });
  });

  test('a majority that comes back adopts the copy as it runs: no restart, g+1', () => {
    const world = started('adopt', 5);
    const on = holder(world, AVAILABLE);
    const survivors = world.machines.filter((m) => m !== on).slice(0, 2);
    for (const m of world.machines) if (!survivors.includes(m)) m.powerOff();
    world.run(world.now + 8000);
    const keeper = survivors.find((m) => runs(m, AVAILABLE).length > 0) as Machine;
    const [copy] = keeper.copies.values();
    const third = world.machines.find((m) => !survivors.includes(m) && m !== on) as Machine;
    third.powerOn();
    const adopted = world.run(world.now + 10_000, () => slotOf(keeper, AVAILABLE)?.generation.g === 2);
    expect(adopted).toBe(true);
    world.run(world.now + 5000);
    for (const m of world.machines) m.powerOn();
    expect(whole(world)).toBe(true);
    expect([...keeper.copies.values()]).toContain(copy);
    expect(slotOf(keeper, AVAILABLE)?.state).toMatchObject({ kind: 'assigned', node: keeper.id });
    expect(keeper.peer?.copies().find((c) => c.taskId === AVAILABLE)?.generation).toEqual({ epoch: 1, g: 2 });
    expect(world.invariants.adoptions).toBe(1);
    // A restart of the agent finds it again under the name it bears.
    keeper.killAgent(300);
    world.run(world.now + 8000);
    expect(whole(world)).toBe(true);
    expect([...keeper.copies.values()]).toContain(copy);
  });

  test('a copy of the committed generation that still runs wins; the provisional one stops within a second', () => {
    const world = started('drop', 5);
    const on = holder(world, AVAILABLE);
    const [a, b] = world.machines.filter((m) => m !== on) as [Machine, Machine];
    world.network.partition([world.machines.filter((m) => m !== a && m !== b), [a, b]]);
    world.run(world.now + 8000);
    expect(everywhere(world, AVAILABLE)).toHaveLength(2);
    const committed = runs(on, AVAILABLE);
    world.network.heal();
    const contact = world.run(world.now + 10_000, () => a.peer?.leader() !== null && b.peer?.leader() !== null);
    expect(contact).toBe(true);
    const from = world.now;
    expect(world.run(from + 1000, () => everywhere(world, AVAILABLE).length === 1)).toBe(true);
    expect(runs(on, AVAILABLE)).toEqual(committed);
    expect(whole(world)).toBe(true);
    expect(slotOf(on, AVAILABLE)?.generation).toEqual({ epoch: 1, g: 1 });
  });

  test('a side that lost its caretaker chooses another, who leaves alone what runs', () => {
    const world = started('successor', 7);
    const on = holder(world, AVAILABLE);
    const survivors = world.machines.filter((m) => m !== on).slice(0, 3);
    for (const m of world.machines) if (!survivors.includes(m)) m.powerOff();
    world.run(world.now + 8000);
    const keeper = survivors.find((m) => runs(m, AVAILABLE).length > 0) as Machine;
    const caretaker = survivors.find((m) => m.peer?.side()?.caretaker === m.id) as Machine;
    const before = everywhere(world, AVAILABLE);
    if (keeper !== caretaker) {
      caretaker.powerOff();
      world.run(world.now + 10_000);
      expect(everywhere(world, AVAILABLE)).toEqual(before);
    } else {
      keeper.powerOff();
      world.run(world.now + 10_000);
      expect(everywhere(world, AVAILABLE)).toHaveLength(1);
      expect(everywhere(world, AVAILABLE)[0]).toMatch(/~2@/);
    }
    for (const m of world.machines) m.powerOn();
    expect(whole(world)).toBe(true);
  });

  test('two such sides that meet keep one copy, and one caretaker', () => {
    const world = started('meet', 7);
    const on = holder(world, AVAILABLE);
    const others = world.machines.filter((m) => m !== on);
    const [left, right] = [others.slice(0, 2), others.slice(2, 3)];
    for (const m of world.machines) if (!left.includes(m) && !right.includes(m)) m.powerOff();
    world.network.partition([left, right]);
    world.run(world.now + 10_000);
    expect(everywhere(world, AVAILABLE)).toHaveLength(2);
    world.network.heal();
    expect(world.run(world.now + 6000, () => everywhere(world, AVAILABLE).length === 1)).toBe(true);
    world.run(world.now + 3000);
    const sides = new Set([...left, ...right].map((m) => m.peer?.side()?.caretaker));
    expect(sides.size).toBe(1);
    for (const m of world.machines) m.powerOn();
    expect(whole(world)).toBe(true);
  });
});

describe('two machines', () => {
  test('without a witness: the other dies, nothing is lost; the voter dies, the survivor is caretaker', () => {
    for (const voterDies of [false, true]) {
      const world = started(`two-${voterDies}`, 2);
      const voter = world.leader() as Machine;
      const other = world.machines.find((m) => m !== voter) as Machine;
      const [victim, survivor] = voterDies ? [voter, other] : [other, voter];
      victim.powerOff();
      world.run(world.now + 12_000);
      expect(runs(survivor, AVAILABLE)).toHaveLength(1);
      expect(survivor.peer?.side()?.caretaker).toBe(voterDies ? survivor.id : undefined);
      if (!voterDies) expect(runs(survivor, EXCLUSIVE)).toHaveLength(1);
      victim.powerOn();
      expect(whole(world)).toBe(true);
    }
  });

  test('with a witness: either dies, and everything runs on the other, committed', () => {
    for (const index of [0, 1]) {
      const world = started(`witness-${index}`, 3, true);
      const survivor = world.machines[1 - index] as Machine;
      (world.machines[index] as Machine).powerOff();
      world.run(world.now + 12_000);
      expect(runs(survivor, AVAILABLE)).toHaveLength(1);
      expect(runs(survivor, EXCLUSIVE)).toHaveLength(1);
      expect(world.tally.provisionalStarts).toBe(0);
      (world.machines[index] as Machine).powerOn();
      expect(whole(world)).toBe(true);
    }
  });
});

test('provisional generations order after what they grew from and before what supersedes them', () => {
  const base = { epoch: 1, g: 4 };
  const one = { ...base, provisional: { caretaker: 'a' as never, n: 1 } };
  const two = { ...base, provisional: { caretaker: 'a' as never, n: 2 } };
  expect([two, { epoch: 1, g: 5 }, base, one].sort(compareGeneration)).toEqual([base, one, two, { epoch: 1, g: 5 }]);
});

import type { NodeId } from '../model/ids.ts';
import type { Rng } from '../model/random.ts';
import { formCluster, makeWorld } from './campaign.ts';
import type { Machine } from './machine.ts';
import type { World } from './world.ts';

// False deaths: nothing is broken, but agents stand still for 2 s at random, so that at any moment about three in ten do. Boot
// answers all the while, so nobody may be called dead (protocols, section 2: at most 1 in 10,000 node-hours).

const STALL_MS = 2000;
/** Share of the time that an agent stands still. */
const STALLED = 0.3;
/** A machine that was called dead by anybody within this long before is still the same false death. */
const SAME_DEATH_MS = 10_000;

export interface StallResult {
  readonly seed: string;
  readonly nodeHours: number;
  readonly stalls: number;
  /** Share of the agents' time spent standing still. */
  readonly stalledShare: number;
  /** Live machines that somebody called dead, and how often somebody did. */
  readonly falseDeaths: number;
  readonly falseVerdicts: number;
  readonly elections: number;
}

export function runStalls(options: {
  readonly seed: string;
  readonly machines: number;
  readonly seconds: number;
}): StallResult {
  const { seed, machines, seconds } = options;
  const world = makeWorld(seed, machines, {
    clockRateError: 0.01,
    network: { delayMs: [0.2, 2], loss: 0.001, duplicate: 0, overtaken: 0 },
  });
  formCluster(world);
  const lastDead = new Map<NodeId, number>();
  let falseDeaths = 0;
  let falseVerdicts = 0;
  world.observers.add({
    onNotice: (_by, notice, at) => {
      if (notice.type !== 'member' || notice.change.to !== 'dead') return;
      falseVerdicts += 1;
      const { id } = notice.change;
      if (at - (lastDead.get(id) ?? Number.NEGATIVE_INFINITY) > SAME_DEATH_MS) falseDeaths += 1;
      lastDead.set(id, at);
    },
  });
  const from = world.now;
  const electionsBefore = world.tally.elections;
  for (const m of world.machines) stallOften(world, world.rngFor(`stalls/${m.index}`), m);
  world.run(from + seconds * 1000);
  const { stalls, elections } = world.tally;
  return {
    seed,
    nodeHours: (machines * seconds) / 3600,
    stalls,
    stalledShare: (stalls * STALL_MS) / (machines * seconds * 1000),
    falseDeaths,
    falseVerdicts,
    elections: elections - electionsBefore,
  };
}

/** Work and stalls take turns; how long it works is drawn so that the share comes out right on average. */
function stallOften(world: World, rng: Rng, machine: Machine): void {
  const meanMs = STALL_MS / STALLED - STALL_MS;
  world.after(-Math.log(1 - rng.next()) * meanMs, () => {
    world.stall(machine, STALL_MS);
    world.after(STALL_MS, () => stallOften(world, rng, machine));
  });
}

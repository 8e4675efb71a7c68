import type { Rng } from '../model/random.ts';
import type { Machine } from './machine.ts';
import type { World } from './world.ts';

// What happens to machines and cables, drawn at random. Each fault ends by itself or when the campaign heals everything.

export interface FaultLimits {
  /** Machines that may join beyond the first ones. */
  readonly joining: number;
}

type Fault = (world: World, rng: Rng, victim: Machine, limits: FaultLimits) => void;

const crash: Fault = (world, rng, victim) => {
  world.tally.crashes += 1;
  victim.powerOff();
  world.after(rng.int(300, 15_000), () => victim.powerOn());
};
/** The whole room goes dark and comes back, machine by machine. */
const blackout: Fault = (world, rng) => {
  for (const m of world.machines) {
    if (!m.powered) continue;
    world.tally.crashes += 1;
    m.powerOff();
    world.after(rng.int(500, 3000), () => m.powerOn());
  }
};
/** More than half of the machines lose power, one after another, and come back one by one: meanwhile no side has a majority. */
const majorityDown: Fault = (world, rng) => {
  const machines = world.machines.filter((m) => m.powered);
  for (const m of rng.shuffle(machines).slice(0, Math.floor(world.machines.length / 2) + 1)) {
    world.tally.crashes += 1;
    world.after(rng.int(0, 3000), () => m.powerOff());
    world.after(rng.int(5000, 30_000), () => m.powerOn());
  }
};
const killAgent: Fault = (_world, rng, victim) => victim.killAgent(rng.int(100, 600));
/** An agent that does not come back for long: boot alone looks after the leases. */
const agentDown: Fault = (_world, rng, victim) => victim.killAgent(rng.int(2000, 12_000));
const isolate: Fault = (world, rng, victim) => {
  world.network.partition([world.machines.filter((m) => m !== victim), [victim]]);
  world.after(rng.int(1000, 20_000), () => world.network.heal());
};
const split: Fault = (world, rng) => {
  const shuffled = rng.shuffle(world.machines);
  const cut = rng.int(1, Math.max(1, shuffled.length - 1));
  world.network.partition([shuffled.slice(0, cut), shuffled.slice(cut)]);
  world.after(rng.int(1000, 20_000), () => world.network.heal());
};
const oneWay: Fault = (world, rng, victim) => {
  const other = rng.pick(world.machines.filter((m) => m !== victim));
  if (!other) return;
  world.network.block(victim, other);
  world.tally.cuts += 1;
  world.after(rng.int(500, 10_000), () => world.network.heal());
};
const stall: Fault = (world, rng, victim) => world.stall(victim, rng.int(100, 3000));
const wallJump: Fault = (_world, rng, victim) => {
  victim.wallOffset += rng.int(-3_600_000, 3_600_000);
};
const engine: Fault = (world, rng, victim) => {
  if (victim.witness || !victim.up) return;
  world.tally.engineCrashes += 1;
  victim.engineKill();
  world.after(rng.int(300, 5000), () => victim.engineStart());
};
const drain: Fault = (world, rng, victim) => {
  world.tally.drains += 1;
  setAvailability(world, rng, victim, 'drain');
  world.after(rng.int(3000, 20_000), () => setAvailability(world, rng, victim, 'active'));
};
const join: Fault = (world, _rng, _victim, limits) => {
  if (limits.joining <= world.tally.joins) return;
  world.tally.joins += 1;
  const machine = world.addMachine();
  machine.powerOn();
  admit(world, machine);
};

/** Chances in a thousand. */
const FAULTS: readonly (readonly [number, Fault])[] = [
  [260, crash],
  [10, blackout],
  [40, majorityDown],
  [100, killAgent],
  [30, agentDown],
  [130, isolate],
  [130, split],
  [90, oneWay],
  [90, stall],
  [30, wallJump],
  [40, engine],
  [60, drain],
  [30, join],
];
const TOTAL = FAULTS.reduce((sum, [chance]) => sum + chance, 0);

export function injectFault(world: World, rng: Rng, limits: FaultLimits): void {
  const victim = rng.pick(world.machines.filter((m) => m.powered));
  let roll = rng.next() * TOTAL;
  if (victim === undefined) return;
  for (const [chance, fault] of FAULTS) {
    roll -= chance;
    if (roll < 0) return fault(world, rng, victim, limits);
  }
}

/** Cables mended, machines and engines on, nobody drained. */
export function healAll(world: World): void {
  world.faultsOn = false;
  world.network.heal();
  for (const m of world.machines) {
    m.powerOn();
    m.engineStart();
    setAvailability(world, world.rngFor(`heal/${world.now}`), m, 'active');
  }
}

const recordOf = (m: Machine) => ({
  nodeId: m.id,
  name: `node${m.index + 1}`,
  addresses: [`/sim/${m.index}`],
  labels: {},
  priority: 0,
  witness: m.witness,
  availability: 'active' as const,
});

export function foundWith(world: World, first: Machine): void {
  world.propose(first, {
    type: 'cluster.init',
    cluster: { clusterId: 'sim', epoch: 1, epochId: 'e', name: 'sim' },
    founder: recordOf(first),
  });
}
const ADMIT_AGAIN_MS = 300;
/** Asks one live peer after another until the records say it is in. */
export function admit(world: World, machine: Machine): void {
  const knows = (m: Machine): boolean => m.peer?.state().peers.has(machine.id) === true;
  if (world.machines.some(knows)) return;
  const through = world.rngFor(`admit/${world.now}`).pick(world.machines.filter((m) => m !== machine && m.up));
  if (through) world.propose(through, { type: 'peer.admit', peer: recordOf(machine), invitationId: null });
  world.after(ADMIT_AGAIN_MS, () => admit(world, machine));
}
/** Asks until the records say so. The latest wish for a machine counts. */
const wishes = new WeakMap<Machine, string>();
function setAvailability(world: World, rng: Rng, machine: Machine, availability: 'active' | 'drain'): void {
  wishes.set(machine, availability);
  const say = (): void => {
    if (wishes.get(machine) !== availability) return;
    const at = world.leader() ?? rng.pick(world.machines.filter((m) => m.up));
    const record = at?.peer?.state().peers.get(machine.id);
    if (at && record && record.availability === availability && at === world.leader()) return;
    if (at && record) world.propose(at, { type: 'peer.update', nodeId: machine.id, patch: { availability } });
    if (!record && availability === 'active') return;
    world.after(ADMIT_AGAIN_MS, say);
  };
  say();
}

import type { Rng } from '../model/random.ts';
import type { Machine } from './machine.ts';
import type { World } from './world.ts';

// What happens to machines and cables, drawn at random. Each fault ends by itself or when the campaign heals everything.

export interface FaultLimits {
  /** Machines that may join beyond the first ones. */
  readonly joining: number;
  /** Faults that are to come more often than others. */
  readonly favour: readonly FaultName[];
}

const NO_LIMITS: FaultLimits = { joining: 0, favour: [] };
type Fault = (world: World, rng: Rng, victim: Machine, limits: FaultLimits) => void;

const crash: Fault = (world, rng, victim) => {
  world.tally.crashes += 1;
  victim.powerOff();
  world.after(rng.int(300, 15_000), () => victim.powerOn());
};
/** The power goes while something is on its way to the disk. */
const crashInWrite: Fault = (world, rng, victim) => {
  victim.atNextWrite = () => {
    if (victim.powered && world.faultsOn) crash(world, rng, victim, NO_LIMITS);
  };
  for (const m of world.machines) if (m.up) write(world, rng, m, 1, 500);
};
/** The agent dies while it starts a copy: its own, or one that another machine's death brings. */
const killInStart: Fault = (world, rng, victim) => {
  for (const m of world.machines)
    m.atNextStart = () => {
      if (world.faultsOn) m.killAgent(rng.next() < 0.5 ? rng.int(100, 600) : rng.int(4000, 9000));
    };
  crash(world, rng, victim, NO_LIMITS);
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
  // Half of them are back before their leases end, but after they were given up.
  world.after(rng.next() < 0.5 ? rng.int(1000, 3500) : rng.int(3500, 20_000), () => world.network.heal());
};
const split: Fault = (world, rng) => {
  const shuffled = rng.shuffle(world.machines);
  const cut = rng.int(1, Math.max(1, shuffled.length - 1));
  world.network.partition([shuffled.slice(0, cut), shuffled.slice(cut)]);
  world.after(rng.int(1000, 20_000), () => world.network.heal());
};
const oneWay: Fault = (world, rng, victim) => {
  const leader = world.leader();
  const other = leader !== victim && rng.next() < 0.5 ? leader : rng.pick(world.machines.filter((m) => m !== victim));
  if (!other) return;
  if (rng.next() < 0.5) world.network.block(victim, other);
  else world.network.block(other, victim);
  world.tally.cuts += 1;
  world.after(rng.int(500, 10_000), () => world.network.heal());
};
/** A cable with a loose contact: cut and whole again, many times. */
const flapping: Fault = (world, rng, victim) => {
  const others = world.machines.filter((m) => m !== victim && (rng.next() < 0.7 || m.peer?.leader() === m.id));
  const until = world.now + rng.int(3000, 15_000);
  const cut = (): void => {
    if (world.now > until || !world.faultsOn) return world.network.heal();
    for (const other of others) world.network.cut(victim, other);
    world.tally.cuts += 1;
    world.after(rng.int(100, 1500), () => {
      world.network.heal();
      world.after(rng.int(50, 1200), cut);
    });
  };
  cut();
};
/** Work for somebody who is about to be left behind, or who is left behind already. */
const write = (world: World, rng: Rng, at: Machine, count: number, withinMs: number): void => {
  for (let i = 0; i < count; i++)
    world.after(rng.next() * withinMs, () => {
      const { tasks } = at.peer?.state() ?? {};
      const taskId = rng.pick([...(tasks?.keys() ?? [])]);
      if (taskId !== undefined) world.propose(at, { type: 'task.desire', taskId, desired: 'running', restart: false });
    });
};
/** A follower misses what is written; then the leader dies, and the follower is back at that very moment. */
const laggard: Fault = (world, rng) => {
  const leader = world.leader();
  const behind = rng.pick(world.machines.filter((m) => m !== leader && m.up));
  if (leader === undefined || behind === undefined) return;
  world.network.partition([world.machines.filter((m) => m !== behind), [behind]]);
  write(world, rng, leader, 4, 800);
  world.after(rng.int(900, 3000), () => {
    world.network.heal();
    if (!leader.powered || !world.faultsOn) return;
    world.tally.crashes += 1;
    leader.powerOff();
    world.after(rng.int(1500, 8000), () => leader.powerOn());
  });
};
/** A leader is cut off with work that it cannot finish, while the others choose another; then they meet. */
const deposed: Fault = (world, rng) => {
  const leader = world.leader();
  if (leader === undefined || world.machines.length < 3) return;
  const others = world.machines.filter((m) => m !== leader);
  world.network.partition([others, [leader]]);
  leaveBehind(world, rng, leader, others);
};
/** The same, with one that has missed something and hears of nobody but this leader. */
const deposedTwo: Fault = (world, rng) => {
  const leader = world.leader();
  const voters = leader?.peer?.consensus().membership.voters ?? [];
  const rest = world.machines.filter((m) => m !== leader && m.up);
  const friend = rest.find((m) => !voters.includes(m.id)) ?? rng.pick(rest);
  if (leader === undefined || friend === undefined || rest.length < 2) return;
  const others = world.machines.filter((m) => m !== leader && m !== friend);
  world.network.partition([[leader, ...others], [friend]]);
  write(world, rng, leader, 3, 700);
  world.after(900, () => {
    world.network.heal();
    for (const m of others) world.network.cut(m, friend);
  });
  world.after(1500, () => {
    for (const m of others) world.network.cut(m, leader);
    leaveBehind(world, rng, leader, others);
  });
};
function leaveBehind(world: World, rng: Rng, leader: Machine, others: readonly Machine[]): void {
  write(world, rng, leader, 4, 600);
  for (const m of others) write(world, rng, m, 1, 4000);
  for (const at of [700, 1200, 1700, 2200]) world.after(at, () => world.read(leader));
  world.after(rng.int(1500, 6000), () => world.network.heal());
}
/** The whole machine stands still, as a suspended virtual machine does. */
const freeze: Fault = (world, rng, victim) => world.freeze(victim, rng.int(300, rng.next() < 0.5 ? 3000 : 12_000));
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

/** How often each comes, against the others. */
const FAULTS = {
  crash: [220, crash],
  blackout: [10, blackout],
  majorityDown: [40, majorityDown],
  killAgent: [100, killAgent],
  agentDown: [60, agentDown],
  crashInWrite: [50, crashInWrite],
  killInStart: [40, killInStart],
  isolate: [130, isolate],
  split: [130, split],
  oneWay: [90, oneWay],
  flapping: [30, flapping],
  laggard: [70, laggard],
  deposed: [60, deposed],
  deposedTwo: [40, deposedTwo],
  freeze: [50, freeze],
  stall: [90, stall],
  wallJump: [30, wallJump],
  engine: [40, engine],
  drain: [60, drain],
  join: [30, join],
} as const satisfies Record<string, readonly [number, Fault]>;
export type FaultName = keyof typeof FAULTS;
/** So much more often come those that are asked for. */
const FAVOUR = 30;

/** Reads, asked of anybody, after each fault. */
const READS = 4;
const READS_WITHIN_MS = 4000;

export function injectFault(world: World, rng: Rng, limits: FaultLimits): void {
  const victim = rng.pick(world.machines.filter((m) => m.powered));
  const faults = Object.entries(FAULTS).map(
    ([name, [weight, fault]]) => [weight * (limits.favour.includes(name as FaultName) ? FAVOUR : 1), fault] as const,
  );
  let roll = rng.next() * faults.reduce((sum, [weight]) => sum + weight, 0);
  if (victim === undefined) return;
  world.disturbed();
  for (let i = 0; i < READS; i++)
    world.after(rng.int(0, READS_WITHIN_MS), () => world.read(rng.pick(world.machines) as Machine));
  for (const [weight, fault] of faults) {
    roll -= weight;
    if (roll < 0) return fault(world, rng, victim, limits);
  }
}

/** Cables mended, machines and engines on, nobody drained. */
export function healAll(world: World): void {
  world.faultsOn = false;
  world.network.heal();
  for (const m of world.machines) {
    m.thaw();
    m.atNextWrite = undefined;
    m.atNextStart = undefined;
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
  witness: m.witness && !m.world.has('witness-works'),
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

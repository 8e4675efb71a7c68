import { DEFAULT_CONSENSUS_CONFIG } from '../core/consensus/types.ts';
import { DEFAULT_LEASE_CONFIG } from '../core/lease/types.ts';
import { DEFAULT_MEMBERSHIP_CONFIG } from '../core/membership/types.ts';
import type { PeerConfig } from '../core/peer/types.ts';
import { createRng, type Rng } from '../model/random.ts';
import { parseTaskDocument } from '../model/task-document.ts';
import type { TaskSpec } from '../model/task-spec.ts';
import type { Defect } from './defects.ts';
import { admit, type FaultName, foundWith, healAll, injectFault } from './faults.ts';
import { InvariantBroken } from './invariants.ts';
import type { Machine } from './machine.ts';
import { type Tally, World, type WorldOptions } from './world.ts';

// Random faults against a whole simulated cluster, with every invariant looked at after every event, and progress demanded
// whenever the faults stop. The seed alone decides the run.

export const DEFAULT_PEER_CONFIG: PeerConfig = {
  membership: DEFAULT_MEMBERSHIP_CONFIG,
  consensus: DEFAULT_CONSENSUS_CONFIG,
  lease: DEFAULT_LEASE_CONFIG,
  factsDebounceMs: 20,
  factsHeadMs: 2000,
  factsPerPeerMs: 400,
  requestTimeoutMs: 5000,
  submissionRetryMs: 2000,
};

/** Once the faults stop, the cluster has this long (virtual ms) to be whole again. */
export const SETTLE_MS = 10_000;
/** How far virtual time moves between two looks at whether it is. */
const LOOK_MS = 20;
/** Faults, on average, between two times that everything has to be whole. */
const FAULTS_IN_A_ROW = 6;
/** All records are hashed and compared in every so many of these times, and at the end. */
const RECORDS_EVERY = 8;
/** Joins of a further machine, at most, where the number of machines is left to the seed, and where it is given. */
const JOINS = { mixed: 2, given: 1 };

export interface CampaignOptions {
  readonly seed: string;
  /** Undefined: drawn from the seed, between 1 and 9. */
  readonly machines?: number;
  /** Simulated seconds under faults. */
  readonly seconds: number;
  readonly faultEveryMs: number;
  readonly tasks: number;
  readonly defects?: readonly Defect[];
  /** What is otherwise left to the seed: a log so short that laggards need snapshots, a witness, learners that follow the topic. */
  readonly shortLog?: boolean;
  readonly witness?: boolean;
  readonly learnersByTopic?: boolean;
  /** Faults that come more often than they would. */
  readonly favour?: readonly FaultName[];
}

export interface CampaignResult {
  readonly seed: string;
  readonly machines: number;
  readonly simulatedMs: number;
  readonly tally: Tally;
  readonly committed: number;
  readonly accepted: number;
  readonly exclusiveRuns: number;
  /** Exclusive copies that ran when their frozen machine thawed, until boot's first tick; and for how long in all. */
  readonly thawed: number;
  readonly thawedMs: number;
  /** Hash over every event and effect with its time and machine: the same seed gives the same. */
  readonly trace: string;
}

export function makeSpec(name: string, exclusive: boolean, replicas = 1): TaskSpec {
  const parsed = parseTaskDocument({
    name,
    runtime: 'process',
    command: ['sim'],
    onPartition: exclusive ? 'stop' : 'keep',
    replicas,
  });
  if (!parsed.ok) throw new Error(parsed.issues.map((i) => `${i.path}: ${i.message}`).join('; '));
  return parsed.spec;
}

export function makeWorld(
  seed: string,
  machines: number,
  options: Partial<Omit<WorldOptions, 'seed' | 'machines'>> = {},
): World {
  return new World({
    seed,
    machines,
    config: DEFAULT_PEER_CONFIG,
    network: { delayMs: [0.2, 2], loss: 0, duplicate: 0, overtaken: 0 },
    fsyncMs: [0.2, 4],
    startMs: [50, 300],
    crashBetweenEffects: 0,
    clockRateError: 0,
    witness: false,
    defects: [],
    ...options,
  });
}

/** Powers everybody on, founds the cluster and admits them all. Throws when that takes over 30 s of virtual time. */
export function formCluster(world: World): void {
  for (const m of world.machines) m.powerOn();
  const first = world.machines[0] as Machine;
  const ok = (why: string, done: () => boolean): void => {
    if (!world.run(world.now + 30_000, done)) throw new InvariantBroken('progress', `${why} takes over 30 s`);
  };
  ok('the first election', () => first.peer?.consensus().role === 'leader');
  foundWith(world, first);
  ok('founding', () => first.peer?.state().cluster !== undefined);
  for (const m of world.machines.slice(1)) admit(world, m);
  ok('joining', () => world.machines.every((m) => m.peer?.state().peers.size === world.machines.length));
  ok(
    'choosing voters',
    () =>
      (world.leader()?.peer?.consensus().membership.voters.length ?? 0) >=
      Math.min(world.machines.length, wantedVoters(world.machines.length)),
  );
}

const wantedVoters = (n: number): number => (n <= 2 ? 1 : n <= 4 ? 3 : n <= 6 ? 5 : 7);

/** Entries that are kept where logs are to be short. */
const LEAST_LOG = 8;
const SIZES = [1, 2, 3, 3, 5, 5, 7, 9];

/** What kind of world a seed gets. */
function worldOf(options: CampaignOptions, rng: Rng): World {
  const machines = options.machines ?? (rng.pick(SIZES) as number);
  const rough = rng.next() < 0.5;
  const shortLog = rng.next() < 0.3 || options.shortLog === true;
  const byTopic = rng.next() < 0.2 || options.learnersByTopic === true;
  const witness = rng.next() < 0.25 || options.witness === true;
  const { consensus, lease } = DEFAULT_PEER_CONFIG;
  const config: PeerConfig = {
    ...DEFAULT_PEER_CONFIG,
    consensus: {
      ...consensus,
      ...(shortLog ? { logRetained: options.shortLog === true ? LEAST_LOG : rng.int(LEAST_LOG, 64) } : {}),
      ...(byTopic ? { directLearners: 0 } : {}),
    },
    lease: options.defects?.includes('wrong-lease-arithmetic') ? { ...lease, clockRateError: -0.25 } : lease,
  };
  return makeWorld(options.seed, machines, {
    config,
    network: { delayMs: [0.2, 2], loss: rng.next() * 0.005, duplicate: rough ? 0.02 : 0, overtaken: rough ? 0.01 : 0 },
    crashBetweenEffects: 0.0000005 * rng.int(1, 10),
    clockRateError: rng.next() < 0.8 ? 0.01 : 0,
    witness: machines >= 3 && witness,
    defects: options.defects ?? [],
  });
}

export function runCampaign(options: CampaignOptions): CampaignResult {
  const rng = createRng(`${options.seed}/campaign`);
  const world = worldOf(options, rng);
  const machines = world.machines.length;
  world.faultsOn = false;
  formCluster(world);
  for (let i = 0; i < options.tasks; i++)
    world.submit(
      rng.pick(world.machines.filter((m) => m.up)) as Machine,
      makeSpec(`task${i}`, i % 2 === 0, i % 5 === 4 ? 3 : 1),
    );
  settle(world, 'the first tasks');
  world.faultsOn = true;

  const joining = options.machines === undefined ? JOINS.mixed : rng.next() < 0.25 ? JOINS.given : 0;
  const end = world.now + options.seconds * 1000;
  let submitted = options.tasks;
  for (let round = 0; world.now < end; round++) {
    const stretch = Math.min(end, world.now + options.faultEveryMs * FAULTS_IN_A_ROW);
    while (world.now < stretch) {
      injectFault(world, rng, { joining, favour: options.favour ?? [] });
      const at = rng.pick(world.machines.filter((m) => m.up));
      if (at && rng.next() < 0.5) world.submit(at, makeSpec(`task${submitted++}`, rng.next() < 0.5));
      else if (at) changeOne(world, rng, at);
      world.run(world.now + options.faultEveryMs * (0.5 + rng.next()));
    }
    // Faults stop, the cables are mended, the machines are back: everything must be whole within SETTLE_MS.
    healAll(world);
    settle(world, 'healing');
    if (round % RECORDS_EVERY === 0 || world.now >= end) world.checkRecords();
    world.faultsOn = true;
  }
  const { invariants, tally, trace } = world;
  return {
    seed: options.seed,
    machines,
    simulatedMs: world.now,
    tally: { ...tally, adoptions: invariants.adoptions, drops: invariants.drops },
    committed: invariants.committedCount,
    accepted: invariants.acceptedCount,
    exclusiveRuns: invariants.exclusiveRuns,
    thawed: invariants.thawed,
    thawedMs: Math.round(invariants.thawedMs),
    trace: trace.digest(),
  };
}

function settle(world: World, what: string): void {
  const until = world.now + SETTLE_MS;
  while (world.now < until) {
    world.run(world.now + LOOK_MS);
    if (world.unsettled() === undefined) return;
  }
  const peers = world.machines
    .map(
      (m) =>
        `${m.id}:${m.powered ? '' : 'off '}${m.peer?.consensus().role ?? 'down'}/t${m.peer?.consensus().term ?? '-'}/a${m.peer?.state().applied ?? '-'}/c${m.peer?.consensus().commit ?? '-'}`,
    )
    .join(' ');
  const waiting = [...(world.leader()?.peer?.waiting() ?? [])].map(([id, w]) => `${id}: ${w.reason}`).join('; ');
  throw new InvariantBroken(
    'progress',
    `${what}: not whole ${SETTLE_MS} ms after the faults stopped (at ${world.now}): ${world.unsettled()}; ${peers}; ${waiting}`,
  );
}

/** Removes, stops, starts or restarts some task. Keeps a few, so that there is something to fail. */
function changeOne(world: World, rng: Rng, at: Machine): void {
  const tasks = [...(at.peer?.state().tasks.keys() ?? [])];
  const taskId = rng.pick(tasks);
  const roll = rng.next();
  if (taskId === undefined) return;
  if (roll < 0.5 && tasks.length > 4) world.propose(at, { type: 'task.remove', taskId });
  else if (roll < 0.75)
    world.propose(at, {
      type: 'task.desire',
      taskId,
      desired: roll < 0.6 ? 'stopped' : 'running',
      restart: roll >= 0.68,
    });
}

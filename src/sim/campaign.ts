import { DEFAULT_CONSENSUS_CONFIG } from '../core/consensus/types.ts';
import { DEFAULT_LEASE_CONFIG } from '../core/lease/types.ts';
import { DEFAULT_MEMBERSHIP_CONFIG } from '../core/membership/types.ts';
import type { PeerConfig } from '../core/peer/types.ts';
import { parseTaskDocument } from '../model/task-document.ts';
import type { TaskSpec } from '../model/task-spec.ts';
import { InvariantBroken } from './invariants.ts';
import type { Machine } from './machine.ts';
import { World, type Tally } from './world.ts';

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

export interface CampaignOptions {
  readonly seed: string;
  readonly machines: number;
  /** Simulated seconds under faults. */
  readonly seconds: number;
  readonly faultEveryMs: number;
  readonly tasks: number;
}

export interface CampaignResult {
  readonly seed: string;
  readonly simulatedMs: number;
  readonly tally: Tally;
  readonly committed: number;
  readonly accepted: number;
  readonly exclusiveRuns: number;
}

export function makeSpec(name: string, exclusive: boolean, replicas = 1): TaskSpec {
  const parsed = parseTaskDocument({ name, runtime: 'process', command: ['sim'], onPartition: exclusive ? 'stop' : 'keep', replicas });
  if (!parsed.ok) throw new Error(parsed.issues.map((i) => `${i.path}: ${i.message}`).join('; '));
  return parsed.spec;
}

export function makeWorld(seed: string, machines: number, config: PeerConfig = DEFAULT_PEER_CONFIG, faults: { readonly loss?: number; readonly crashBetweenEffects?: number } = {}): World {
  return new World({ seed, machines, config, delayMs: [0.2, 2], loss: faults.loss ?? 0, fsyncMs: [0.2, 4], startMs: [50, 300], crashBetweenEffects: faults.crashBetweenEffects ?? 0 });
}

/** Powers everybody on, founds the cluster and admits them all. Throws when that takes over 30 s of virtual time. */
export function formCluster(world: World): void {
  for (const m of world.machines) m.powerOn();
  const first = world.machines[0] as Machine;
  const record = (m: Machine) => ({ nodeId: m.id, name: `node${m.index + 1}`, addresses: [`/sim/${m.index}`], labels: {}, priority: 0, witness: false, availability: 'active' as const });
  const ok = (why: string, done: () => boolean): void => {
    if (!world.run(world.now + 30_000, done)) throw new InvariantBroken('progress', `${why} takes over 30 s`);
  };
  ok('the first election', () => first.peer?.consensus().role === 'leader');
  world.propose(first, { type: 'cluster.init', cluster: { clusterId: 'sim', epoch: 1, epochId: 'e', name: 'sim' }, founder: record(first) });
  ok('founding', () => first.peer?.state().cluster !== undefined);
  for (const m of world.machines.slice(1)) world.propose(first, { type: 'peer.admit', peer: record(m), invitationId: null });
  ok('joining', () => world.machines.every((m) => m.peer?.state().peers.size === world.machines.length));
  ok('choosing voters', () => (world.leader()?.peer?.consensus().membership.voters.length ?? 0) >= Math.min(world.machines.length, wantedVoters(world.machines.length)));
}

const wantedVoters = (n: number): number => (n <= 2 ? 1 : n <= 4 ? 3 : n <= 6 ? 5 : 7);

export function runCampaign(options: CampaignOptions): CampaignResult {
  const world = makeWorld(options.seed, options.machines, DEFAULT_PEER_CONFIG, { loss: 0.002, crashBetweenEffects: 0.0000005 });
  const rng = world.rngFor('campaign');
  world.faultsOn = false;
  formCluster(world);
  for (let i = 0; i < options.tasks; i++) world.submit(rng.pick(world.machines.filter((m) => m.up)) as Machine, makeSpec(`task${i}`, i % 2 === 0));
  settle(world, 'the first tasks');
  world.faultsOn = true;

  const end = world.now + options.seconds * 1000;
  let submitted = options.tasks;
  while (world.now < end) {
    const stretch = Math.min(end, world.now + options.faultEveryMs * 6);
    while (world.now < stretch) {
      fault(world);
      const up = world.machines.filter((m) => m.up);
      const at = rng.pick(up);
      if (at && rng.next() < 0.5) world.submit(at, makeSpec(`task${submitted++}`, rng.next() < 0.5));
      else if (at && rng.next() < 0.3) removeOne(world, at);
      world.run(world.now + options.faultEveryMs * (0.5 + rng.next()));
    }
    // Faults stop, the cables are mended, the machines are back: everything must be whole within SETTLE_MS.
    world.faultsOn = false;
    world.heal();
    for (const m of world.machines) if (!m.powered) m.powerOn();
    settle(world, 'healing');
    world.checkDigests();
    world.faultsOn = true;
  }
  return { seed: options.seed, simulatedMs: world.now, tally: world.tally, committed: world.invariants.committedCount, accepted: world.invariants.acceptedCount, exclusiveRuns: world.invariants.exclusiveRuns };
}

function settle(world: World, what: string): void {
  if (world.run(world.now + SETTLE_MS, () => world.settled())) return;
  const leader = world.leader();
  const detail = world.machines.map((m) => `${m.id}:${m.powered ? '' : 'off '}${m.peer?.consensus().role ?? 'down'}/t${m.peer?.consensus().term ?? '-'}/a${m.peer?.state().applied ?? '-'}/c${m.peer?.consensus().commit ?? '-'}`).join(' ');
  const waiting = [...(leader?.peer?.waiting() ?? [])].map(([id, w]) => `${id}: ${w.reason}`).join('; ');
  throw new InvariantBroken('progress', `${what}: not whole ${SETTLE_MS} ms after the faults stopped; leader ${leader?.id ?? 'none'}; ${detail}; ${waiting}`);
}

function removeOne(world: World, at: Machine): void {
  const tasks = [...(at.peer?.state().tasks.keys() ?? [])];
  const victim = world.rngFor(`remove/${world.now}`).pick(tasks);
  if (victim === undefined || tasks.length < 4) return;
  world.propose(at, { type: 'task.remove', taskId: victim }, (result) => {
    if (result.ok && result.result.ok) world.invariants.removed(victim);
  });
}

/** One fault, drawn from what can happen to machines and cables. */
function fault(world: World): void {
  const rng = world.rngFor(`fault/${world.now}`);
  const powered = world.machines.filter((m) => m.powered);
  const victim = rng.pick(powered);
  const roll = rng.next();
  if (victim === undefined) return;
  if (roll < 0.3) {
    world.tally.crashes += 1;
    victim.powerOff();
    world.after(rng.int(300, 15_000), () => { if (!victim.powered) victim.powerOn(); });
  } else if (roll < 0.45) victim.killAgent(rng.int(100, 600));
  else if (roll < 0.6) {
    world.partition([world.machines.filter((m) => m !== victim), [victim]]);
    world.after(rng.int(1000, 20_000), () => world.heal());
  } else if (roll < 0.75) {
    const shuffled = rng.shuffle(world.machines);
    const cut = rng.int(1, shuffled.length - 1);
    world.partition([shuffled.slice(0, cut), shuffled.slice(cut)]);
    world.after(rng.int(1000, 20_000), () => world.heal());
  } else if (roll < 0.85) {
    const other = rng.pick(world.machines.filter((m) => m !== victim));
    if (other) {
      world.block(victim, other);
      world.tally.cuts += 1;
      world.after(rng.int(500, 10_000), () => world.heal());
    }
  } else if (roll < 0.95) world.stall(victim, rng.int(100, 3000));
  else victim.wallOffset += rng.int(-3_600_000, 3_600_000);
}

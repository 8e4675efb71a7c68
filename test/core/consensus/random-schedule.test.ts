import { describe, expect, test } from 'vitest';
import type { NodeId } from '../../../src/model/ids.ts';
import { CALM, Cluster, ROUGH } from './cluster-sim.ts';

// Random schedules: crashes with loss of what was not fsynced, restarts, partitions, a bad network, voter changes,
// transfers, false alarms. The checker watches every step. When the faults stop there must be progress within 10 s of
// virtual time, and all peers must end with the same state. A failing seed replays by its name.

interface Plan {
  readonly nodes: number;
  readonly voters: number;
  readonly steps: number;
  /** Whole disks lost, one at a time, each time awaiting re-admission. */
  readonly wipes?: boolean;
}

function play(seed: string, plan: Plan): Cluster {
  const names = 'ABCDEFG'.slice(0, plan.nodes).split('');
  const c = new Cluster(seed, names, names.slice(0, plan.voters), {
    logRetained: 40,
    maxAppendEntries: 16,
    maxInFlight: 6,
    maxProposals: 64,
  });
  const ids = [...c.nodes.keys()];
  let wiped: NodeId | null = null;
  for (let i = 0; i < plan.steps; i++) {
    c.run(c.rng.next() ** 3 * 400);
    const id = c.rng.pick(ids) as NodeId;
    const leader = c.leader()?.id;
    const dice = c.rng.int(0, 99);
    if (dice < 40) {
      for (let k = c.rng.int(1, 12); k > 0; k--) c.propose(leader !== undefined && c.rng.next() < 0.8 ? leader : id);
    } else if (dice < 52) c.read(id);
    else if (dice < 60) c.crash(leader !== undefined && c.rng.next() < 0.3 ? leader : id);
    else if (dice < 72) c.start(id);
    else if (dice < 76) c.partition();
    else if (dice < 80) c.heal();
    else if (dice < 83) c.faults = c.rng.next() < 0.7 ? ROUGH : CALM;
    else if (dice < 89 && leader !== undefined && !plan.wipes) c.changeVoters(leader, someVoters(c, ids));
    else if (dice < 92 && leader !== undefined) c.step(leader, { type: 'transfer', to: id });
    else if (dice < 94 && leader !== undefined) c.step(leader, { type: 'step-down', reason: 'test' });
    else if (dice < 97) c.step(id, { type: 'leader-lost' });
    else if (plan.wipes && wiped === null) wiped = wipe(c, plan.voters);
    if (plan.wipes && wiped !== null) wiped = readmit(c, ids, wiped);
    c.check.logMatching();
  }
  return c;
}

function someVoters(c: Cluster, ids: readonly NodeId[]): NodeId[] {
  return c.rng.shuffle(ids).slice(0, c.rng.int(1, Math.min(5, ids.length)));
}

/** One disk at a time, of a settled set of voters: more is beyond what three voters can bear. */
function wipe(c: Cluster, size: number): NodeId | null {
  const v = c.leader()?.core?.view();
  if (v === undefined || v.membership.outgoing !== null || v.membership.voters.length !== size) return null;
  const known = JSON.stringify(v.membership);
  const settled = [...c.nodes.values()].every(
    (n) => n.disk.mayVote && JSON.stringify(n.core?.view().membership) === known,
  );
  const id = c.rng.pick([...c.nodes.keys()].filter((x) => c.leader()?.id !== x)) as NodeId;
  if (!settled) return null;
  c.crash(id, true);
  c.run(3000);
  c.start(id);
  return id;
}

/** What the master does: the voter whose log was lost is replaced; it comes back as a learner, then as a voter. */
function readmit(c: Cluster, ids: readonly NodeId[], wiped: NodeId): NodeId | null {
  const leader = c.leader();
  const v = leader?.core?.view();
  if (leader === undefined || v === undefined) return wiped;
  const { voters } = v.membership;
  const spare = ids.filter((x) => !voters.includes(x));
  if (v.logLost?.has(wiped) && voters.includes(wiped))
    c.changeVoters(leader.id, [...voters.filter((x) => x !== wiped), ...spare]);
  else if (!voters.includes(wiped) && v.logLost?.has(wiped))
    c.changeVoters(leader.id, [...voters.filter((x) => x !== leader.id).slice(1), leader.id, wiped]);
  return c.node(wiped).disk.mayVote ? null : wiped;
}

/** Faults stop: a proposal must commit within 10 s, and everybody must come to the same state. */
function settles(c: Cluster): void {
  c.heal();
  let last = 0;
  let asked = -1000;
  const progress = c.run(10_000, () => {
    const leader = c.leader();
    if (leader === undefined) return false;
    if (c.proposals.get(last)?.result === 'ok') return true;
    if (c.now - asked > 200) {
      asked = c.now;
      last = c.propose(leader.id);
    }
    return false;
  });
  expect(progress, 'progress within 10 s of the heal').toBe(true);
  const even = c.run(10_000, () => {
    const all = [...c.nodes.values()].map((n) => n.disk);
    return all.every((d) => d.applied === c.check.log.length);
  });
  const applied = [...c.nodes.values()].map((n) => `${n.id}:${n.disk.applied}`).join(' ');
  expect(even, `all applied ${c.check.log.length}: ${applied}`).toBe(true);
  const truth = c.check.log.map((e) => e.text).join();
  for (const n of c.nodes.values()) expect(n.disk.state.join()).toBe(truth);
  c.check.logMatching();
  const open = [...c.reads.values()].filter((r) => !r.done).length;
  const crashed = [...c.nodes.values()].reduce((sum, n) => sum + n.life, 0);
  if (crashed === 0) expect(open).toBe(0);
}

const SEEDS = Number(globalThis.process?.env.CONSENSUS_SEEDS ?? 12);
const seeds = Array.from({ length: SEEDS }, (_, i) => `seed-${i}`);

describe('random schedules keep the invariants of Raft', () => {
  const plans: Record<string, Plan> = {
    '3 voters': { nodes: 3, voters: 3, steps: 150 },
    '5 voters': { nodes: 5, voters: 5, steps: 150 },
    '1 voter, 2 learners': { nodes: 3, voters: 1, steps: 150 },
    '3 voters, 4 learners, changing': { nodes: 7, voters: 3, steps: 150 },
    '3 voters, disks lost': { nodes: 4, voters: 3, steps: 200, wipes: true },
  };
  for (const [name, plan] of Object.entries(plans)) {
    test.each(seeds)(`${name}: %s`, (seed) => {
      settles(play(`${name}/${seed}`, plan));
    });
  }
});

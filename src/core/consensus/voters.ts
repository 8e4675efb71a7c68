import type { MonoMs, NodeId } from '../../model/ids.ts';

// Who should vote: 1 of 1-2 machines, 3 of 3-4, 5 of 5-6, 7 from 7 on. Pure; the leader asks now and then and proposes what
// it is told through `change-voters` (joint consensus, so any set may follow any other).

/** A voter counts as gone, and its successor as there to stay, after this long in that state. */
export const VOTER_STABLE_MS = 10_000;
/** A new voter on a growing cluster must have been healthy this long: nothing is lost yet, so it may be quicker. */
export const VOTER_GROW_MS = 2_000;

export interface VoterCandidate {
  readonly id: NodeId;
  /** Votes, but runs nothing: it makes an odd number of a small even one. */
  readonly witness: boolean;
  /** Failure domain; '' when not told (then each machine is its own). */
  readonly zone: string;
  /** Bully rank, higher is better. */
  readonly rank: number;
  /** Alive, and not suspect. */
  readonly healthy: boolean;
  /** Since when `healthy` has been as it is. */
  readonly since: MonoMs;
  /** Its log is at most CATCH_UP_ENTRIES behind the leader's. */
  readonly caughtUp: boolean;
  readonly availability: 'active' | 'drain';
  /** Its log was lost (`ConsensusView.logLost`): as a voter it must leave the set before it may come back. */
  readonly logLost?: boolean;
}

export interface VoterQuestion {
  readonly admitted: readonly VoterCandidate[];
  /** Voters as committed, with no change under way. */
  readonly current: readonly NodeId[];
  readonly now: MonoMs;
  /** Kept before others where the set shrinks, so that no hand-over is needed. */
  readonly leader?: NodeId;
}

/** How many should vote of so many machines. */
export function voterTarget(machines: number): number {
  if (machines <= 0) return 0;
  return machines >= 7 ? 7 : machines - ((machines + 1) % 2);
}

const majority = (n: number): number => Math.floor(n / 2) + 1;

/**
 * The voters there should be, or null when nothing should change. Never a set that could not be committed: a majority of
 * the current set and one of the new set are healthy now.
 */
export function chooseVoters(q: VoterQuestion): NodeId[] | null {
  const { admitted, current, now } = q;
  const isCurrent = (m: VoterCandidate): boolean => current.includes(m.id);
  const gone = (m: VoterCandidate): boolean => !m.healthy && now - m.since >= VOTER_STABLE_MS;
  const lost = (m: VoterCandidate): boolean => m.logLost === true && isCurrent(m);

  const counted = admitted.filter((m) => !gone(m) && !lost(m));
  const target = voterTarget(counted.length);
  const growing = target > current.filter((id) => admitted.some((m) => m.id === id)).length;
  const steadyMs = growing ? VOTER_GROW_MS : VOTER_STABLE_MS;
  const newcomer = (m: VoterCandidate): boolean =>
    m.healthy && m.caughtUp && m.availability === 'active' && now - m.since >= steadyMs;

  /** Lower is better; undefined = not to be chosen. */
  const standing = (m: VoterCandidate): number | undefined => {
    if (lost(m)) return undefined;
    if (!isCurrent(m)) return newcomer(m) ? (m.witness ? 4 : 3) : undefined;
    if (gone(m)) return 6;
    if (m.availability === 'drain') return 5;
    if (m.id === q.leader) return 0;
    return m.healthy ? 1 : 2;
  };
  const pool = admitted.flatMap((m) => {
    const s = standing(m);
    return s === undefined ? [] : [{ m, s }];
  });
  const chosen = pick(pool, target);
  // An even set needs one more for its majority than the odd one below it: it only makes every failure count.
  if (chosen.length % 2 === 0) chosen.pop();

  const next = chosen.map((m) => m.id);
  if (next.length === 0 || (next.length === current.length && next.every((id) => current.includes(id)))) return null;
  const well = (id: NodeId): boolean => admitted.some((m) => m.id === id && m.healthy && !lost(m));
  if (current.filter(well).length < majority(current.length)) return null;
  if (next.filter(well).length < majority(next.length)) return null;
  return [...current.filter((id) => next.includes(id)), ...next.filter((id) => !current.includes(id))];
}

/** Greedy: best standing, then the zone with fewest chosen so far, then rank, then id. */
function pick(pool: readonly { readonly m: VoterCandidate; readonly s: number }[], size: number): VoterCandidate[] {
  const left = [...pool];
  const chosen: VoterCandidate[] = [];
  const inZone = new Map<string, number>();
  const crowd = (m: VoterCandidate): number => (m.zone === '' ? 0 : (inZone.get(m.zone) ?? 0));
  while (chosen.length < size && left.length > 0) {
    left.sort((a, b) => a.s - b.s || crowd(a.m) - crowd(b.m) || b.m.rank - a.m.rank || (a.m.id < b.m.id ? -1 : 1));
    const best = (left.shift() as (typeof left)[number]).m;
    chosen.push(best);
    inZone.set(best.zone, (inZone.get(best.zone) ?? 0) + 1);
  }
  return chosen;
}

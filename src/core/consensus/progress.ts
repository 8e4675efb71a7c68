import type { MonoMs, NodeId } from '../../model/ids.ts';
import type { Membership } from './types.ts';

// What the leader knows of one other peer (Raft Figure 2: nextIndex, matchIndex; the three states are etcd-io/raft's),
// and the arithmetic of majorities.

/**
 * probe: the common prefix is not known; one append at a time. replicate: it is; appends are pipelined and `next` runs
 * ahead. snapshot: the peer is behind the first entry held; it fetches a snapshot, and gets empty appends meanwhile.
 */
export type ProgressState = 'probe' | 'replicate' | 'snapshot';

export interface Progress {
  readonly id: NodeId;
  /** Highest index known durable at the peer and equal to ours. */
  match: number;
  /** Index of the next entry to send. */
  next: number;
  state: ProgressState;
  /** Last index of each append with entries that is not yet acknowledged; at most `maxInFlight`. */
  readonly inFlight: number[];
  probeOut: boolean;
  /** Rejections of messages numbered up to this are stale: they answer what was sent before the last change of `next`. */
  sinceRound: number;
  /** Highest round it answered in this term. */
  ackedRound: number;
  commitSent: number;
  lastHeard: MonoMs;
  lastSent: MonoMs;
  offeredAt: MonoMs;
  /** False once it said that its log was lost; replies to messages up to `lostRound` come from before and count nothing. */
  mayVote: boolean;
  lostRound: number;
  /** Sent appends: every voter, and the learners served directly. */
  served: boolean;
  /** Heartbeats in a row that an unserved learner could not join on to. */
  gaps: number;
}

export function createProgress(id: NodeId, next: number, round: number, now: MonoMs): Progress {
  return {
    id,
    match: 0,
    next,
    state: 'probe',
    inFlight: [],
    probeOut: false,
    sinceRound: round,
    ackedRound: 0,
    commitSent: 0,
    lastHeard: now,
    lastSent: Number.NEGATIVE_INFINITY as MonoMs,
    offeredAt: Number.NEGATIVE_INFINITY as MonoMs,
    mayVote: true,
    lostRound: 0,
    served: false,
    gaps: 0,
  };
}

export function toProbe(p: Progress, next: number, round: number): void {
  p.state = 'probe';
  p.next = next;
  p.inFlight.length = 0;
  p.probeOut = false;
  p.sinceRound = round;
}

/** Frees the appends that an acknowledgement up to `index` covers. */
export function acknowledge(p: Progress, index: number): void {
  let n = 0;
  while (n < p.inFlight.length && (p.inFlight[n] as number) <= index) n++;
  if (n > 0) p.inFlight.splice(0, n);
}

const majority = (size: number): number => Math.floor(size / 2) + 1;

function setQuorum(ids: readonly NodeId[], test: (id: NodeId) => boolean): boolean {
  let n = 0;
  for (const id of ids) if (test(id)) n++;
  return ids.length > 0 && n >= majority(ids.length);
}

/** Whether a majority (of both sets while joint, thesis 4.3) passes the test. An empty set has no majority. */
export function hasQuorum(membership: Membership, test: (id: NodeId) => boolean): boolean {
  if (!setQuorum(membership.voters, test)) return false;
  return membership.outgoing === null || setQuorum(membership.outgoing, test);
}

function setValue(ids: readonly NodeId[], value: (id: NodeId) => number): number {
  if (ids.length === 0) return 0;
  const sorted: number[] = [];
  for (const id of ids) {
    const v = value(id);
    let i = sorted.length;
    while (i > 0 && (sorted[i - 1] as number) < v) i--;
    sorted.splice(i, 0, v);
  }
  return sorted[majority(ids.length) - 1] as number;
}

/** The highest value that a majority (of both sets while joint) has reached. */
export function quorumValue(membership: Membership, value: (id: NodeId) => number): number {
  const n = setValue(membership.voters, value);
  return membership.outgoing === null ? n : Math.min(n, setValue(membership.outgoing, value));
}

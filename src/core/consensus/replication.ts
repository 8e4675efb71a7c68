import { logIndex, type MonoMs, type NodeId, term } from '../../model/ids.ts';
import { type Core, type LeaderState, NEVER, send } from './core.ts';
import { membershipAt } from './membership.ts';
import { syncProgress } from './peers.ts';
import { acknowledge, hasQuorum, type Progress, toProbe } from './progress.ts';
import { becomeFollower } from './roles.ts';
import type { LogEntry, RaftMessage } from './types.ts';

// Log replication, the leader's side (Raft 5.3), pipelined (thesis 10.2.1): appends leave at once, many in flight, `next`
// running ahead of `match`. Every append carries a number (`round`) that its reply repeats: a reply to round r shows that
// the peer still followed this leader after r was sent (ReadIndex), and tells fresh rejections from stale ones.

/**
 * With so many appends in flight, small ones wait for an acknowledgement and go as one: self-clocked batching, which under
 * load costs every machine one message, one write and one fsync for many entries.
 */
const EAGER_IN_FLIGHT = 1;
const EAGER_ENTRIES = 64;
/** A writer that waits for each of its writes comes back sooner: then the commit index need not travel alone. */
const TELL_AFTER_MS = 3;
/** Learners that follow the log topic hear the leader directly this often, so that gaps and terms are noticed. */
const SLOW_HEARTBEAT_MS = 1000;
const SNAPSHOT_OFFER_MS = 1000;
/** Slow heartbeats refused in a row before the leader serves a learner itself, and how many at a time. */
const GAPS_BEFORE_HELP = 3;
const MAX_HELPED = 4;

type AppendReply = Extract<RaftMessage, { type: 'append-reply' }>;

function sendAppend(c: Core, p: Progress, prev: number, entries: readonly LogEntry[]): void {
  const prevTerm = c.log.termAt(prev);
  if (prevTerm === undefined) return;
  c.round++;
  p.lastSent = c.now;
  p.commitSent = c.commit;
  const message: RaftMessage = {
    type: 'append',
    term: term(c.term),
    prevIndex: logIndex(prev),
    prevTerm: term(prevTerm),
    entries,
    commit: logIndex(c.commit),
    round: c.round,
    learner: !c.electors.includes(p.id),
  };
  send(c, p.id, message, false);
}

function offerSnapshot(c: Core, p: Progress): void {
  if (c.now - p.offeredAt < SNAPSHOT_OFFER_MS) return;
  const index = Math.min(c.applied, c.log.last);
  const lastTerm = c.log.termAt(index);
  if (lastTerm === undefined) return;
  p.offeredAt = c.now;
  p.lastSent = c.now;
  const membership = membershipAt(c, index);
  const message: RaftMessage = {
    type: 'snapshot-offer',
    term: term(c.term),
    index: logIndex(index),
    lastTerm: term(lastTerm),
    membership,
  };
  send(c, p.id, message, false);
}

function toSnapshot(c: Core, p: Progress): void {
  p.state = 'snapshot';
  p.inFlight.length = 0;
  p.next = Math.min(c.applied, c.log.last) + 1;
  p.sinceRound = c.round;
}

/** Sends what this peer lacks and there is room for; `heartbeat`: something in any case. */
export function flushPeer(c: Core, p: Progress, heartbeat: boolean): void {
  if (p.next <= c.log.base) toSnapshot(c, p);
  if (p.state === 'snapshot') {
    offerSnapshot(c, p);
    if (heartbeat) sendAppend(c, p, p.next - 1, []);
    return;
  }
  const { maxAppendEntries, maxAppendBytes, maxInFlight } = c.config;
  if (p.state === 'probe') {
    if (!p.probeOut) sendAppend(c, p, p.next - 1, c.log.batch(p.next, maxAppendEntries, maxAppendBytes));
    else if (heartbeat) sendAppend(c, p, p.next - 1, []);
    p.probeOut = true;
    return;
  }
  let sent = false;
  while (p.next <= c.log.last && p.inFlight.length < maxInFlight) {
    if (p.inFlight.length >= EAGER_IN_FLIGHT && c.log.last - p.next + 1 < EAGER_ENTRIES) break;
    const entries = c.log.batch(p.next, maxAppendEntries, maxAppendBytes);
    sendAppend(c, p, p.next - 1, entries);
    p.next += entries.length;
    p.inFlight.push(p.next - 1);
    sent = true;
  }
  if (sent) return;
  if (heartbeat) sendAppend(c, p, p.next - 1, []);
  else if (p.commitSent < c.commit && p.inFlight.length === 0 && c.lead?.tellAt === NEVER) {
    c.lead.tellAt = (c.now + TELL_AFTER_MS) as MonoMs;
  }
}

/** The commit index rides on the next append; only when none came for a while does it travel alone. */
export function tellCommit(c: Core, l: LeaderState): void {
  l.tellAt = NEVER;
  for (const p of l.served) if (p.commitSent < c.commit && p.inFlight.length === 0) flushPeer(c, p, true);
}

/** The leader's tick: CheckQuorum (thesis 6.2) and heartbeats to whom nothing was sent of late. */
export function onBeat(c: Core, l: LeaderState): void {
  const { heartbeatMs, electionTimeoutMinMs, electionTimeoutMaxMs } = c.config;
  // A stall of this very process says nothing of the others: let what they sent meanwhile come in first.
  if (c.now - l.lastBeat > electionTimeoutMinMs / 2) l.graceUntil = (c.now + 2 * heartbeatMs) as MonoMs;
  l.lastBeat = c.now;
  l.heartbeatAt = (c.now + heartbeatMs) as MonoMs;
  if (c.now >= l.graceUntil) {
    const heard = (id: NodeId): boolean => {
      if (id === c.self) return true;
      const p = l.progress.get(id);
      return p !== undefined && c.now - p.lastHeard < electionTimeoutMaxMs;
    };
    if (!hasQuorum(c.membership, heard)) {
      becomeFollower(c, c.term, null);
      return;
    }
  }
  for (const p of l.progress.values()) {
    if (p.served) {
      if (c.now - p.lastSent >= heartbeatMs * 0.9) flushPeer(c, p, true);
    } else if (c.now - p.lastSent >= SLOW_HEARTBEAT_MS) sendAppend(c, p, c.commit, []);
  }
}

export function beatAll(c: Core, l: LeaderState): void {
  for (const p of l.served) if (c.electors.includes(p.id)) flushPeer(c, p, true);
}

/** Returns the peer's progress when the reply may have changed something to act on. */
export function onAppendReply(c: Core, from: NodeId, m: AppendReply): Progress | undefined {
  if (m.term > c.term) {
    becomeFollower(c, m.term, null);
    return undefined;
  }
  const l = c.lead;
  const p = l?.progress.get(from);
  if (l === null || p === undefined || m.term < c.term || m.round > c.round) return undefined;
  if (!p.mayVote && m.round <= p.lostRound) return undefined;
  p.lastHeard = c.now;
  p.ackedRound = Math.max(p.ackedRound, m.round);
  noteLostLog(c, p, m);
  if (m.ok) onAccepted(c, l, p, m);
  else onRejected(c, l, p, m);
  return p;
}

/** A peer whose disk came back empty: what it once acknowledged stands there no longer. */
function noteLostLog(c: Core, p: Progress, m: AppendReply): void {
  if (p.mayVote === m.mayVote) return;
  p.mayVote = m.mayVote;
  if (m.mayVote) {
    c.logLost.delete(p.id);
    return;
  }
  c.logLost.add(p.id);
  p.lostRound = c.round;
  p.match = 0;
  c.match.set(p.id, logIndex(0));
}

function onAccepted(c: Core, l: LeaderState, p: Progress, m: AppendReply): void {
  if (m.index > c.log.last) return;
  if (m.index > p.match) {
    p.match = m.index;
    c.match.set(p.id, m.index);
  }
  acknowledge(p, m.index);
  const fresh = m.round > p.sinceRound;
  if (p.state === 'snapshot') {
    if (fresh || m.index + 1 >= p.next) toProbe(p, Math.max(p.next, m.index + 1), c.round);
  } else if (p.state === 'probe' && fresh) {
    p.state = 'replicate';
    p.probeOut = false;
    // The probe's entries arrived with it; `next` had not moved for them.
    p.next = Math.max(p.next, p.match + 1);
    p.sinceRound = m.round;
  }
  p.next = Math.max(p.next, p.match + 1);
  p.gaps = 0;
  if (p.match >= c.commit && l.catchUp.delete(p.id)) syncProgress(c, l);
}

function onRejected(c: Core, l: LeaderState, p: Progress, m: AppendReply): void {
  if (m.round <= p.sinceRound) return;
  const hint = Math.min(m.index, p.next - 1, c.log.last);
  if (!p.served) {
    // Followers of the topic mend their gaps from neighbours; who still has one after a while is helped, a few at a time.
    p.gaps++;
    if (p.gaps < GAPS_BEFORE_HELP || l.catchUp.size >= MAX_HELPED) return;
    l.catchUp.add(p.id);
    syncProgress(c, l);
  }
  if (p.state === 'snapshot' && hint < c.log.base) return;
  // Skip whole terms (Raft 5.3, end): the follower named the last entry not above our term there; do the same.
  const agree = hint < c.log.base ? hint : c.log.lastAtOrBelow(hint, m.hintTerm);
  toProbe(p, Math.min(Math.max(agree, 0), p.next - 1) + 1, c.round);
}

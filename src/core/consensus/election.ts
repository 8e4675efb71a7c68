import { logIndex, type MonoMs, type NodeId, term } from '../../model/ids.ts';
import { type Core, hardStatePending, isElector, type LeaderState, LONG_AGO, NEVER, send } from './core.ts';
import { leaderAppend } from './membership.ts';
import { syncProgress } from './peers.ts';
import { hasQuorum } from './progress.ts';
import { becomeFollower, failRemoteReads, hearsLeader, resetCampaign, resetElection, setTerm } from './roles.ts';
import type { RaftMessage } from './types.ts';

// Leader election (Raft 5.2, 5.4.1) with PreVote (thesis 9.6) and leader stickiness (4.2.3). Departures:
//  - `leader-lost` (its connection is gone) starts a pre-vote after 0-150 ms instead of a whole timeout; the higher
//    Bully rank goes first (Garcia-Molina 1982), but a fresher log is never passed over;
//  - a pre-vote refused because the leader was still heard is granted late, once this peer has lost the leader too.

/** Longest wait between `leader-lost` and the pre-vote: a part by rank, a part at random. */
const LOST_RANK_MS = 100;
const LOST_RANDOM_MS = 50;

type VoteRequest = Extract<RaftMessage, { type: 'vote-request' }>;
type VoteReply = Extract<RaftMessage, { type: 'vote-reply' }>;

export function onLeaderLost(c: Core): void {
  if (c.role === 'leader' || c.leader === null) return;
  c.leader = null;
  failRemoteReads(c);
  if (isElector(c)) {
    const delay = (1 - c.rank) * LOST_RANK_MS + c.rng.next() * LOST_RANDOM_MS;
    c.electionAt = Math.min(c.electionAt, c.now + delay) as MonoMs;
  }
  for (const [from, preTerm] of c.refusedPreVotes) {
    if (c.mayVote && preTerm > c.term) sendVoteReply(c, from, preTerm, true, true);
  }
  c.refusedPreVotes.clear();
}

export function startPreVote(c: Core): void {
  if (!isElector(c)) {
    resetElection(c);
    return;
  }
  c.role = 'pre-candidate';
  c.leader = null;
  failRemoteReads(c);
  c.attempts++;
  c.votes.clear();
  c.votes.set(c.self, true);
  resetCampaign(c);
  if (hasQuorum(c.membership, (id) => c.votes.get(id) === true)) {
    startElection(c, false);
    return;
  }
  askVotes(c, true, false, c.term + 1);
}

export function startElection(c: Core, transfer: boolean): void {
  setTerm(c, c.term + 1);
  c.role = 'candidate';
  c.leader = null;
  failRemoteReads(c);
  c.votedFor = c.self;
  c.votes.clear();
  // Counted, like anybody's vote, only when it is durable: the batch this step is about to ask for.
  c.votePersistId = c.persistId + 1;
  resetCampaign(c);
  askVotes(c, false, transfer, c.term);
}

function askVotes(c: Core, preVote: boolean, transfer: boolean, voteTerm: number): void {
  const message: VoteRequest = {
    type: 'vote-request',
    term: term(voteTerm),
    preVote,
    transfer,
    lastIndex: logIndex(c.log.last),
    lastTerm: term(c.log.lastTerm),
    rank: c.rank,
  };
  for (const id of c.electors) if (id !== c.self) send(c, id, message, !preVote);
}

function sendVoteReply(c: Core, to: NodeId, replyTerm: number, preVote: boolean, granted: boolean): void {
  const durableFirst = granted && !preVote;
  send(c, to, { type: 'vote-reply', term: term(replyTerm), preVote, granted }, durableFirst);
}

const freshness = (c: Core, m: VoteRequest): number => m.lastTerm - c.log.lastTerm || m.lastIndex - c.log.last;

export function onVoteRequest(c: Core, from: NodeId, m: VoteRequest): void {
  if (m.preVote) {
    onPreVote(c, from, m);
    return;
  }
  if (m.term < c.term) {
    sendVoteReply(c, from, c.term, false, false);
    return;
  }
  if (m.term > c.term) {
    // Stickiness: whoever cannot hear the leader must not depose it, unless the leader itself asked for it (3.10).
    if (hearsLeader(c) && !m.transfer) {
      sendVoteReply(c, from, c.term, false, false);
      return;
    }
    const before = c.electionAt;
    becomeFollower(c, m.term, null);
    // A new term alone buys nobody time (5.2): only a vote given does.
    if (before > c.now && before < c.electionAt) c.electionAt = before;
  }
  const free = c.votedFor === null || c.votedFor === from;
  const granted = free && c.mayVote && c.leader === null && freshness(c, m) >= 0;
  if (granted && c.votedFor === null) {
    c.votedFor = from;
    c.hardDirty = true;
    resetElection(c);
  }
  sendVoteReply(c, from, c.term, false, granted);
}

/** Changes nothing durable: 'would you vote for me?' */
function onPreVote(c: Core, from: NodeId, m: VoteRequest): void {
  const fresh = freshness(c, m);
  const willing = m.term > c.term && c.mayVote && fresh >= 0;
  if (willing && hearsLeader(c)) {
    if (c.electors.includes(from)) c.refusedPreVotes.set(from, m.term);
    sendVoteReply(c, from, c.term, true, false);
    return;
  }
  // Two campaigns at once with equal logs: the higher rank goes on, once; after that whoever can.
  const rival = c.role === 'pre-candidate' && c.attempts === 1 && fresh === 0;
  const outranks = c.rank > m.rank || (c.rank === m.rank && c.self > from);
  if (!willing || (rival && outranks)) {
    sendVoteReply(c, from, c.term, true, false);
    return;
  }
  sendVoteReply(c, from, m.term, true, true);
  if (!c.deferred && c.role !== 'candidate') {
    c.deferred = true;
    if (c.role === 'pre-candidate') becomeFollower(c, c.term, null);
    resetCampaign(c);
  }
}

export function onVoteReply(c: Core, from: NodeId, m: VoteReply): void {
  if (m.preVote && m.granted) {
    if (c.role !== 'pre-candidate' || m.term !== c.term + 1) return;
    c.votes.set(from, true);
    if (hasQuorum(c.membership, (id) => c.votes.get(id) === true)) startElection(c, false);
    return;
  }
  if (m.term > c.term) {
    becomeFollower(c, m.term, null);
    return;
  }
  if (m.preVote || c.role !== 'candidate' || m.term !== c.term) return;
  c.votes.set(from, m.granted);
  tally(c);
}

/** Also called when a batch became durable: the own vote may be in it. */
export function tally(c: Core): void {
  if (c.role !== 'candidate') return;
  if (!hardStatePending(c) && c.persistedId >= c.votePersistId) c.votes.set(c.self, true);
  if (hasQuorum(c.membership, (id) => c.votes.get(id) === true)) becomeLeader(c);
}

function becomeLeader(c: Core): void {
  c.role = 'leader';
  c.leader = c.self;
  c.attempts = 0;
  c.deferred = false;
  c.votes.clear();
  c.refusedPreVotes.clear();
  const l: LeaderState = {
    noopIndex: c.log.last + 1,
    progress: new Map(),
    served: [],
    catchUp: new Set(),
    proposals: [],
    head: 0,
    change: null,
    transfer: null,
    reads: [],
    readRound: c.round,
    heartbeatAt: (c.now + c.config.heartbeatMs) as MonoMs,
    lastBeat: c.now,
    tellAt: NEVER,
    graceUntil: LONG_AGO,
    published: c.commit,
    publishAt: c.now,
    flushAll: true,
    flushOne: null,
  };
  c.lead = l;
  c.match.clear();
  c.logLost.clear();
  // Before the no-op is appended: every peer is first asked at the end of the old log.
  syncProgress(c, l);
  leaderAppend(c, l, [{ kind: 'noop' }]);
  // A founder's own vote stands in no entry yet: learners could not know whose majority it is that they reach, or do not.
  const [first] = c.history;
  if (c.history.length === 1 && first?.index === 0 && c.membership.voters.length === 1)
    leaderAppend(c, l, [{ kind: 'membership', membership: c.membership }]);
}

import { assertNever, type LogIndex, logIndex, type MonoMs, type NodeId, term } from '../../model/ids.ts';
import { advanceCommit, handOut, onApplied, onPropose, publish } from './commit.ts';
import {
  type ConsensusOptions,
  type Core,
  clampRank,
  computeEligible,
  createCore,
  type LeaderState,
  NEVER,
  onPersisted,
  takeEffects,
} from './core.ts';
import { onLeaderLost, onVoteReply, onVoteRequest, startPreVote, tally } from './election.ts';
import { onAppend, onSnapshotInstalled, onSnapshotOffer } from './follower.ts';
import { onCommittedEntries, onFetchDue } from './learner.ts';
import { advanceChange, membershipAt, onChangeVoters } from './membership.ts';
import { syncProgress } from './peers.ts';
import {
  expireRemoteReads,
  onReadIndex,
  onReadReply,
  onReadRequest,
  remoteReadDeadline,
  serveReads,
} from './read-index.ts';
import { flushPeer, onAppendReply, onBeat, tellCommit } from './replication.ts';
import { updatePart } from './roles.ts';
import { expireTransfer, onStepDown, onTimeoutNow, onTransfer, retire, tellTarget } from './transfer.ts';
import type { ConsensusEffect, ConsensusEvent, ConsensusView, LogEntry, Membership, RaftMessage } from './types.ts';

// Raft (Ongaro & Ousterhout 2014, "In Search of an Understandable Consensus Algorithm"; section numbers of Ongaro's thesis
// where said so) as one pure machine: events in, effects out. README.md says what departs from the paper.

/** One peer's part in the cluster's log. Deterministic: the same seed and events give the same effects. */
export interface Consensus {
  /** `now` never falls between calls. Effects are to be carried out in their order; see ConsensusEffect. */
  step(event: ConsensusEvent, now: MonoMs): ConsensusEffect[];
  /** When the next `tick` is due; undefined when nothing is timed. Changes with every step. */
  nextWake(): MonoMs | undefined;
  /** A live window on this core: read it, keep no copy of the object expecting it to stay. */
  view(): ConsensusView;
  /** Entries [from, to) as far as memory holds them; empty when `from` is compacted away. */
  entries(from: LogIndex, to: LogIndex): LogEntry[];
  /** Index of the first entry held in memory. */
  firstIndex(): number;
  /** Term of an entry held or of the snapshot's last entry. */
  termAt(index: LogIndex): number | undefined;
  /** The membership in force at an index held, or at the snapshot's. */
  membershipAt(index: LogIndex): Membership;
  /** Bully rank as 0 (lowest) to 1 (highest): who campaigns first when the leader is lost. */
  setRank(rank: number): void;
}

/** @throws Error when the restored entries do not follow the snapshot one by one: such a log must not be used. */
export function createConsensus(options: ConsensusOptions, now: MonoMs): Consensus {
  const { self, restore } = options;
  const { snapshot, entries } = restore;
  entries.forEach((entry, i) => {
    if (entry.index !== snapshot.index + 1 + i) throw new Error(`log has a gap at index ${snapshot.index + 1 + i}`);
  });
  const c = createCore(options, now);
  computeEligible(c);
  updatePart(c);
  // Nobody else could object: a sole voter leads as soon as its vote is durable.
  if (c.electors.length === 1 && c.electors[0] === self && c.electionAt !== NEVER) c.electionAt = now;
  const view = createView(c);
  return {
    step: (event, at) => {
      c.now = at;
      handle(c, event);
      settle(c);
      return takeEffects(c);
    },
    nextWake: () => nextWake(c),
    view: () => view,
    entries: (from, to) => c.log.slice(from, to),
    firstIndex: () => c.log.base + 1,
    termAt: (index) => c.log.termAt(index),
    membershipAt: (index) => membershipAt(c, index),
    setRank: (rank) => {
      c.rank = clampRank(rank);
    },
  };
}

function createView(c: Core): ConsensusView {
  return {
    get role() {
      return c.role;
    },
    get term() {
      return term(c.term);
    },
    get leader() {
      return c.leader;
    },
    get commit() {
      return logIndex(c.commit);
    },
    get applied() {
      return logIndex(c.applied);
    },
    get lastIndex() {
      return logIndex(c.log.last);
    },
    get membership() {
      return c.membership;
    },
    get mayVote() {
      return c.mayVote;
    },
    get established() {
      return c.lead !== null && c.applied >= c.lead.noopIndex;
    },
    match: c.match,
    logLost: c.logLost,
  };
}

function handle(c: Core, event: ConsensusEvent): void {
  switch (event.type) {
    case 'tick':
      onTick(c);
      return;
    case 'message':
      onMessage(c, event.from, event.message);
      return;
    case 'propose':
      onPropose(c, event);
      return;
    case 'persisted':
      onPersisted(c, event.persistId);
      tally(c);
      return;
    case 'applied':
      onApplied(c, event.index);
      return;
    case 'health':
      c.alive = new Set(event.alive);
      if (c.lead !== null) syncProgress(c, c.lead);
      return;
    case 'learners':
      c.learners = event.learners;
      c.direct = new Set(event.direct);
      if (c.lead !== null) syncProgress(c, c.lead);
      return;
    case 'change-voters':
      onChangeVoters(c, event.voters, event.proposalId);
      return;
    case 'transfer':
      onTransfer(c, event.to, false);
      return;
    case 'read-index':
      onReadIndex(c, event.id);
      return;
    case 'snapshot-installed':
      onSnapshotInstalled(c, event.index, event.term, event.membership);
      return;
    case 'committed-entries':
      onCommittedEntries(c, event);
      return;
    case 'leader-lost':
      onLeaderLost(c);
      return;
    case 'step-down':
      onStepDown(c);
      return;
    default:
      assertNever(event, 'consensus event');
      return;
  }
}

/** No honest cluster reaches these; beyond them arithmetic on terms and indices would lose exactness. */
const MAX_NUMBER = 2 ** 48;
const sane = (n: number): boolean => Number.isInteger(n) && n >= 0 && n < MAX_NUMBER;

function onMessage(c: Core, from: NodeId, m: RaftMessage): void {
  if (from === c.self || ('term' in m && !sane(m.term))) return;
  switch (m.type) {
    case 'vote-request':
      if (sane(m.lastIndex) && sane(m.lastTerm)) onVoteRequest(c, from, m);
      return;
    case 'vote-reply':
      onVoteReply(c, from, m);
      return;
    case 'append':
      if (sane(m.prevIndex) && sane(m.commit)) onAppend(c, from, m);
      return;
    case 'append-reply': {
      if (!sane(m.index) || !sane(m.round)) return;
      const p = onAppendReply(c, from, m);
      if (p !== undefined && c.lead !== null) c.lead.flushOne = p;
      return;
    }
    case 'snapshot-offer':
      if (sane(m.index) && sane(m.lastTerm)) onSnapshotOffer(c, from, m);
      return;
    case 'timeout-now':
      onTimeoutNow(c, from, m.term);
      return;
    case 'read-request':
      onReadRequest(c, from, m.id);
      return;
    case 'read-reply':
      onReadReply(c, from, m.id, m.ok, m.index);
      return;
    default:
      assertNever(m, 'raft message');
      return;
  }
}

function onTick(c: Core): void {
  if (c.lead !== null) {
    expireTransfer(c, c.lead);
    if (c.lead !== null && c.now >= c.lead.heartbeatAt) {
      onBeat(c, c.lead);
      if (c.lead !== null) tellTarget(c, c.lead);
    }
    if (c.lead !== null && c.now >= c.lead.tellAt) tellCommit(c, c.lead);
  } else if (c.now >= c.electionAt) startPreVote(c);
  onFetchDue(c);
  if (c.remoteReads.size > 0) expireRemoteReads(c);
}

/** What every step may have made possible: commits, the next part of a change, reads, sends, publishing, applying. */
function settle(c: Core): void {
  if (c.lead !== null) settleLeader(c, c.lead);
  handOut(c);
}

function settleLeader(c: Core, l: LeaderState): void {
  const advanced = advanceCommit(c, l);
  const removed = advanced && advanceChange(c, l);
  if (l.published < c.commit) publish(c, l);
  if (removed) {
    retire(c, l);
    return;
  }
  if (l.transfer !== null && (advanced || l.flushOne !== null)) tellTarget(c, l);
  serveReads(c, l);
  // After the commit, so that its index rides on what is sent.
  if (l.flushAll) for (const p of l.served) flushPeer(c, p, false);
  else if (l.flushOne?.served) flushPeer(c, l.flushOne, false);
  l.flushAll = false;
  l.flushOne = null;
}

function nextWake(c: Core): MonoMs | undefined {
  let at: number = Math.min(c.electionAt, c.fetchAt);
  const l = c.lead;
  if (l !== null) {
    at = Math.min(c.fetchAt, l.heartbeatAt, l.tellAt, l.transfer?.deadline ?? NEVER);
    if (l.published < c.commit) at = Math.min(at, l.publishAt);
  }
  const read = remoteReadDeadline(c);
  if (read !== undefined) at = Math.min(at, read);
  return at === NEVER ? undefined : (at as MonoMs);
}

import { logIndex, type NodeId, term } from '../../model/ids.ts';
import { type Core, forgetDurable, hardStatePending, note, send } from './core.ts';
import { noteGap } from './learner.ts';
import { appendEntries, noteCommittedMembership, resetHistory, truncateFrom } from './membership.ts';
import { becomeFollower, heardLeader, updatePart } from './roles.ts';
import type { LogEntry, Membership, RaftMessage } from './types.ts';

// The receiver's side of AppendEntries and InstallSnapshot (Raft 5.3, 7; Figures 2 and 13). A reply speaks only of what
// is durable when it leaves: either it waits for this step's batch, or it names no more than is durable already.

/** A snapshot asked for and not yet installed is asked for again after this long. */
const INSTALL_RETRY_MS = 5000;

type Append = Extract<RaftMessage, { type: 'append' }>;
type SnapshotOffer = Extract<RaftMessage, { type: 'snapshot-offer' }>;

/** Entries must stand one after another, with terms that never fall. */
export function wellFormed(prevIndex: number, prevTerm: number, entries: readonly LogEntry[]): boolean {
  let lastTerm = prevTerm;
  for (let i = 0; i < entries.length; i++) {
    const entry = entries[i];
    if (entry === undefined || entry.index !== prevIndex + 1 + i || entry.term < lastTerm) return false;
    lastTerm = entry.term;
  }
  return true;
}

function reply(c: Core, to: NodeId, ok: boolean, index: number, hintTerm: number, round: number): void {
  const wait = c.ops.length > 0 || hardStatePending(c);
  const message: RaftMessage = {
    type: 'append-reply',
    term: term(c.term),
    ok,
    index: logIndex(ok && c.ops.length === 0 ? Math.min(index, c.durable) : index),
    hintTerm: term(hintTerm),
    round,
    applied: logIndex(c.applied),
    mayVote: c.mayVote,
  };
  send(c, to, message, wait);
}

/** True when `from` leads the term of its message, which is then followed. */
function follow(c: Core, from: NodeId, messageTerm: number, round: number): boolean {
  if (messageTerm < c.term) {
    // A deposed leader, or one this peer's higher term shuts out: it learns of the term and steps down.
    reply(c, from, false, c.log.last, 0, round);
    return false;
  }
  if (messageTerm === c.term && c.role === 'leader') return false;
  const same = messageTerm === c.term && c.leader === from && (c.role === 'follower' || c.role === 'learner');
  if (same) heardLeader(c);
  else becomeFollower(c, messageTerm, from);
  return true;
}

export function onAppend(c: Core, from: NodeId, m: Append): void {
  if (m.term >= c.term && (!wellFormed(m.prevIndex, m.prevTerm, m.entries) || (m.entries.at(-1)?.term ?? 0) > m.term))
    return;
  if (!follow(c, from, m.term, m.round)) return;
  c.asLearner = m.learner;
  const end = m.prevIndex + m.entries.length;
  // Up to its commit index a log equals every later leader's (leader completeness): nothing to compare, nothing to take.
  if (end <= c.commit) {
    reply(c, from, true, c.commit, 0, m.round);
  } else if (m.prevIndex > c.commit && c.log.termAt(m.prevIndex) !== m.prevTerm) {
    const hint = Math.max(c.commit, c.log.lastAtOrBelow(m.prevIndex - 1, m.prevTerm));
    reply(c, from, false, hint, c.log.termAt(hint) ?? 0, m.round);
    if (m.learner) noteGap(c, m.commit);
    readmit(c, m.learner);
    return;
  } else {
    if (!takeEntries(c, m.entries)) return;
    commitTo(c, Math.min(m.commit, end));
    readmit(c, m.learner);
    reply(c, from, true, end, 0, m.round);
    return;
  }
  readmit(c, m.learner);
}

/** Figure 2, AppendEntries 3 and 4: on the first conflict the rest of the log goes; what is new is appended. */
export function takeEntries(c: Core, entries: readonly LogEntry[]): boolean {
  let i = 0;
  while (i < entries.length) {
    const entry = entries[i] as LogEntry;
    if (entry.index > c.commit && c.log.termAt(entry.index) !== entry.term) break;
    i++;
  }
  if (i === entries.length) return true;
  const first = (entries[i] as LogEntry).index;
  if (first <= c.log.last && !truncateFrom(c, first)) return false;
  appendEntries(c, i === 0 ? entries : entries.slice(i));
  return true;
}

export function commitTo(c: Core, index: number): void {
  if (index <= c.commit) return;
  c.commit = index;
  noteCommittedMembership(c);
}

/**
 * A peer whose log was lost may have voted in terms it has forgotten. It votes again only when the leader has treated it
 * as a learner since it came back, and then as a voter, by a committed change it has received.
 */
function readmit(c: Core, learner: boolean): void {
  if (c.mayVote) return;
  if (learner) c.leftVoters = true;
  else if (c.leftVoters && c.electors.includes(c.self)) {
    c.mayVote = true;
    c.readmitted = true;
    c.hardDirty = true;
    updatePart(c);
  }
}

export function onSnapshotOffer(c: Core, from: NodeId, m: SnapshotOffer): void {
  if (m.lastTerm > m.term || !follow(c, from, m.term, 0)) return;
  if (m.index <= c.commit) {
    reply(c, from, true, c.commit, 0, 0);
    return;
  }
  const busy = c.installing !== null && c.now - c.installing.at < INSTALL_RETRY_MS;
  if (busy) return;
  c.installing = { index: m.index, at: c.now };
  note(c, { type: 'install-snapshot', from, index: m.index, term: m.lastTerm, membership: m.membership });
}

/** The state store now stands at `index`. A log that agrees there keeps its rest (Figure 13, rule 6); another one goes. */
export function onSnapshotInstalled(c: Core, index: number, snapshotTerm: number, membership: Membership): void {
  c.installing = null;
  if (c.role === 'leader' || index <= c.commit || index < c.handed) return;
  const joins = c.log.termAt(index) === snapshotTerm;
  if (joins) c.log.compact(index);
  else {
    if (c.log.last > c.log.base) c.ops.push({ type: 'truncate', from: logIndex(c.log.base + 1) });
    forgetDurable(c, index);
    c.log.reset(index, snapshotTerm);
  }
  c.ops.push({ type: 'compact', upTo: logIndex(index), term: term(snapshotTerm), membership });
  c.durable = Math.max(c.durable, index);
  c.commit = index;
  c.applied = Math.max(c.applied, index);
  c.handed = index;
  resetHistory(c, index, membership);
  c.memberCommitted = index;
  note(c, { type: 'membership', membership: c.membership, committed: c.history.length === 1 });
  if (c.leader !== null) reply(c, c.leader, true, index, 0, 0);
}

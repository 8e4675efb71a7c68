import type { NodeId } from '../../model/ids.ts';
import { logIndex, term } from '../../model/ids.ts';
import {
  type Core,
  computeEligible,
  electorsOf,
  type LeaderState,
  note,
  persistAppend,
  persistTruncate,
} from './core.ts';
import { copiesOf, syncProgress } from './peers.ts';
import { updatePart, verdict } from './roles.ts';
import type { LogEntry, Membership } from './types.ts';

// Joint consensus (thesis 4.3): a change appends {voters: new, outgoing: old}; once that is committed, {voters: new}. An
// entry holds from the moment it is in the log, committed or not (4.1), and ceases to when it is truncated.

/** A learner may become a voter when it is at most this many entries behind (thesis 4.2.1, simplified). */
export const CATCH_UP_ENTRIES = 1000;
/** More voters than this only slow every commit down. */
const MAX_VOTERS = 9;

/** Every append to the log goes through here, so that membership follows the log. */
export function appendEntries(c: Core, entries: readonly LogEntry[]): void {
  persistAppend(c, entries);
  for (const entry of entries) {
    if (entry.payload.kind !== 'membership') continue;
    c.history.push({ index: entry.index, membership: entry.payload.membership });
    adopt(c);
  }
}

/** Drops a conflicting suffix; false (and nothing done) when that would drop committed entries. */
export function truncateFrom(c: Core, from: number): boolean {
  if (from <= c.commit) return false;
  persistTruncate(c, from);
  let changed = false;
  while (c.history.length > 1 && (c.history[c.history.length - 1] as { index: number }).index >= from) {
    c.history.pop();
    changed = true;
  }
  if (changed) adopt(c);
  return true;
}

/** The membership in force at an index held (or at the snapshot's). */
export function membershipAt(c: Core, index: number): Membership {
  for (let i = c.history.length - 1; i > 0; i--) {
    const item = c.history[i];
    if (item !== undefined && item.index <= index) return item.membership;
  }
  return (c.history[0] as { membership: Membership }).membership;
}

export function compactHistory(c: Core, upTo: number): void {
  while (c.history.length > 1 && (c.history[1] as { index: number }).index <= upTo) c.history.shift();
}

export function resetHistory(c: Core, index: number, membership: Membership): void {
  const later = c.history.filter((h) => h.index > index && h.index <= c.log.last);
  c.history.length = 0;
  c.history.push({ index, membership }, ...later);
  adopt(c);
}

function adopt(c: Core): void {
  c.membership = (c.history[c.history.length - 1] as { membership: Membership }).membership;
  c.electors = electorsOf(c.membership);
  computeEligible(c);
  note(c, { type: 'membership', membership: c.membership, committed: false });
  updatePart(c);
  if (c.lead !== null) syncProgress(c, c.lead);
}

const currentIndex = (c: Core): number => (c.history[c.history.length - 1] as { index: number }).index;

/** Tells of a membership entry newly committed. */
export function noteCommittedMembership(c: Core): void {
  if (c.memberCommitted >= c.commit) return;
  const from = c.memberCommitted;
  c.memberCommitted = c.commit;
  for (let i = c.history.length - 1; i >= 0; i--) {
    const item = c.history[i];
    if (item === undefined || item.index <= from) return;
    if (item.index <= c.commit) {
      computeEligible(c);
      updatePart(c);
      note(c, { type: 'membership', membership: item.membership, committed: true });
      return;
    }
  }
}

export function leaderAppend(c: Core, l: LeaderState, payloads: readonly LogEntry['payload'][]): void {
  const first = c.log.last + 1;
  appendEntries(
    c,
    payloads.map((payload, i) => ({ index: logIndex(first + i), term: term(c.term), payload })),
  );
  l.flushAll = true;
}

export function onChangeVoters(c: Core, voters: readonly NodeId[], proposalId: number): void {
  const l = c.lead;
  if (l === null) {
    note(c, verdict(proposalId, 'not-leader'));
    return;
  }
  const next = [...new Set(voters)];
  const current = c.membership.voters;
  if (!mayChange(c, l, next)) note(c, verdict(proposalId, 'changing'));
  else if (next.length === current.length && next.every((id) => current.includes(id))) {
    const result = { ok: true, index: logIndex(currentIndex(c)), copies: copiesOf(c, l, currentIndex(c)) } as const;
    note(c, { type: 'proposal', proposalId, result });
  } else {
    l.change = { proposalId };
    leaderAppend(c, l, [{ kind: 'membership', membership: { voters: next, outgoing: current } }]);
  }
}

/** One change at a time, none before the term's no-op is committed, and only to peers whose log is nearly whole. */
function mayChange(c: Core, l: LeaderState, next: readonly NodeId[]): boolean {
  const settled = c.membership.outgoing === null && currentIndex(c) <= c.commit && c.commit >= l.noopIndex;
  if (!settled || l.transfer !== null || l.change !== null) return false;
  if (next.length === 0 || next.length > MAX_VOTERS) return false;
  return next.every((id) => {
    if (id === c.self || c.membership.voters.includes(id)) return true;
    const p = l.progress.get(id);
    return p !== undefined && p.match + CATCH_UP_ENTRIES >= c.log.last;
  });
}

/**
 * After a commit: the joint membership is followed by the final one (also one begun by an earlier leader). Returns true
 * when the final one is committed and this leader is not in it: it must go.
 */
export function advanceChange(c: Core, l: LeaderState): boolean {
  const index = currentIndex(c);
  if (index > c.commit || c.commit < l.noopIndex) return false;
  if (c.membership.outgoing !== null) {
    keepAsLearners(c, c.membership);
    leaderAppend(c, l, [{ kind: 'membership', membership: { voters: c.membership.voters, outgoing: null } }]);
    return false;
  }
  if (l.change !== null) {
    const result = { ok: true, index: logIndex(index), copies: copiesOf(c, l, index) } as const;
    note(c, { type: 'proposal', proposalId: l.change.proposalId, result });
    l.change = null;
  }
  return !c.membership.voters.includes(c.self);
}

/** Voters on their way out still have to hear of the final membership: they count as learners until the list is given anew. */
function keepAsLearners(c: Core, m: Membership): void {
  const leaving = (m.outgoing ?? []).filter((id) => !m.voters.includes(id) && !c.learners.includes(id));
  if (leaving.length > 0) {
    c.learners = [...c.learners, ...leaving];
    c.direct = new Set([...c.direct, ...leaving]);
  }
}

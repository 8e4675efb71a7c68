import { logIndex, type MonoMs, term } from '../../model/ids.ts';
import { LIMITS } from '../../model/limits.ts';
import { type Core, type LeaderState, note } from './core.ts';
import { entryBytes } from './log.ts';
import { compactHistory, leaderAppend, membershipAt, noteCommittedMembership } from './membership.ts';
import { copiesOf, secondAlive, secondCopy } from './peers.ts';
import { quorumValue } from './progress.ts';
import { verdict } from './roles.ts';
import type { ConsensusEvent, LogEntry } from './types.ts';

// Proposals and commit on the leader (Raft 5.3, 5.4.2), handing entries out, publishing them to the learners, compaction.

/** Entries on the log topic: at most ten messages a second, and no more than fits a gossip frame with its signature. */
const PUBLISH_EVERY_MS = 100;
const PUBLISH_BYTES = LIMITS.gossipFrameBytes - 8 * 1024;
/** The state machine may be this many entries behind before proposals are refused. */
const MAX_UNAPPLIED = 4 * LIMITS.proposalsInFlight;
const ANSWERED_KEPT = 1024;

type Propose = Extract<ConsensusEvent, { type: 'propose' }>;

export function onPropose(c: Core, m: Propose): void {
  const l = c.lead;
  const refused = l === null ? 'not-leader' : l.transfer !== null ? 'changing' : null;
  if (l === null || refused !== null) {
    for (const p of m.proposals) note(c, verdict(p.proposalId, refused ?? 'not-leader'));
    return;
  }
  let room = c.config.maxProposals - (l.proposals.length - l.head);
  if (c.log.last - c.applied >= MAX_UNAPPLIED) room = 0;
  const payloads: LogEntry['payload'][] = [];
  let index = c.log.last;
  for (const p of m.proposals) {
    if (payloads.length >= room) {
      note(c, verdict(p.proposalId, 'busy'));
      continue;
    }
    l.proposals.push({ index: ++index, proposalId: p.proposalId });
    payloads.push({ kind: 'command', bytes: p.bytes });
  }
  if (payloads.length > 0) leaderAppend(c, l, payloads);
}

/**
 * Raft's rule (a majority of voters has it durable, and it is of this term: 5.4.2, Figure 8) and one more: while another
 * machine is alive, it stands on two. The second rule only withholds commits that Raft would allow, so it is safe.
 */
export function advanceCommit(c: Core, l: LeaderState): boolean {
  let index = quorumValue(c.membership, (id) => {
    if (id === c.self) return c.durable;
    const p = l.progress.get(id);
    return p?.mayVote ? p.match : 0;
  });
  if (index <= c.commit) return false;
  if (c.electors.length < 3 && secondAlive(c, l)) index = Math.min(index, secondCopy(c, l));
  if (index <= c.commit || c.log.termAt(index) !== c.term) return false;
  c.commit = index;
  l.flushAll = true;
  noteCommittedMembership(c);
  answer(c, l);
  return true;
}

function answer(c: Core, l: LeaderState): void {
  for (let p = l.proposals[l.head]; p !== undefined && p.index <= c.commit; p = l.proposals[l.head]) {
    const result = { ok: true, index: logIndex(p.index), copies: copiesOf(c, l, p.index) } as const;
    note(c, { type: 'proposal', proposalId: p.proposalId, result });
    l.head++;
  }
  if (l.head > ANSWERED_KEPT || l.head === l.proposals.length) {
    l.proposals.splice(0, l.head);
    l.head = 0;
  }
}

/**
 * Gives the state machine what is committed, once and in order. Only what is durable here: so the applied index on disk
 * never passes the log on disk, even where others made the majority first.
 */
export function handOut(c: Core): void {
  const to = Math.min(c.commit, c.durable);
  if (to <= c.handed) return;
  const entries = c.log.slice(c.handed + 1, to + 1);
  c.handed = to;
  note(c, { type: 'committed', entries });
}

/** `published` moves with it even when nobody listens, so that a learner that comes later starts at the present. */
export function publish(c: Core, l: LeaderState): void {
  if (l.published >= c.commit || c.now < l.publishAt) return;
  const from = l.published;
  l.published = c.commit;
  l.publishAt = (c.now + PUBLISH_EVERY_MS) as MonoMs;
  if (l.served.length === l.progress.size) return;
  const whole = fits(c, from);
  const prev = whole ? from : c.commit;
  const prevTerm = c.log.termAt(prev);
  if (prevTerm === undefined) return;
  note(c, {
    type: 'publish-committed',
    prevIndex: logIndex(prev),
    prevTerm: term(prevTerm),
    entries: whole ? c.log.slice(from + 1, c.commit + 1) : [],
    commit: logIndex(c.commit),
  });
}

/** Where a batch is too large for gossip only its end is named; learners fetch the rest from each other. */
function fits(c: Core, from: number): boolean {
  if (from < c.log.base || c.commit - from > c.config.maxAppendEntries) return false;
  let bytes = 0;
  for (let index = from + 1; index <= c.commit; index++) {
    const entry = c.log.at(index);
    bytes += entry === undefined ? 0 : entryBytes(entry);
    if (bytes > PUBLISH_BYTES) return false;
  }
  return true;
}

/** The state machine has durably applied up to `index`: the log before it, less what laggards may want, can go. */
export function onApplied(c: Core, index: number): void {
  if (index > c.handed || index <= c.applied) return;
  c.applied = index;
  const keep = c.config.logRetained;
  if (index - c.log.base <= keep * 1.25) return;
  const upTo = index - keep;
  const compactTerm = c.log.termAt(upTo);
  if (compactTerm === undefined) return;
  const membership = membershipAt(c, upTo);
  c.log.compact(upTo);
  compactHistory(c, upTo);
  c.ops.push({ type: 'compact', upTo: logIndex(upTo), term: term(compactTerm), membership });
}

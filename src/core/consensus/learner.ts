import { logIndex, type MonoMs } from '../../model/ids.ts';
import { type Core, NEVER, note } from './core.ts';
import { commitTo, takeEntries, wellFormed } from './follower.ts';
import { becomeFollower } from './roles.ts';
import type { ConsensusEvent } from './types.ts';

// Learners (thesis 4.2.1) that follow the log topic: committed entries arrive by gossip, in any order, some not at all.
// They are taken only where they join on; a gap is filled from any neighbour, so the leader's fan-out does not grow. A
// peer whose old log still calls it a voter is a learner as soon as the leader treats it as one.

/** A gap is given this long to close by itself (messages overtake each other; a direct append may be on its way). */
const FETCH_PATIENCE_MS = 150;
const FETCH_RETRY_MS = 500;

type CommittedEntries = Extract<ConsensusEvent, { type: 'committed-entries' }>;

const follows = (c: Core): boolean => c.role === 'learner' || (c.asLearner && c.role !== 'leader');

/** Somebody's commit index is ahead of what this learner holds. */
export function noteGap(c: Core, commit: number): void {
  if (commit > c.knownCommit) c.knownCommit = commit;
  if (follows(c) && c.knownCommit > c.commit && c.fetchAt === NEVER) c.fetchAt = (c.now + FETCH_PATIENCE_MS) as MonoMs;
}

export function onFetchDue(c: Core): void {
  if (c.now < c.fetchAt) return;
  c.fetchAt = NEVER;
  if (!follows(c) || c.knownCommit <= c.commit || c.installing !== null) return;
  c.fetchedTo = Math.min(c.knownCommit, c.commit + c.config.maxAppendEntries);
  c.fetchAt = (c.now + FETCH_RETRY_MS) as MonoMs;
  note(c, { type: 'fetch-entries', from: logIndex(c.commit + 1), to: logIndex(c.fetchedTo + 1) });
}

export function onCommittedEntries(c: Core, m: CommittedEntries): void {
  if (!follows(c) || !wellFormed(m.prevIndex, m.prevTerm, m.entries)) return;
  const end = m.prevIndex + m.entries.length;
  const joins = m.prevIndex <= c.commit || c.log.termAt(m.prevIndex) === m.prevTerm;
  if (!joins) {
    noteGap(c, m.commit);
    return;
  }
  // A committed entry proves that its term had a leader: no vote of an older term may follow.
  const newest = m.entries.at(-1)?.term ?? m.prevTerm;
  if (newest > c.term) becomeFollower(c, newest, null);
  if (end > c.commit) {
    if (!takeEntries(c, m.entries)) return;
    commitTo(c, Math.min(m.commit, end));
  }
  if (c.commit >= c.knownCommit) c.fetchAt = NEVER;
  else if (c.fetchedTo > 0 && c.commit >= c.fetchedTo) {
    c.fetchedTo = 0;
    c.fetchAt = c.now;
    onFetchDue(c);
  }
  noteGap(c, m.commit);
}

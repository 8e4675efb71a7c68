import { logIndex, type MonoMs, type NodeId } from '../../model/ids.ts';
import { type Core, isElector, NEVER, note, send } from './core.ts';

// Changes of role and term (Raft 5.1, 5.2; Figure 4), and what is given up with them.

/** Full election timeout from now: a leader was heard, or a vote given. Peers without a vote have none. */
export function resetElection(c: Core): void {
  if (!isElector(c)) {
    c.electionAt = NEVER;
    return;
  }
  const { electionTimeoutMinMs: min, electionTimeoutMaxMs: max } = c.config;
  c.electionAt = (c.now + min + c.rng.next() * (max - min)) as MonoMs;
}

/** A campaign's own patience, and that of a peer that stands back for another: a quarter to half the least timeout. */
export function resetCampaign(c: Core): void {
  const min = c.config.electionTimeoutMinMs;
  c.electionAt = isElector(c) ? ((c.now + min * (0.25 + c.rng.next() * 0.25)) as MonoMs) : NEVER;
}

/** Whether a live leader is known: then pre-votes and votes are refused (thesis 4.2.3, 9.6; CheckQuorum's other half). */
export function hearsLeader(c: Core): boolean {
  if (c.role === 'leader') return true;
  return c.leader !== null && c.now - c.lastHeard < c.config.electionTimeoutMinMs;
}

export function setTerm(c: Core, term: number): void {
  if (term <= c.term) return;
  c.term = term;
  c.votedFor = null;
  c.hardDirty = true;
}

/** Steps back to follower (or learner) of `term`, which is not below the present one. */
export function becomeFollower(c: Core, term: number, leader: NodeId | null): void {
  const wasLeader = c.lead !== null;
  if (wasLeader) resign(c);
  const restart = term > c.term || (c.role !== 'follower' && c.role !== 'learner') || leader !== c.leader;
  setTerm(c, term);
  c.role = isElector(c) ? 'follower' : 'learner';
  if (leader !== c.leader) {
    failRemoteReads(c);
    c.leader = leader;
  }
  c.votes.clear();
  if (leader !== null) heardLeader(c);
  else if (restart) resetElection(c);
}

/** The live leader of this term was heard. */
export function heardLeader(c: Core): void {
  c.lastHeard = c.now;
  c.attempts = 0;
  c.deferred = false;
  if (c.refusedPreVotes.size > 0) c.refusedPreVotes.clear();
  resetElection(c);
}

/** The part of a follower or of a learner, as the newest membership has it. A leader stays until its removal is committed. */
export function updatePart(c: Core): void {
  if (c.role === 'leader') return;
  if (!isElector(c)) {
    c.role = 'learner';
    c.electionAt = NEVER;
  } else if (c.role === 'learner') {
    c.role = 'follower';
    resetElection(c);
  }
}

/** What a leader owes others when it stops leading: its proposals' outcome is unknown from here, its reads are not served. */
function resign(c: Core): void {
  const l = c.lead;
  if (l === null) return;
  for (let i = l.head; i < l.proposals.length; i++) {
    const p = l.proposals[i];
    if (p !== undefined) note(c, verdict(p.proposalId, 'superseded'));
  }
  if (l.change !== null) note(c, verdict(l.change.proposalId, 'superseded'));
  for (const read of l.reads) {
    if (read.from === null) note(c, { type: 'read-ready', id: read.id, ok: false, index: logIndex(0) });
    else send(c, read.from, { type: 'read-reply', id: read.id, index: logIndex(0), ok: false }, false);
  }
  c.lead = null;
  c.match.clear();
  c.logLost.clear();
}

export function failRemoteReads(c: Core): void {
  for (const id of c.remoteReads.keys()) note(c, { type: 'read-ready', id, ok: false, index: logIndex(0) });
  c.remoteReads.clear();
}

export function verdict(proposalId: number, reason: 'not-leader' | 'busy' | 'superseded' | 'changing') {
  return { type: 'proposal', proposalId, result: { ok: false, reason } } as const;
}

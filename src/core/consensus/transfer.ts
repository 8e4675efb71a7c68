import { type MonoMs, type NodeId, term } from '../../model/ids.ts';
import { type Core, isElector, type LeaderState, send } from './core.ts';
import { startElection } from './election.ts';
import type { Progress } from './progress.ts';
import { flushPeer } from './replication.ts';
import { becomeFollower } from './roles.ts';

// Leadership transfer (thesis 3.10): stop taking proposals, bring the target up to date, tell it to campaign at once. It
// waits for the commit of what was proposed too, so that a planned hand-over leaves no proposal in doubt.

export function onTransfer(c: Core, to: NodeId, stepDown: boolean): void {
  const l = c.lead;
  const p = l?.progress.get(to);
  if (l === null || p === undefined || !p.mayVote || !c.membership.voters.includes(to)) return;
  if (l.transfer !== null && !stepDown) return;
  const deadline = (c.now + c.config.transferTimeoutMs) as MonoMs;
  l.transfer = { to, deadline, stepDown };
  tellTarget(c, l);
}

/** Repeated on acknowledgements and heartbeats until the target's election ends this leadership, or the time is up. */
export function tellTarget(c: Core, l: LeaderState): void {
  if (l.transfer === null) return;
  const p = l.progress.get(l.transfer.to);
  if (p !== undefined && p.match === c.log.last && c.commit === c.log.last)
    send(c, p.id, { type: 'timeout-now', term: term(c.term) }, false);
}

export function expireTransfer(c: Core, l: LeaderState): void {
  if (l.transfer === null || c.now < l.transfer.deadline) return;
  const stepDown = l.transfer.stepDown;
  l.transfer = null;
  if (stepDown) becomeFollower(c, c.term, null);
}

export function onTimeoutNow(c: Core, from: NodeId, messageTerm: number): void {
  if (messageTerm !== c.term || c.leader !== from || c.role !== 'follower' || !isElector(c)) return;
  startElection(c, true);
}

/** This machine stalls: hand over to the most caught-up voter. A sole voter has nobody to hand over to and goes on. */
export function onStepDown(c: Core): void {
  const l = c.lead;
  if (l === null || l.transfer?.stepDown) return;
  const heir = mostCaughtUp(c, l);
  if (heir !== undefined) {
    onTransfer(c, heir.id, true);
    return;
  }
  if (c.membership.voters.some((id) => id !== c.self)) becomeFollower(c, c.term, null);
}

function mostCaughtUp(c: Core, l: LeaderState): Progress | undefined {
  let best: Progress | undefined;
  for (const id of c.membership.voters) {
    const p = l.progress.get(id);
    if (p === undefined || !p.mayVote) continue;
    if (best === undefined || standing(c, p) > standing(c, best)) best = p;
  }
  return best;
}

/** Peers that are heard come before those that are not. */
const standing = (c: Core, p: Progress): number =>
  p.match + (c.now - p.lastHeard < c.config.electionTimeoutMinMs ? Number.MAX_SAFE_INTEGER / 2 : 0);

/** Its removal is committed (thesis 4.2.2): the others are told so, the best of them to take over, and it leads no more. */
export function retire(c: Core, l: LeaderState): void {
  for (const p of l.served) flushPeer(c, p, true);
  const heir = mostCaughtUp(c, l);
  if (heir !== undefined) send(c, heir.id, { type: 'timeout-now', term: term(c.term) }, false);
  becomeFollower(c, c.term, null);
}

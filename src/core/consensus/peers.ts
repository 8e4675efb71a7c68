import type { NodeId } from '../../model/ids.ts';
import type { Core, LeaderState } from './core.ts';
import { createProgress, type Progress, toProbe } from './progress.ts';

// Whom a leader keeps track of, and whom it sends appends: every voter (of both sets), the first few learners that are
// alive (so that a second machine is always among them), and those named `direct`. The others follow the log topic.

export function syncProgress(c: Core, l: LeaderState): void {
  const known = new Set<NodeId>(c.electors);
  for (const id of c.learners) known.add(id);
  known.delete(c.self);
  for (const id of l.progress.keys()) {
    if (known.has(id)) continue;
    l.progress.delete(id);
    c.match.delete(id);
    c.logLost.delete(id);
  }
  for (const id of l.catchUp) if (!known.has(id)) l.catchUp.delete(id);
  const served = servedSet(c, l);
  l.served = [];
  for (const id of known) {
    let p = l.progress.get(id);
    if (p === undefined) {
      p = createProgress(id, c.log.last + 1, c.round, c.now);
      l.progress.set(id, p);
    }
    const now = served.has(id);
    if (now && !p.served && p.state !== 'snapshot') toProbe(p, p.match > 0 ? p.match + 1 : c.log.last + 1, c.round);
    p.served = now;
    if (now) l.served.push(p);
  }
  l.flushAll = true;
}

function servedSet(c: Core, l: LeaderState): Set<NodeId> {
  const served = new Set<NodeId>(c.electors);
  const learners = c.learners.filter((id) => !served.has(id) && id !== c.self);
  const inOrder = [...learners.filter((id) => c.alive.has(id)), ...learners.filter((id) => !c.alive.has(id))];
  for (const id of inOrder.slice(0, c.config.directLearners)) served.add(id);
  for (const id of learners) if (c.direct.has(id) || l.catchUp.has(id)) served.add(id);
  return served;
}

/** Index that stands durable on at least two machines, learners included. */
export function secondCopy(c: Core, l: LeaderState): number {
  let first = c.durable;
  let second = 0;
  for (const p of l.served) {
    if (p.match > first) {
      second = first;
      first = p.match;
    } else if (p.match > second) second = p.match;
  }
  return second;
}

/** A machine that could hold the second copy is alive; one that is fetching a snapshot cannot yet, so it is not waited for. */
export function secondAlive(c: Core, l: LeaderState): boolean {
  return l.served.some((p: Progress) => p.state !== 'snapshot' && c.alive.has(p.id));
}

export function copiesOf(c: Core, l: LeaderState, index: number): number {
  let n = c.durable >= index ? 1 : 0;
  for (const p of l.served) if (p.match >= index) n++;
  return n;
}

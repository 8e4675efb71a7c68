import { logIndex, type MonoMs, type NodeId } from '../../model/ids.ts';
import { LIMITS } from '../../model/limits.ts';
import { type Core, type LeaderState, note, send } from './core.ts';
import { quorumValue } from './progress.ts';
import { beatAll } from './replication.ts';

// ReadIndex (thesis 6.4): the commit index at the request, confirmed by a majority answering a message begun after it.
// One round of heartbeats serves every read asked before it; under load ordinary appends serve as rounds.

const MAX_READS = LIMITS.proposalsInFlight;

function refuse(c: Core, id: number, from: NodeId | null): void {
  if (from === null) note(c, { type: 'read-ready', id, ok: false, index: logIndex(0) });
  else send(c, from, { type: 'read-reply', id, index: logIndex(0), ok: false }, false);
}

export function onReadIndex(c: Core, id: number): void {
  if (c.lead !== null) {
    addRead(c, c.lead, id, null);
    return;
  }
  const leader = c.leader;
  if (leader === null || c.remoteReads.size >= MAX_READS) {
    refuse(c, id, null);
    return;
  }
  c.remoteReads.set(id, { to: leader, deadline: (c.now + c.config.electionTimeoutMaxMs) as MonoMs });
  send(c, leader, { type: 'read-request', id }, false);
}

export function onReadRequest(c: Core, from: NodeId, id: number): void {
  if (c.lead === null) refuse(c, id, from);
  else addRead(c, c.lead, id, from);
}

function addRead(c: Core, l: LeaderState, id: number, from: NodeId | null): void {
  if (l.reads.length >= MAX_READS) {
    refuse(c, id, from);
    return;
  }
  l.reads.push({ id, from, round: c.round, index: c.commit >= l.noopIndex ? c.commit : -1 });
}

export function onReadReply(c: Core, from: NodeId, id: number, ok: boolean, index: number): void {
  const asked = c.remoteReads.get(id);
  if (asked === undefined || asked.to !== from) return;
  c.remoteReads.delete(id);
  note(c, { type: 'read-ready', id, ok, index: logIndex(ok ? index : 0) });
}

/** Leader, at the end of a step: answers what is confirmed, begins a round when something waits and none is on its way. */
export function serveReads(c: Core, l: LeaderState): void {
  if (l.reads.length === 0 || c.commit < l.noopIndex) return;
  const acked = quorumValue(c.membership, (id) => {
    if (id === c.self) return Number.POSITIVE_INFINITY;
    const p = l.progress.get(id);
    return p?.mayVote ? p.ackedRound : 0;
  });
  let n = 0;
  for (const read of l.reads) {
    if (read.index < 0) read.index = c.commit;
    if (read.round >= acked) break;
    n++;
    if (read.from === null) note(c, { type: 'read-ready', id: read.id, ok: true, index: logIndex(read.index) });
    else send(c, read.from, { type: 'read-reply', id: read.id, index: logIndex(read.index), ok: true }, false);
  }
  if (n > 0) l.reads.splice(0, n);
  if (l.reads.length > 0 && acked > l.readRound) {
    l.readRound = c.round;
    beatAll(c, l);
  }
}

/** Earliest deadline of the reads asked of a leader (the oldest: they are asked in order, with one patience). */
export function remoteReadDeadline(c: Core): MonoMs | undefined {
  for (const read of c.remoteReads.values()) return read.deadline;
  return undefined;
}

export function expireRemoteReads(c: Core): void {
  for (const [id, read] of c.remoteReads) {
    if (read.deadline > c.now) return;
    c.remoteReads.delete(id);
    refuse(c, id, null);
  }
}

import { type Incarnation, incarnation as incarnationOf, type NodeId } from '../../model/ids.ts';
import {
  ackTimeoutMs,
  type Context,
  healthy,
  type Member,
  meet,
  newMember,
  RETURN_GRACE_MS,
  send,
  setHealth,
  setStatus,
  settled,
  vouched,
} from './context.ts';
import { agreement, ownEvidence } from './evidence.ts';
import { answerWaiters, inquire, refreshAccusers, setClaim, showClaims } from './inquiry.ts';
import { watchedBy } from './monitors.ts';
import { announce, selfUpdate, updatesOf } from './spread.ts';
import { type Verdict, verdictOn } from './suspicion.ts';
import type { MembershipEvent, MemberUpdate } from './types.ts';

// What others say (SWIM sections 4.1 and 4.2). A higher incarnation beats everything; at the same incarnation
// alive < suspect, agent-down < dead < left. Departures: word of a silent or dead member does not outweigh its voice heard
// here within the ack timeout (it is told instead, and refutes), and starts our own inquiry at once.

export function takeUpdates(ctx: Context, from: NodeId, updates: readonly MemberUpdate[]): void {
  for (const u of updates) {
    if (u.id === ctx.self) aboutSelf(ctx, u);
    else {
      const m = ctx.members.get(u.id);
      if (m === undefined) ctx.ignored++;
      else take(ctx, m, from, u);
    }
  }
}

function aboutSelf(ctx: Context, u: MemberUpdate): void {
  if (u.incarnation < ctx.incarnation || (u.status === 'alive' && u.incarnation === ctx.incarnation)) return;
  ctx.incarnation = incarnationOf(u.incarnation + 1);
  ctx.out.push({ type: 'incarnation', incarnation: ctx.incarnation });
  setHealth(ctx, ctx.health + 1);
  announce(ctx, ctx.self, [selfUpdate(ctx, 'alive')]);
}

function take(ctx: Context, m: Member, from: NodeId, u: MemberUpdate): void {
  if (u.incarnation < m.view.incarnation) return;
  const news = u.incarnation > m.view.incarnation || !m.known;
  meet(ctx, m, `named by ${from}`);
  if (u.status === 'alive') {
    if (news) risen(ctx, m, u.incarnation, from);
    return;
  }
  if (u.incarnation > m.view.incarnation) forgetClaims(m, ctx, u.incarnation);
  else if (settled(m.view.status)) {
    if (m.view.status === 'dead' && u.status === 'left') over(ctx, m, 'left', [`left, said by ${from}`]);
    return;
  }
  switch (u.status) {
    case 'left':
      over(ctx, m, 'left', [`left, said by ${from}`]);
      break;
    case 'dead':
      saidDead(ctx, m, from, u);
      break;
    case 'suspect':
    case 'agent-down':
      saidSilent(ctx, m, from, u, u.status);
  }
}

/** A member's own word, by whatever way, that it lives at this incarnation. */
export function risen(ctx: Context, m: Member, incarnation: Incarnation, from: NodeId): void {
  const settledBefore = settled(m.view.status);
  if (incarnation > m.view.incarnation) forgetClaims(m, ctx, incarnation);
  if (m.view.status !== 'alive') {
    if (!m.view.connected) m.view.hint = 'none';
    const grace = m.view.connected ? 0 : settledBefore ? RETURN_GRACE_MS : ctx.config.ackTimeoutMs;
    m.nextProbeAt = ctx.now + Math.max(ctx.probeIntervalMs, grace);
    m.pingDeadline = undefined;
  }
  setStatus(ctx, m, 'alive', [`incarnation ${incarnation}, said by ${from === m.id ? 'itself' : from}`]);
  ctx.spread.add(m.id);
}

/** A new incarnation: what was claimed of the old one is void, and an inquiry that led to a claim begins anew. */
function forgetClaims(m: Member, ctx: Context, incarnation: Incarnation): void {
  m.view.incarnation = incarnation;
  m.claims.clear();
  m.view.accusers = [];
  m.deathAt = undefined;
  if (!ctx.accused.delete(m)) return;
  m.check = undefined;
  m.nextProbeAt = ctx.now + ctx.probeIntervalMs;
}

function saidSilent(ctx: Context, m: Member, from: NodeId, u: MemberUpdate, kind: 'suspect' | 'agent-down'): void {
  let news = false;
  const accusers = u.accusers.length > 0 ? u.accusers : [from];
  for (const who of accusers) {
    if (who === ctx.self || who === m.id || !ctx.members.has(who)) continue;
    const old = m.claims.get(who);
    // Only the accuser itself repeats or changes its claim; a relayed one may be older than what we have.
    if (old !== undefined && who !== from) continue;
    if (old?.kind !== kind) news = true;
    setClaim(ctx, m, who, kind);
  }
  if (!news) return;
  ctx.spread.add(m.id);
  if (healthy(ctx, m)) return;
  if (!vouched(ctx, m, from)) showClaims(ctx, m, () => [`said by ${from}: ${kind}`]);
  if (m.monitored) inquire(ctx, m);
}

function saidDead(ctx: Context, m: Member, from: NodeId, u: MemberUpdate): void {
  const own = m.claims.get(ctx.self);
  const bootAnswersUs =
    own?.kind === 'agent-down' && ctx.now - m.bootHeardAt <= 2 * ctx.probeIntervalMs + ackTimeoutMs(ctx);
  if (!vouched(ctx, m, from) && !bootAnswersUs) {
    over(
      ctx,
      m,
      'dead',
      [`said dead by ${from}, accused by ${u.accusers.join(', ')}`, ...ownEvidence(ctx, m)],
      u.accusers,
    );
    return;
  }
  // Heard here just now: it must hear of it, and deny.
  send(ctx, m.id, { type: 'updates', updates: [u] });
  if (m.view.connected && m.pingDeadline === undefined) m.nextProbeAt = ctx.now;
}

function over(
  ctx: Context,
  m: Member,
  status: 'dead' | 'left',
  evidence: readonly string[],
  accusers: readonly NodeId[] = [],
): void {
  m.check = undefined;
  m.pingDeadline = undefined;
  m.deathAt = undefined;
  m.claims.clear();
  ctx.accused.delete(m);
  answerWaiters(ctx, m, false);
  // What TCP still holds for it would be repeated at ever longer intervals, for many seconds after a cut has healed.
  if (status === 'dead' && m.view.connected) ctx.out.push({ type: 'hang-up', peer: m.id });
  m.view.accusers = accusers;
  setStatus(ctx, m, status, evidence);
  ctx.spread.add(m.id);
}

/** Weighs every accusation of ours: evidence may have changed with anybody's status. */
export function weighAccused(ctx: Context): void {
  for (const m of ctx.accused) {
    if (m.claims.get(ctx.self)?.kind !== 'suspect') continue;
    const verdict = verdictOn(ctx, m);
    m.deathAt = verdict.deathAt;
    if (verdict.deathAt !== undefined && ctx.now >= verdict.deathAt) declareDead(ctx, m, verdict);
    else showClaims(ctx, m, () => ownEvidence(ctx, m));
  }
}

function declareDead(ctx: Context, m: Member, verdict: Verdict): void {
  over(ctx, m, 'dead', [...ownEvidence(ctx, m), agreement(verdict)], verdict.agree);
  announce(ctx, m.id, updatesOf(m));
}

/** The admitted set. Members not in it are forgotten, their claims too. */
export function setPeers(ctx: Context, event: Extract<MembershipEvent, { type: 'peers' }>): NodeId[] {
  const admitted = new Set(event.peers);
  admitted.delete(ctx.self);
  for (const m of [...ctx.members.values()]) {
    if (admitted.has(m.id)) continue;
    ctx.members.delete(m.id);
    ctx.views.delete(m.id);
    ctx.active.delete(m);
    ctx.accused.delete(m);
    ctx.spread.forget(m.id);
    for (const other of ctx.members.values()) if (other.claims.delete(m.id)) refreshAccusers(ctx, other);
  }
  const added: NodeId[] = [];
  for (const id of admitted) {
    if (ctx.members.has(id)) continue;
    const m = newMember(ctx, id);
    ctx.members.set(id, m);
    ctx.views.set(id, m.view);
    added.push(id);
  }
  const all = [ctx.self, ...admitted];
  ctx.fullMesh = all.length <= ctx.config.fullMeshPeers;
  const watched = new Set<NodeId>(ctx.fullMesh ? admitted : watchedBy(ctx.self, all, ctx.config.monitors));
  // At most seven vote, so voters may watch each other without load growing with the cluster.
  if (!ctx.fullMesh && event.voters.includes(ctx.self))
    for (const v of event.voters) if (admitted.has(v)) watched.add(v);
  for (const m of ctx.members.values()) {
    m.jury = undefined;
    if (m.monitored !== watched.has(m.id)) {
      m.monitored = !m.monitored;
      if (m.monitored) {
        ctx.active.add(m);
        m.nextProbeAt = Math.max(m.nextProbeAt, ctx.now + ctx.rng.int(0, ctx.config.probeIntervalMs));
      }
    }
  }
  // In a full mesh too: what a peer sends must not grow with it, and the more watch a member, the sooner one of them asks.
  const stretch = Math.max(1, watched.size / 4);
  ctx.probeIntervalMs = ctx.config.probeIntervalMs * stretch;
  return added;
}

import type { Incarnation, MonoMs, NodeId } from '../../model/ids.ts';
import {
  ackTimeoutMs,
  agentGone,
  bootTimeoutMs,
  type Check,
  type Claim,
  type Context,
  claimTtlMs,
  DIAL_EVERY_MS,
  healthy,
  INDIRECT_EVERY_MS,
  MAX_WAITERS,
  type Member,
  meet,
  send,
  setHealth,
  setStatus,
  settled,
  windowMs,
} from './context.ts';
import { ownEvidence } from './evidence.ts';
import { announce, piggyback, updatesOf } from './spread.ts';

// Probing one member (SWIM section 3.1): ping; no ack in time -> an inquiry asks boot, other members and, where the
// connection is gone, dials. It ends with a sign of life of the agent, or goes on beside a claim: agent-down while boot
// answers, suspect while both are silent.

/** A sign of life of the agent received here. */
export function hear(ctx: Context, m: Member): void {
  m.view.lastHeardAt = ctx.now as MonoMs;
  meet(ctx, m, 'first contact');
  m.pingDeadline = undefined;
  m.nextProbeAt = ctx.now + ctx.probeIntervalMs + m.slackMs;
  if (m.view.connected) m.view.hint = 'none';
  answerWaiters(ctx, m, true);
  if (m.check === undefined && m.view.status === 'alive') return;
  withdraw(ctx, m);
  if (!settled(m.view.status)) setStatus(ctx, m, 'alive', ['answers again']);
}

/** A sign of life that carries no news: while there is news to tell, the ping that carries it still goes out in its time. */
export function overhear(ctx: Context, m: Member): void {
  const { nextProbeAt } = m;
  hear(ctx, m);
  if (ctx.accused.size > 0 || ctx.spread.size > 0) m.nextProbeAt = nextProbeAt;
}

/** The inquiry is over; a claim of ours falls, and the member learns of it, so that it refutes it everywhere. */
function withdraw(ctx: Context, m: Member): void {
  m.check = undefined;
  m.deathAt = undefined;
  if (!ctx.accused.delete(m)) return;
  send(ctx, m.id, { type: 'updates', updates: updatesOf(m) });
  m.claims.delete(ctx.self);
  refreshAccusers(ctx, m);
}

export function ping(ctx: Context, m: Member): void {
  ctx.seq += 1;
  send(ctx, m.id, { type: 'ping', seq: ctx.seq, incarnation: ctx.incarnation, updates: piggyback(ctx, m) });
}

/** The regular probe of a monitored member. */
export function probe(ctx: Context, m: Member): void {
  m.nextProbeAt = ctx.now + ctx.probeIntervalMs + m.slackMs;
  if (settled(m.view.status)) {
    m.nextProbeAt = ctx.now + 5 * ctx.probeIntervalMs;
    ping(ctx, m);
  } else if (m.view.connected) {
    m.pingDeadline ??= ctx.now + ackTimeoutMs(ctx);
    ping(ctx, m);
  } else inquire(ctx, m);
}

/** Begins an inquiry, if there is none. */
export function inquire(ctx: Context, m: Member): void {
  if (m.check !== undefined || settled(m.view.status)) return;
  // Connected: what a ping already sent has left. Never connected: time to connect. Closed or refused: at once.
  const deadline = m.view.connected ? (m.pingDeadline ?? ctx.now + ackTimeoutMs(ctx)) : ctx.now + ackTimeoutMs(ctx);
  m.pingDeadline = undefined;
  m.check = {
    agentDeadline: deadline,
    windowEnd: ctx.now + windowMs(ctx),
    boot: 'unknown',
    firstAttempt: m.bootAttempts + 1,
    sent: 0,
    bootNextAt: ctx.now,
    indirectNextAt: ctx.now,
    dialNextAt: ctx.now,
    firstSeq: ctx.seq + 1,
    asked: [],
    foundNothing: new Set(),
  };
  ctx.active.add(m);
  advance(ctx, m, m.check);
}

/** Does what is due of an inquiry, then judges. */
export function advance(ctx: Context, m: Member, check: Check): void {
  if (ctx.now >= check.bootNextAt) {
    if (check.sent === 0) reachOut(ctx, m, check);
    if (check.sent < ctx.config.bootProbeAttempts) {
      check.sent += 1;
      check.bootNextAt = ctx.now + bootTimeoutMs(ctx);
      m.bootAttempts += 1;
      ctx.out.push({ type: 'probe-boot', peer: m.id, attempt: m.bootAttempts });
    } else {
      check.boot = 'silent';
      nextRound(ctx, m, check);
    }
  }
  judge(ctx, m);
}

/** The connection closed in the middle of an inquiry: dial now, and ask boot now unless a round is under way. */
export function hurry(ctx: Context, m: Member, check: Check): void {
  check.dialNextAt = ctx.now;
  if (check.sent === 0) check.bootNextAt = ctx.now;
  else {
    check.dialNextAt = ctx.now + DIAL_EVERY_MS;
    ctx.out.push({ type: 'dial', peer: m.id });
  }
  advance(ctx, m, check);
}

function nextRound(ctx: Context, m: Member, check: Check): void {
  const long = m.view.status === 'agent-down' && ctx.now - m.view.since > ctx.config.agentDownMs;
  check.sent = 0;
  check.bootNextAt = ctx.now + ctx.probeIntervalMs * (long ? 5 : 1);
}

/** Every other way to the agent. */
function reachOut(ctx: Context, m: Member, check: Check): void {
  if (m.view.connected) ping(ctx, m);
  else if (ctx.now >= check.dialNextAt) {
    check.dialNextAt = ctx.now + DIAL_EVERY_MS;
    ctx.out.push({ type: 'dial', peer: m.id });
  }
  if (ctx.now < check.indirectNextAt) return;
  check.indirectNextAt = ctx.now + INDIRECT_EVERY_MS;
  const able: NodeId[] = [];
  for (const id of ctx.connected) {
    const p = ctx.members.get(id);
    if (p !== undefined && p !== m && p.view.status === 'alive' && !agentGone(ctx, p)) able.push(id);
  }
  const helpers = ctx.rng.shuffle(able).slice(0, ctx.config.indirectProbes);
  for (const to of helpers) {
    ctx.seq += 1;
    send(ctx, to, { type: 'ping-req', seq: ctx.seq, target: m.id });
  }
  check.asked = helpers;
  check.foundNothing.clear();
}

export function bootAnswered(ctx: Context, m: Member, attempt: number): void {
  m.bootHeardAt = ctx.now;
  const check = m.check;
  if (check === undefined || attempt < check.firstAttempt) return;
  check.boot = 'answered';
  nextRound(ctx, m, check);
  judge(ctx, m);
}

/** Agent gone and the window over: the verdict on boot makes the claim. A refused port needs no window: nothing runs there. */
export function judge(ctx: Context, m: Member): void {
  const check = m.check;
  if (check === undefined || check.boot === 'unknown' || !agentGone(ctx, m)) return;
  if (check.boot === 'answered') {
    if (m.view.hint === 'refused' || ctx.now >= check.windowEnd) claim(ctx, m, 'agent-down');
  } else if (ctx.now >= check.windowEnd) claim(ctx, m, 'suspect');
}

function claim(ctx: Context, m: Member, kind: Claim['kind']): void {
  const own = m.claims.get(ctx.self);
  if (own?.kind === kind) {
    own.at = ctx.now;
    return;
  }
  setClaim(ctx, m, ctx.self, kind);
  ctx.accused.add(m);
  m.deathAt = undefined;
  noticeIsolation(ctx, m);
  showClaims(ctx, m, () => ownEvidence(ctx, m));
  announce(ctx, m.id, updatesOf(m));
}

/** Nothing heard from anybody: rather this peer than all the others (Lifeguard's missing nacks, section IV-A). */
function noticeIsolation(ctx: Context, m: Member): void {
  if (ctx.now < ctx.isolatedAt + 1000) return;
  let others = 0;
  for (const p of ctx.members.values()) {
    if (p === m || settled(p.view.status)) continue;
    others++;
    if (p.view.lastHeardAt !== undefined && ctx.now - p.view.lastHeardAt <= ctx.config.ackTimeoutMs) return;
  }
  if (others < 2) return;
  ctx.isolatedAt = ctx.now;
  setHealth(ctx, ctx.health + 1);
}

/** Records or repeats a claim at the member's present incarnation. */
export function setClaim(ctx: Context, m: Member, who: NodeId, kind: Claim['kind']): void {
  const old = m.claims.get(who);
  if (old?.kind === kind) old.at = ctx.now;
  else {
    const incarnation: Incarnation = m.view.incarnation;
    m.claims.set(who, { kind, incarnation, firstAt: ctx.now, at: ctx.now });
  }
  refreshAccusers(ctx, m);
}

export function refreshAccusers(ctx: Context, m: Member): void {
  const ids: NodeId[] = [];
  for (const [who, c] of m.claims) if (ctx.now - c.at <= claimTtlMs(ctx)) ids.push(who);
  m.view.accusers = ids;
}

/** The status that the claims at hand amount to. Own findings first; a boot that answers anybody beats silence. */
export function showClaims(ctx: Context, m: Member, evidence: () => readonly string[]): void {
  if (settled(m.view.status)) return;
  const own = m.claims.get(ctx.self)?.kind;
  if (own === undefined && healthy(ctx, m)) return;
  let agentDown = own === 'agent-down';
  let suspect = own === 'suspect';
  for (const [who, c] of m.claims) {
    if (who === ctx.self || ctx.now - c.at > claimTtlMs(ctx)) continue;
    if (c.kind === 'agent-down') agentDown = true;
    else suspect = true;
  }
  if (agentDown) setStatus(ctx, m, 'agent-down', evidence());
  else if (suspect) setStatus(ctx, m, 'suspect', evidence());
}

/** Answer to one of our ping-reqs. */
export function helperAnswered(
  ctx: Context,
  m: Member,
  from: NodeId,
  answer: { seq: number; agent: boolean; boot: boolean },
): void {
  const check = m.check;
  if (check === undefined || answer.seq < check.firstSeq) return;
  if (answer.agent) {
    m.reachedAt = ctx.now;
    m.nextProbeAt = ctx.now + ctx.probeIntervalMs + m.slackMs;
    withdraw(ctx, m);
    if (!settled(m.view.status)) setStatus(ctx, m, 'alive', [`reached through ${from}`]);
  } else if (answer.boot) {
    setClaim(ctx, m, from, 'agent-down');
    showClaims(ctx, m, () => [...ownEvidence(ctx, m), `boot answers ${from}`]);
  } else check.foundNothing.add(from);
}

/** Another peer asks us to probe. Answered by the agent's next sign of life, or when half the asker's window is over. */
export function helpProbe(ctx: Context, m: Member, from: NodeId, seq: number): void {
  if (m.waiters.length >= MAX_WAITERS) return;
  if (m.waiters.length === 0) {
    m.waitersSince = ctx.now;
    m.waitersUntil = ctx.now + (ctx.config.bootProbeTimeoutMs * ctx.config.bootProbeAttempts) / 2;
    ctx.active.add(m);
    m.bootAttempts += 1;
    ctx.out.push({ type: 'probe-boot', peer: m.id, attempt: m.bootAttempts });
    if (m.view.connected) ping(ctx, m);
    else if (m.check === undefined) ctx.out.push({ type: 'dial', peer: m.id });
  }
  m.waiters.push({ from, seq });
}

export function answerWaiters(ctx: Context, m: Member, agent: boolean): void {
  if (m.waiters.length === 0) return;
  const boot = m.bootHeardAt >= m.waitersSince;
  const waiters = m.waiters;
  m.waiters = [];
  for (const w of waiters) send(ctx, w.from, { type: 'ping-req-ack', seq: w.seq, target: m.id, agent, boot });
}

import type { Incarnation, MonoMs, NodeId } from '../../model/ids.ts';
import type { Rng } from '../../model/random.ts';
import type { Spread } from './spread.ts';
import type { MemberStatus, MembershipConfig, MembershipEffect, MembershipMessage, MemberView } from './types.ts';

// What the parts of this room share: the members, and the turn under way (its time and its effects).

/** Somebody's word that a member is silent to it. Valid for the incarnation it names, and counted while it is repeated. */
export interface Claim {
  readonly kind: 'suspect' | 'agent-down';
  readonly incarnation: Incarnation;
  readonly firstAt: number;
  at: number;
}

/** An inquiry into a silent member: agent (directly and through others) and boot. Ends with a sign of life of the agent. */
export interface Check {
  /** The agent counts as gone from here on (earlier when its connection closed). */
  agentDeadline: number;
  /** Until here an answer through others may still come. */
  windowEnd: number;
  boot: 'unknown' | 'answered' | 'silent';
  /** First attempt whose answer counts, attempts of the present round (0: between rounds), next attempt or verdict. */
  firstAttempt: number;
  sent: number;
  bootNextAt: number;
  indirectNextAt: number;
  dialNextAt: number;
  /** First ping-req whose answer counts; who was asked; who found nothing. */
  firstSeq: number;
  asked: readonly NodeId[];
  readonly foundNothing: Set<NodeId>;
}

/** A ping-req of another peer that waits for the outcome of this peer's own probe. */
export interface Waiter {
  readonly from: NodeId;
  readonly seq: number;
}

export type MutableView = { -readonly [K in keyof MemberView]: MemberView[K] };

export interface Member {
  readonly id: NodeId;
  readonly view: MutableView;
  /** Anything was ever heard of it, directly or from others (an admitted peer may not have started yet). */
  known: boolean;
  monitored: boolean;
  /** Of a pair, the higher id pings a little later, so that one ping serves both. */
  readonly slackMs: number;
  nextProbeAt: number;
  /** Unanswered ping. */
  pingDeadline: number | undefined;
  check: Check | undefined;
  readonly claims: Map<NodeId, Claim>;
  /** Not declared dead before (a local stall just ended). */
  notBefore: number;
  /** When it will be dead unless something changes; undefined: not on present evidence. */
  deathAt: number | undefined;
  bootAttempts: number;
  bootHeardAt: number;
  reachedAt: number;
  waiters: Waiter[];
  waitersSince: number;
  waitersUntil: number;
  /** Who else watches it, in a cluster beyond the full mesh; computed when first needed. */
  jury: readonly NodeId[] | undefined;
}

export interface Context {
  readonly self: NodeId;
  readonly config: MembershipConfig;
  readonly rng: Rng;
  readonly members: Map<NodeId, Member>;
  readonly views: Map<NodeId, MemberView>;
  /** Open connections, also to peers not (yet) admitted here. */
  readonly connected: Set<NodeId>;
  /** Members that this peer accuses. */
  readonly accused: Set<Member>;
  /** Members with a deadline: monitored, under inquiry, or asked for by others. */
  readonly active: Set<Member>;
  readonly spread: Spread;
  now: number;
  out: MembershipEffect[];
  incarnation: Incarnation;
  fullMesh: boolean;
  probeIntervalMs: number;
  seq: number;
  /** Lifeguard's local health multiplier minus one: 0 = healthy. */
  health: number;
  healthAt: number;
  isolatedAt: number;
  /** Updates and messages about or from peers that are not admitted. */
  ignored: number;
}

/** A member not heard of since its admission (or our start) is not looked into before. */
export const FIRST_CONTACT_MS = 2000;
/** A member that returned by word of others has this long to connect before it is looked into. */
export const RETURN_GRACE_MS = 500;
/** What a member that was dead says of others is doubted for so long after its return. */
export const RETURN_DOUBT_MS = 2000;
/** Between two attempts to dial, or to reach through others, a member under inquiry. */
export const DIAL_EVERY_MS = 400;
export const INDIRECT_EVERY_MS = 1000;
/** Peers a change is sent to directly; the rest hear of it by gossip and piggyback. */
export const DIRECT_FANOUT = 64;
/** Waiting ping-reqs about one member. */
export const MAX_WAITERS = 16;
/** One step of local health is won back in this time without trouble. */
export const HEALTH_STEP_MS = 500;
/** Whole lists are exchanged with a random peer this often, should an update have been lost. */
export const SYNC_EVERY_MS = 10_000;

export function newMember(ctx: Context, id: NodeId): Member {
  return {
    id,
    view: {
      id,
      status: 'alive',
      incarnation: 0 as Incarnation,
      since: ctx.now as MonoMs,
      lastHeardAt: undefined,
      accusers: [],
      connected: false,
      hint: 'none',
    },
    known: false,
    monitored: false,
    slackMs: ctx.self < id ? 0 : Math.ceil(ctx.config.probeIntervalMs / 10),
    nextProbeAt: ctx.now + FIRST_CONTACT_MS + ctx.rng.int(0, ctx.config.probeIntervalMs),
    pingDeadline: undefined,
    check: undefined,
    claims: new Map(),
    notBefore: 0,
    deathAt: undefined,
    bootAttempts: 0,
    bootHeardAt: Number.NEGATIVE_INFINITY,
    reachedAt: Number.NEGATIVE_INFINITY,
    waiters: [],
    waitersSince: 0,
    waitersUntil: 0,
    jury: undefined,
  };
}

/** Lifeguard LHA-Probe (section IV-A): a peer in trouble gives the others more time. */
export const ackTimeoutMs = (ctx: Context): number => ctx.config.ackTimeoutMs * (1 + ctx.health);
export const bootTimeoutMs = (ctx: Context): number => ctx.config.bootProbeTimeoutMs * (1 + ctx.health);
/** All boot attempts, and as long for answers through others. */
export const windowMs = (ctx: Context): number => bootTimeoutMs(ctx) * ctx.config.bootProbeAttempts;
/** A claim not repeated (every ping carries it) for this long no longer counts towards a death. */
export const claimTtlMs = (ctx: Context): number => 2 * (ctx.config.suspicionMaxMs + ctx.probeIntervalMs);

export function send(ctx: Context, to: NodeId, message: MembershipMessage): void {
  if (ctx.connected.has(to)) ctx.out.push({ type: 'send', to, message });
}

/** The agent does not answer: its connection closed and did not come back, or a ping ran out. */
export function agentGone(ctx: Context, m: Member): boolean {
  if (m.check === undefined) return false;
  return ctx.now >= m.check.agentDeadline || (!m.view.connected && m.view.hint !== 'none');
}

/** Its agent was heard just now, by this peer itself or, for this peer, by another. */
export function healthy(ctx: Context, m: Member): boolean {
  if (agentGone(ctx, m)) return false;
  if (ctx.now - m.reachedAt <= ctx.config.ackTimeoutMs) return true;
  return (
    m.view.connected && m.view.lastHeardAt !== undefined && ctx.now - m.view.lastHeardAt <= ctx.config.ackTimeoutMs
  );
}

/**
 * Whether what `from` says of the silence or death of `m` has to wait for what our own probe finds: `m` was heard here just
 * now. A peer that itself was dead until a moment ago speaks from the far side of a cut that has healed and holds everybody
 * for dead: against its word it is enough that no probe of ours can have run out yet.
 */
export function vouched(ctx: Context, m: Member, from: NodeId): boolean {
  if (agentGone(ctx, m)) return false;
  if (healthy(ctx, m)) return true;
  if (!returned(ctx, from) || !m.monitored || !m.view.connected || m.view.lastHeardAt === undefined) return false;
  return ctx.now - m.view.lastHeardAt <= ctx.probeIntervalMs + m.slackMs + ackTimeoutMs(ctx);
}

function returned(ctx: Context, id: NodeId): boolean {
  const peer = ctx.members.get(id);
  return peer !== undefined && (settled(peer.view.status) || ctx.now - peer.view.since < RETURN_DOUBT_MS);
}

export const settled = (status: MemberStatus): boolean => status === 'dead' || status === 'left';

export function setStatus(ctx: Context, m: Member, to: MemberStatus, evidence: readonly string[]): void {
  const from = m.view.status;
  if (from === to) return;
  m.view.status = to;
  m.view.since = ctx.now as MonoMs;
  const { incarnation, accusers } = m.view;
  ctx.out.push({ type: 'changed', change: { id: m.id, from, to, incarnation, accusers, evidence } });
}

/** The first word of an admitted member. */
export function meet(ctx: Context, m: Member, evidence: string): void {
  if (m.known) return;
  m.known = true;
  const { id, incarnation, accusers } = m.view;
  const change = { id, from: 'unknown', to: 'alive', incarnation, accusers, evidence: [evidence] } as const;
  ctx.out.push({ type: 'changed', change });
}

export function setHealth(ctx: Context, score: number): void {
  const next = Math.max(0, Math.min(ctx.config.maxLocalHealth, score));
  ctx.healthAt = ctx.now + HEALTH_STEP_MS;
  if (next === ctx.health) return;
  ctx.health = next;
  ctx.out.push({ type: 'local-health', score: next });
}

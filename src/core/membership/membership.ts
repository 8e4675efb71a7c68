import { assertNever, type Incarnation, type MonoMs, type NodeId } from '../../model/ids.ts';
import { LIMITS } from '../../model/limits.ts';
import { createRng } from '../../model/random.ts';
import {
  ackTimeoutMs,
  bootTimeoutMs,
  type Context,
  type Member,
  SYNC_EVERY_MS,
  send,
  setHealth,
  settled,
  windowMs,
} from './context.ts';
import {
  advance,
  answerWaiters,
  bootAnswered,
  hear,
  helperAnswered,
  helpProbe,
  hurry,
  inquire,
  judge,
  overhear,
  probe,
} from './inquiry.ts';
import { announce, piggyback, pushPull, Spread, selfUpdate } from './spread.ts';
import type { MembershipConfig, MembershipEffect, MembershipEvent, MembershipMessage, MemberView } from './types.ts';
import { risen, setPeers, takeUpdates, weighAccused } from './updates.ts';

// SWIM (Das, Gupta, Motivala 2002) with Lifeguard (Dadgar, Phillips, Currey 2017). Departures: a member is two processes,
// agent and boot, and dead means both silent; every monitored member is probed at a fixed interval instead of one a
// period in turn (section 4.3), over long-lived streams; a closed connection starts an inquiry at once; suspicion needs a
// second accuser where there is one. README.md beside this file has states, events and transitions.

export interface MembershipOptions {
  readonly self: NodeId;
  /** Higher than at any earlier start of this peer, so that it overrides what was said of the last run. */
  readonly incarnation: Incarnation;
  readonly config: MembershipConfig;
  readonly seed: string;
}

/** One peer's view of the others. A value: time comes in with each step, effects go out in order. */
export interface Membership {
  /** `now` never runs backwards. Effects are the caller's. */
  step(event: MembershipEvent, now: MonoMs): MembershipEffect[];
  /** When a tick is due; undefined: only when an event comes. */
  nextWake(): MonoMs | undefined;
  /** Live objects: they change with later steps. Undefined: not admitted, or this peer itself. */
  view(id: NodeId): MemberView | undefined;
  members(): ReadonlyMap<NodeId, MemberView>;
  /** Lifeguard's local health, 0 = healthy, up to config.maxLocalHealth. */
  localHealth(): number;
  /** This peer's own incarnation. */
  incarnation(): Incarnation;
  /** Whom this peer probes: everybody up to config.fullMeshPeers, else by rendezvous hashing, and voters each other. */
  monitored(): readonly NodeId[];
  /** Updates and messages that named peers not admitted here. */
  ignored(): number;
}

export function createMembership(options: MembershipOptions): Membership {
  return new SwimMembership(options);
}

/** A dead member whose connection still stands (a cut may heal before TCP gives up) is pinged on: it will refute. */
const probed = (m: Member): boolean =>
  m.monitored && (!settled(m.view.status) || (m.view.status === 'dead' && m.view.connected));

class SwimMembership implements Membership {
  readonly #ctx: Context;
  #monitored: readonly NodeId[] = [];
  #wake: number | undefined;
  #syncAt = Number.POSITIVE_INFINITY;
  #stalledAt = Number.NEGATIVE_INFINITY;
  #left = false;

  constructor(options: MembershipOptions) {
    this.#ctx = {
      self: options.self,
      config: options.config,
      rng: createRng(`${options.seed}/${options.self}`),
      members: new Map(),
      views: new Map(),
      connected: new Set(),
      accused: new Set(),
      active: new Set(),
      spread: new Spread(),
      now: 0,
      out: [],
      incarnation: options.incarnation,
      fullMesh: true,
      probeIntervalMs: options.config.probeIntervalMs,
      seq: 0,
      health: 0,
      healthAt: 0,
      isolatedAt: Number.NEGATIVE_INFINITY,
      ignored: 0,
    };
  }

  step(event: MembershipEvent, now: MonoMs): MembershipEffect[] {
    if (this.#left) return [];
    const ctx = this.#ctx;
    ctx.now = Math.max(ctx.now, now);
    this.#noticeStall(event.type === 'tick' ? event.lateMs : 0);
    this.#dispatch(event);
    weighAccused(ctx);
    this.#wake = this.#left ? undefined : this.#nextDue();
    const out = ctx.out;
    ctx.out = [];
    return out;
  }

  nextWake = (): MonoMs | undefined => this.#wake as MonoMs | undefined;
  view = (id: NodeId): MemberView | undefined => this.#ctx.views.get(id);
  members = (): ReadonlyMap<NodeId, MemberView> => this.#ctx.views;
  localHealth = (): number => this.#ctx.health;
  incarnation = (): Incarnation => this.#ctx.incarnation;
  monitored = (): readonly NodeId[] => this.#monitored;
  ignored = (): number => this.#ctx.ignored;

  #dispatch(event: MembershipEvent): void {
    const ctx = this.#ctx;
    switch (event.type) {
      case 'tick':
        this.#tick();
        return;
      case 'peers': {
        for (const id of setPeers(ctx, event)) if (ctx.connected.has(id)) this.#connected(id);
        this.#monitored = [...ctx.members.values()].filter((m) => m.monitored).map((m) => m.id);
        if (this.#syncAt === Number.POSITIVE_INFINITY)
          this.#syncAt = ctx.now + ctx.rng.int(SYNC_EVERY_MS / 2, SYNC_EVERY_MS);
        return;
      }
      case 'connected':
        if (ctx.connected.size < LIMITS.peers) ctx.connected.add(event.peer);
        this.#connected(event.peer);
        return;
      case 'disconnected':
        this.#disconnected(event.peer);
        return;
      case 'dial-failed':
        this.#dialFailed(event.peer, event.refused);
        return;
      case 'heard': {
        const m = ctx.members.get(event.peer);
        if (m?.view.connected === true) overhear(ctx, m);
        return;
      }
      case 'boot-ack': {
        const m = ctx.members.get(event.peer);
        if (m !== undefined) bootAnswered(ctx, m, event.attempt);
        return;
      }
      case 'message': {
        const m = ctx.members.get(event.from);
        if (m !== undefined) this.#message(m, event.message);
        else ctx.ignored++;
        return;
      }
      case 'leave':
        announce(ctx, ctx.self, [selfUpdate(ctx, 'left')]);
        this.#left = true;
        return;
      default:
        assertNever(event, 'membership event');
    }
  }

  #connected(id: NodeId): void {
    const ctx = this.#ctx;
    const m = ctx.members.get(id);
    if (m === undefined || !ctx.connected.has(id)) return;
    m.view.connected = true;
    // An admitted connection is a proof of life; if it was held for dead, it learns so from the list and refutes.
    hear(ctx, m);
    pushPull(ctx, id, false);
  }

  #disconnected(id: NodeId): void {
    const ctx = this.#ctx;
    ctx.connected.delete(id);
    const m = ctx.members.get(id);
    if (m === undefined || !m.view.connected) return;
    m.view.connected = false;
    m.view.hint = 'closed';
    m.pingDeadline = undefined;
    if (settled(m.view.status)) return;
    if (m.check !== undefined) {
      hurry(ctx, m, m.check);
    } else if (m.monitored) inquire(ctx, m);
  }

  #dialFailed(id: NodeId, refused: boolean): void {
    const ctx = this.#ctx;
    const m = ctx.members.get(id);
    if (m === undefined || m.view.connected || !refused || settled(m.view.status)) return;
    m.view.hint = 'refused';
    if (m.check !== undefined) judge(ctx, m);
    else if (m.monitored && m.view.lastHeardAt !== undefined) inquire(ctx, m);
  }

  #message(m: Member, message: MembershipMessage): void {
    const ctx = this.#ctx;
    switch (message.type) {
      case 'ping':
        this.#voice(m, message.incarnation);
        takeUpdates(ctx, m.id, message.updates);
        send(ctx, m.id, {
          type: 'ack',
          seq: message.seq,
          incarnation: ctx.incarnation,
          updates: piggyback(ctx, m),
        });
        return;
      case 'ack':
        this.#voice(m, message.incarnation);
        takeUpdates(ctx, m.id, message.updates);
        return;
      case 'ping-req': {
        hear(ctx, m);
        const target = ctx.members.get(message.target);
        if (target !== undefined) helpProbe(ctx, target, m.id, message.seq);
        else ctx.ignored++;
        return;
      }
      case 'ping-req-ack': {
        hear(ctx, m);
        const target = ctx.members.get(message.target);
        if (target !== undefined) helperAnswered(ctx, target, m.id, message);
        return;
      }
      case 'updates':
        // No sign of life: gossip brings these too, signed by the sender but relayed by others, perhaps late.
        takeUpdates(ctx, m.id, message.updates);
        return;
      case 'push-pull':
        hear(ctx, m);
        takeUpdates(ctx, m.id, message.updates);
        if (message.reply) pushPull(ctx, m.id, false);
        return;
      default:
        assertNever(message, 'membership message');
    }
  }

  #voice(m: Member, incarnation: Incarnation): void {
    if (incarnation > m.view.incarnation) risen(this.#ctx, m, incarnation, m.id);
    hear(this.#ctx, m);
  }

  #tick(): void {
    const ctx = this.#ctx;
    const now = ctx.now;
    if (ctx.health > 0 && now >= ctx.healthAt) setHealth(ctx, ctx.health - 1);
    for (const m of ctx.active) {
      if (m.waiters.length > 0 && now >= m.waitersUntil) answerWaiters(ctx, m, false);
      if (m.check !== undefined) advance(ctx, m, m.check);
      else if (m.pingDeadline !== undefined) {
        if (now >= m.pingDeadline) inquire(ctx, m);
      } else if (probed(m) && now >= m.nextProbeAt) probe(ctx, m);
      if (!m.monitored && m.check === undefined && m.waiters.length === 0) ctx.active.delete(m);
    }
    if (now >= this.#syncAt) {
      this.#syncAt = now + ctx.rng.int(SYNC_EVERY_MS / 2, SYNC_EVERY_MS);
      const id = ctx.rng.pick([...ctx.connected].filter((c) => ctx.members.has(c)));
      if (id !== undefined) pushPull(ctx, id, true);
    }
  }

  /** Lifeguard section IV: this peer was not running. It accuses nobody on account of it: everybody gets fresh deadlines. */
  #noticeStall(tickLateMs: number): void {
    const ctx = this.#ctx;
    const overdue = this.#wake === undefined ? 0 : ctx.now - this.#wake;
    const late = Math.max(tickLateMs, overdue);
    if (late <= ctx.config.lateTickMs) return;
    // A message may have shown the stall before the late tick itself comes: one stall counts once.
    if (ctx.now - this.#stalledAt > ctx.config.lateTickMs) {
      setHealth(ctx, ctx.health + Math.min(4, 1 + Math.floor(late / 500)));
    }
    this.#stalledAt = ctx.now;
    for (const m of ctx.active) {
      if (m.pingDeadline !== undefined) {
        m.pingDeadline = undefined;
        m.nextProbeAt = ctx.now;
      } else if (m.nextProbeAt < ctx.now) m.nextProbeAt = ctx.now + ctx.rng.int(0, Math.floor(ctx.probeIntervalMs / 2));
      m.waitersUntil = Math.max(m.waitersUntil, ctx.now + bootTimeoutMs(ctx));
      const check = m.check;
      if (check === undefined) continue;
      check.agentDeadline = ctx.now + ackTimeoutMs(ctx);
      check.windowEnd = ctx.now + windowMs(ctx);
      check.boot = 'unknown';
      check.sent = 0;
      check.bootNextAt = ctx.now;
      check.indirectNextAt = ctx.now;
      m.notBefore = check.windowEnd + ctx.config.suspicionMinMs;
    }
  }

  #nextDue(): number | undefined {
    const ctx = this.#ctx;
    let best = this.#syncAt;
    const sooner = (at: number): void => {
      if (at < best) best = at;
    };
    if (ctx.health > 0) sooner(ctx.healthAt);
    for (const m of ctx.active) {
      if (m.waiters.length > 0) sooner(m.waitersUntil);
      const check = m.check;
      if (check !== undefined) {
        sooner(check.bootNextAt);
        if (check.windowEnd > ctx.now) sooner(check.windowEnd);
        if (check.agentDeadline > ctx.now) sooner(check.agentDeadline);
        if (m.deathAt !== undefined) sooner(m.deathAt);
      } else if (m.pingDeadline !== undefined) sooner(m.pingDeadline);
      else if (probed(m)) sooner(m.nextProbeAt);
    }
    // Never in the past: what is overdue by this step's own doing is no stall.
    return best === Number.POSITIVE_INFINITY ? undefined : Math.max(best, ctx.now);
  }
}

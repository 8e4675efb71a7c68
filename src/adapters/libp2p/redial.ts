import type { NodeId } from '../../model/ids.ts';

// Keeps the wanted connections, for ever. Of a pair, the peer with the lower PeerId dials first and the other gives it a
// head start, so that both rarely dial at once (when they do, links.ts sorts it out).

export const REDIAL = {
  afterLossMs: 200,
  factor: 1.6,
  /** A cut that heals is noticed after at most this and one unanswered dial. */
  mostMs: 1_500,
  headStartMs: 300,
  /** Share of a delay that is random, so that a whole cluster does not knock at the same moment. */
  jitter: 0.2,
  parallel: 32,
} as const;

export interface RedialHooks {
  /** One attempt; resolves or rejects, the outcome is known from connected(). */
  attempt(peer: NodeId): Promise<void>;
  connected(peer: NodeId): boolean;
  /** Uniform in [0, 1). */
  random(): number;
}

interface Target {
  delayMs: number;
  timer: NodeJS.Timeout | null;
  busy: boolean;
  /** An announcement came while an attempt was under way. */
  again: boolean;
}

export class Redialer {
  readonly #self: NodeId;
  readonly #hooks: RedialHooks;
  readonly #targets = new Map<NodeId, Target>();
  readonly #waiting = new Set<NodeId>();
  #active = 0;
  #stopped = false;

  constructor(self: NodeId, hooks: RedialHooks) {
    this.#self = self;
    this.#hooks = hooks;
  }

  setWanted(peers: readonly NodeId[]): void {
    const wanted = new Set(peers);
    wanted.delete(this.#self);
    for (const [peer, target] of this.#targets) {
      if (wanted.has(peer)) continue;
      if (target.timer) clearTimeout(target.timer);
      this.#waiting.delete(peer);
      this.#targets.delete(peer);
    }
    for (const peer of wanted) {
      if (this.#targets.has(peer)) continue;
      const target: Target = { delayMs: REDIAL.afterLossMs, timer: null, busy: false, again: false };
      this.#targets.set(peer, target);
      this.#schedule(peer, target, this.#headStart(peer));
    }
  }

  /** The connection was lost: try soon, from the shortest delay. */
  lost(peer: NodeId): void {
    const target = this.#targets.get(peer);
    if (!target) return;
    target.delayMs = REDIAL.afterLossMs;
    this.#schedule(peer, target, REDIAL.afterLossMs + this.#headStart(peer));
  }

  /** The peer was heard of (mDNS, a new address): try now. */
  announced(peer: NodeId): void {
    const target = this.#targets.get(peer);
    if (!target || this.#hooks.connected(peer)) return;
    target.delayMs = REDIAL.afterLossMs;
    if (target.busy) target.again = true;
    else this.#schedule(peer, target, this.#headStart(peer));
  }

  stop(): void {
    this.#stopped = true;
    for (const target of this.#targets.values()) if (target.timer) clearTimeout(target.timer);
    this.#targets.clear();
    this.#waiting.clear();
  }

  #headStart(peer: NodeId): number {
    return this.#self < peer ? 0 : REDIAL.headStartMs;
  }

  #schedule(peer: NodeId, target: Target, delayMs: number): void {
    if (this.#stopped || target.busy) return;
    if (target.timer) clearTimeout(target.timer);
    target.timer = setTimeout(() => {
      target.timer = null;
      this.#start(peer, target);
    }, delayMs);
  }

  #start(peer: NodeId, target: Target): void {
    if (this.#stopped || target.busy || this.#targets.get(peer) !== target || this.#hooks.connected(peer)) return;
    if (this.#active >= REDIAL.parallel) {
      this.#waiting.add(peer);
      return;
    }
    this.#active++;
    target.busy = true;
    this.#hooks
      .attempt(peer)
      .catch(() => {})
      .finally(() => {
        this.#active--;
        target.busy = false;
        this.#after(peer, target);
        const next = this.#waiting.values().next().value;
        if (next === undefined) return;
        this.#waiting.delete(next);
        const waiting = this.#targets.get(next);
        if (waiting) this.#start(next, waiting);
      });
  }

  #after(peer: NodeId, target: Target): void {
    if (this.#stopped || this.#targets.get(peer) !== target || this.#hooks.connected(peer)) return;
    if (target.again) {
      target.again = false;
      this.#schedule(peer, target, REDIAL.afterLossMs);
      return;
    }
    const spread = 1 + REDIAL.jitter * (2 * this.#hooks.random() - 1);
    this.#schedule(peer, target, target.delayMs * spread);
    target.delayMs = Math.min(REDIAL.mostMs, target.delayMs * REDIAL.factor);
  }
}

import { type MonoMs, monoMs, type NodeId } from '../../model/ids.ts';
import { KNOWS_PROVISIONAL } from '../../model/wire.ts';
import { createPlan } from './plan.ts';
import {
  type Bid,
  type CaretakerConfig,
  type CaretakerContext,
  type CaretakerEffect,
  DEFAULT_CARETAKER_CONFIG,
} from './types.ts';

// Who is caretaker, and when. Soft state throughout: nothing here is logged or kept over a restart; what a caretaker has done
// is read off the machines' facts. See README.md beside this file.

export interface Caretaker {
  /** Decides; cheap while a majority is in reach. */
  evaluate(ctx: CaretakerContext, now: MonoMs): CaretakerEffect[];
  onBid(from: NodeId, bid: Bid, now: MonoMs): void;
  /** Members, facts or records changed. */
  mark(): void;
  nextWake(): MonoMs | undefined;
  /** No majority in reach for as long as it takes. */
  alone(): boolean;
  /** Since when no majority is in reach, this side's caretaker or not. */
  aloneSince(): MonoMs | undefined;
  caretaker(): NodeId | null;
  /** Why tasks have no copy on this side; empty unless this peer is caretaker. */
  waiting(): ReadonlyMap<string, string>;
}

/** Positive: `a` is fitter. */
export function compareBids(a: Bid, aId: NodeId, b: Bid, bId: NodeId): number {
  return a.term - b.term || a.index - b.index || a.rank - b.rank || (aId > bId ? 1 : aId < bId ? -1 : 0);
}

/**
 * Whether a majority of the voters is in reach. A leader that is heard proves it (CheckQuorum, thesis 6.2), but to learners
 * nobody proves it again and again: they count the voters that live.
 */
export function majorityInReach(ctx: Pick<CaretakerContext, 'consensus' | 'members'>, self: NodeId): boolean {
  const { role, leader, membership } = ctx.consensus;
  // A joiner that has heard of no voters yet waits for its records.
  if (membership.voters.length === 0) return true;
  if (role === 'leader' || (role === 'follower' && leader !== null)) return true;
  const reached = (voters: readonly NodeId[]): boolean => {
    let count = 0;
    for (const id of voters) if (id === self || ctx.members.get(id)?.status === 'alive') count += 1;
    return count > voters.length / 2;
  };
  return reached(membership.voters) && (membership.outgoing === null || reached(membership.outgoing));
}

/** During a rolling upgrade nothing is started that the older peers would not understand. */
function allKnowProvisional(ctx: Pick<CaretakerContext, 'facts'>): boolean {
  for (const facts of ctx.facts.values()) if (facts.wireVersion < KNOWS_PROVISIONAL) return false;
  return true;
}

export function createCaretaker(self: NodeId, rank: number, options: Partial<CaretakerConfig> = {}): Caretaker {
  const config: CaretakerConfig = { ...DEFAULT_CARETAKER_CONFIG, ...options };
  const bids = new Map<NodeId, { readonly bid: Bid; readonly at: MonoMs }>();
  const plan = createPlan(self, config);
  let lostAt: MonoMs | undefined;
  let bidding = false;
  let biddingSince = monoMs(0);
  let bidAt = monoMs(0);
  let ordersAt = monoMs(0);
  let planAt: MonoMs | undefined;
  let dirty = false;
  let chosen: NodeId | null = null;
  let wakeAt: MonoMs | undefined;

  const wake = (at: number): void => {
    if (wakeAt === undefined || at < wakeAt) wakeAt = monoMs(at);
  };

  function over(): CaretakerEffect[] {
    lostAt = undefined;
    bids.clear();
    plan.clear();
    chosen = null;
    planAt = undefined;
    if (!bidding) return [];
    bidding = false;
    return [{ type: 'alone', alone: false, caretaker: null }];
  }

  /** The fittest of those whose bids are fresh; null while better ones may come. */
  function choose(ctx: CaretakerContext, own: Bid, others: readonly NodeId[], now: MonoMs): NodeId | null {
    for (const [id, b] of bids) if (now - b.at > config.bidLastsMs || !others.includes(id)) bids.delete(id);
    const settled = now >= biddingSince + config.settleMs;
    if (!settled) wake(biddingSince + config.settleMs);
    if (!settled && others.some((id) => !bids.has(id) && ctx.members.get(id)?.status === 'alive')) return null;
    let best: { readonly id: NodeId; readonly bid: Bid } = { id: self, bid: own };
    for (const [id, { bid, at }] of bids) {
      wake(at + config.bidLastsMs + 1);
      if (compareBids(bid, id, best.bid, best.id) > 0) best = { id, bid };
    }
    return best.id;
  }

  function serve(ctx: CaretakerContext, now: MonoMs, out: CaretakerEffect[]): void {
    const repeat = now >= ordersAt;
    if (!dirty && !repeat && (planAt === undefined || now < planAt)) {
      wake(ordersAt);
      if (planAt !== undefined) wake(planAt);
      return;
    }
    if (dirty && planAt === undefined && !repeat) {
      // Facts come in one by one: gathered for a moment.
      planAt = monoMs(now + config.planEveryMs);
      dirty = false;
      wake(planAt);
      wake(ordersAt);
      return;
    }
    dirty = false;
    planAt = undefined;
    const { changed, decided, wakeAt: again } = plan.make(ctx, biddingSince, now);
    for (const d of decided) out.push({ type: 'decided', ...d });
    if (again !== undefined) {
      planAt = monoMs(again);
      wake(again);
    }
    if (repeat) ordersAt = monoMs(now + config.ordersEveryMs);
    wake(ordersAt);
    for (const [to, orders] of plan.orders()) if (repeat || changed.has(to)) out.push({ type: 'orders', to, orders });
  }

  return {
    evaluate(ctx, now) {
      if (majorityInReach(ctx, self)) {
        wakeAt = undefined;
        return lostAt === undefined ? [] : over();
      }
      wakeAt = undefined;
      lostAt ??= now;
      if (now < lostAt + config.afterMs) {
        wake(lostAt + config.afterMs);
        return [];
      }
      const out: CaretakerEffect[] = [];
      const own: Bid = { term: ctx.lastTerm, index: ctx.consensus.lastIndex, rank };
      const others = [...ctx.members].filter(([id, m]) => id !== self && m.status === 'alive').map(([id]) => id);
      if (!bidding) {
        bidding = true;
        biddingSince = now;
        bidAt = now;
        out.push({ type: 'alone', alone: true, caretaker: null });
      }
      if (now >= bidAt) {
        bidAt = monoMs(now + config.bidEveryMs);
        for (const to of others) out.push({ type: 'bid', to, bid: own });
      }
      wake(bidAt);
      const best = allKnowProvisional(ctx) ? choose(ctx, own, others, now) : null;
      if (best !== null && best !== chosen) {
        chosen = best;
        plan.clear();
        dirty = best === self;
        ordersAt = now;
        out.push({ type: 'alone', alone: true, caretaker: chosen });
      }
      if (chosen === self) serve(ctx, now, out);
      return out;
    },
    onBid: (from, bid, now) => void bids.set(from, { bid, at: now }),
    mark: () => {
      dirty = true;
    },
    nextWake: () => wakeAt,
    alone: () => bidding,
    aloneSince: () => lostAt,
    caretaker: () => chosen,
    waiting: () => plan.waiting(),
  };
}

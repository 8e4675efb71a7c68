import type { NodeId } from '../../model/ids.ts';
import { LIMITS } from '../../model/limits.ts';
import { type Context, DIRECT_FANOUT, type Member, send, settled } from './context.ts';
import type { MemberUpdate } from './types.ts';

// Dissemination (SWIM section 4.1): updates ride on pings and acks, each about 3 log2(n + 1) times. Departures: whoever sees
// a change also sends it to its connected peers at once (a hop of a millisecond instead of a probe interval); claims that
// still stand ride on every ping, so that silence about one withdraws it; gossip goes out only when somebody believed
// alive is not connected to us.

const NONE: readonly MemberUpdate[] = [];

export class Spread {
  /** Ids with news, by how often it was sent. The first is the one sent longest ago. */
  readonly #queue = new Map<NodeId, number>();

  add(id: NodeId): void {
    this.#queue.delete(id);
    this.#queue.set(id, 0);
  }

  forget(id: NodeId): void {
    this.#queue.delete(id);
  }

  get size(): number {
    return this.#queue.size;
  }

  /** Up to `room` ids; each is handed out `limit` times in all. */
  take(room: number, limit: number, skip: (id: NodeId) => boolean): NodeId[] {
    const ids: NodeId[] = [];
    if (this.#queue.size === 0 || room <= 0) return ids;
    for (const id of this.#queue.keys()) {
      if (ids.length >= room) break;
      if (!skip(id)) ids.push(id);
    }
    for (const id of ids) {
      const sent = (this.#queue.get(id) ?? 0) + 1;
      this.#queue.delete(id);
      if (sent < limit) this.#queue.set(id, sent);
    }
    return ids;
  }
}

export const selfUpdate = (ctx: Context, status: 'alive' | 'left'): MemberUpdate => ({
  id: ctx.self,
  status,
  incarnation: ctx.incarnation,
  accusers: [],
});

/** What is to be told of a member: its end, or who claims what of it, or that it lives. One or two updates. */
export function updatesOf(m: Member): MemberUpdate[] {
  const { id, status, incarnation } = m.view;
  if (settled(status)) return [{ id, status, incarnation, accusers: m.view.accusers }];
  const updates: MemberUpdate[] = [];
  for (const kind of ['suspect', 'agent-down'] as const) {
    const accusers: NodeId[] = [];
    for (const [who, claim] of m.claims) if (claim.kind === kind) accusers.push(who);
    if (accusers.length > 0) updates.push({ id, status: kind, incarnation, accusers });
  }
  if (updates.length === 0) updates.push({ id, status: 'alive', incarnation, accusers: [] });
  return updates;
}

/** Updates for one ping or ack: what `to` must refute (Lifeguard's buddy system), own claims, then news. Bounded. */
export function piggyback(ctx: Context, to: Member): readonly MemberUpdate[] {
  const buddy = to.claims.size > 0 || settled(to.view.status);
  if (!buddy && ctx.accused.size === 0 && ctx.spread.size === 0) return NONE;
  const most = LIMITS.gossipUpdatesPerMessage;
  const out: MemberUpdate[] = buddy ? updatesOf(to) : [];
  for (const m of ctx.accused) {
    if (out.length >= most / 2) break;
    if (m !== to) out.push(...updatesOf(m));
  }
  const limit = 3 * Math.ceil(Math.log2(ctx.members.size + 2));
  const skip = (id: NodeId): boolean => id === to.id;
  for (const id of ctx.spread.take(Math.floor((most - out.length) / 2), limit, skip)) {
    const m = ctx.members.get(id);
    if (id === ctx.self) out.push(selfUpdate(ctx, 'alive'));
    else if (m !== undefined && !ctx.accused.has(m)) out.push(...updatesOf(m));
  }
  return out;
}

/** To every connected peer now (the member itself too: it alone can refute), by gossip where that leaves somebody out. */
export function announce(ctx: Context, id: NodeId, updates: readonly MemberUpdate[]): void {
  let room = DIRECT_FANOUT;
  for (const to of ctx.members.keys()) {
    if (!ctx.connected.has(to)) continue;
    if (room-- <= 0) break;
    send(ctx, to, { type: 'updates', updates });
  }
  ctx.spread.add(id);
  if (room < 0 || someoneApart(ctx, id)) ctx.out.push({ type: 'gossip', updates });
}

function someoneApart(ctx: Context, about: NodeId): boolean {
  for (const m of ctx.members.values()) {
    if (m.id !== about && m.known && !m.view.connected && m.view.status === 'alive') return true;
  }
  return false;
}

/** The whole list in as many push-pull messages as the limit asks for; only the last asks for a reply. */
export function pushPull(ctx: Context, to: NodeId, reply: boolean): void {
  const updates: MemberUpdate[] = [selfUpdate(ctx, 'alive')];
  for (const m of ctx.members.values()) if (m.known) updates.push(...updatesOf(m));
  const most = LIMITS.gossipUpdatesPerMessage;
  for (let i = 0; i < updates.length; i += most) {
    const last = i + most >= updates.length;
    send(ctx, to, { type: 'push-pull', reply: reply && last, updates: updates.slice(i, i + most) });
  }
}

import type { GossipMessage, PeerEffect, PeerEvent } from '../core/peer/types.ts';
import type { NodeId } from '../model/ids.ts';
import type { Rng } from '../model/random.ts';
import { flawedArrival, flawedMessage, forgedAnswers } from './flawed-wire.ts';
import type { Machine } from './machine.ts';
import type { World } from './world.ts';

// Cables between machines: delays, losses, duplicates, messages that overtake each other, directions that are cut, and
// connections that notice some of it.

export interface NetworkOptions {
  /** One-way delay range, ms. */
  readonly delayMs: readonly [number, number];
  /** Probabilities, of each message while faults are on: lost; delivered twice; held up to 300 ms, so that others overtake it. */
  readonly loss: number;
  readonly duplicate: number;
  readonly overtaken: number;
}

const HELD_MS = 300;
/** Until an end that hears nothing gives its connection up. */
const SILENT_MS = 400;

export class Network {
  readonly #world: World;
  readonly #options: NetworkOptions;
  readonly #rng: Rng;
  /** Blocked directions, `from>to`. */
  readonly #blocked = new Set<string>();
  /** Open connections, `low|high`. */
  readonly #links = new Set<string>();
  readonly #wanted = new Map<NodeId, readonly NodeId[]>();
  /** Redials under way, `from>to`. */
  readonly #redialling = new Set<string>();
  /** Names of directions and links, made once. */
  readonly #names = new Map<NodeId, Map<NodeId, { readonly way: string; readonly link: string }>>();

  constructor(world: World, options: NetworkOptions) {
    this.#world = world;
    this.#options = options;
    this.#rng = world.rngFor('network');
  }

  #name(from: NodeId, to: NodeId): { readonly way: string; readonly link: string } {
    let row = this.#names.get(from);
    if (!row) this.#names.set(from, (row = new Map()));
    let name = row.get(to);
    if (!name) row.set(to, (name = { way: `${from}>${to}`, link: from < to ? `${from}|${to}` : `${to}|${from}` }));
    return name;
  }
  reaches(from: NodeId, to: NodeId): boolean {
    return this.#blocked.size === 0 || !this.#blocked.has(this.#name(from, to).way);
  }
  block(from: Machine, to: Machine): void {
    this.#world.disturbed();
    this.#blocked.add(this.#name(from.id, to.id).way);
  }
  cut(a: Machine, b: Machine): void {
    this.block(a, b);
    this.block(b, a);
  }
  /** Machines of different groups do not reach each other; those in no group reach nobody. */
  partition(groups: readonly (readonly Machine[])[]): void {
    this.heal();
    const { machines, tally } = this.#world;
    const group = new Map<NodeId, number>();
    groups.forEach((g, i) => {
      for (const m of g) group.set(m.id, i);
    });
    for (const a of machines)
      for (const b of machines)
        if (a !== b && (group.get(a.id) ?? -1 - a.index) !== (group.get(b.id) ?? -1 - b.index)) this.block(a, b);
    tally.cuts += 1;
  }
  heal(): void {
    this.#world.disturbed();
    if (this.#blocked.size > 0) this.#world.tally.heals += 1;
    this.#blocked.clear();
  }
  #delay(): number {
    const [lo, hi] = this.#options.delayMs;
    const delay = lo + this.#rng.next() * (hi - lo);
    const { overtaken } = this.#options;
    return overtaken > 0 && this.#world.faultsOn && this.#rng.next() < overtaken
      ? delay + this.#rng.next() * HELD_MS
      : delay;
  }
  #lost(): boolean {
    return this.#world.faultsOn && this.#rng.next() < this.#options.loss;
  }

  // ---- messages ----------------------------------------------------------------------------------------------------------

  send(from: Machine, to: NodeId, effect: Extract<PeerEffect, { type: 'send' }>): void {
    const world = this.#world;
    const arrives = this.#links.has(this.#name(from.id, to).link) && this.reaches(from.id, to) && !this.#lost();
    for (const forged of forgedAnswers(world, from, to, effect, arrives))
      world.after(1, () =>
        world.machine(forged.at).post({ type: 'message', from: forged.by, channel: 'raft', message: forged.message }),
      );
    world.tally.messages += 1;
    if (!arrives) return;
    const event = { ...flawedMessage(world, from, effect), from: from.id, type: 'message' } as PeerEvent;
    this.#deliver(from, to, event);
    const { duplicate } = this.#options;
    if (duplicate > 0 && world.faultsOn && this.#rng.next() < duplicate) this.#deliver(from, to, event);
  }
  #deliver(from: Machine, to: NodeId, event: PeerEvent): void {
    const world = this.#world;
    const target = world.machine(to);
    const { link } = this.#name(from.id, to);
    world.after(this.#delay() + world.stallOf(target), () => {
      if (target.up && this.#links.has(link)) target.post(flawedArrival(world, target, event));
    });
  }

  publish(from: Machine, gossip: GossipMessage): void {
    const world = this.#world;
    const event = { ...gossip, type: 'gossip', from: from.id } as PeerEvent;
    for (const target of world.machines) {
      if (target === from) continue;
      // Gossip reaches whoever is joined by any chain of links; one hop stands for it here, with a longer delay.
      if (!this.reaches(from.id, target.id) || this.#lost()) continue;
      world.tally.messages += 1;
      world.after(this.#delay() * 2 + world.stallOf(target), () => {
        if (target.up) target.post(event);
      });
    }
  }

  probeBoot(from: Machine, peer: NodeId, attempt: number): void {
    const world = this.#world;
    const target = world.machine(peer);
    if (!this.reaches(from.id, peer)) return;
    world.after(this.#delay(), () => {
      if (!target.powered || target.frozen || !this.reaches(peer, from.id)) return;
      world.after(this.#delay(), () => from.post({ type: 'boot-ack', peer, attempt }));
    });
  }

  // ---- connections -------------------------------------------------------------------------------------------------------

  wanted(machine: Machine, wanted: readonly NodeId[]): void {
    this.#wanted.set(machine.id, wanted);
    for (const id of wanted)
      if (id !== machine.id && !this.#links.has(this.#name(machine.id, id).link))
        this.#world.after(1, () => this.dial(machine, id));
  }

  dial(from: Machine, to: NodeId): void {
    const world = this.#world;
    const { link } = this.#name(from.id, to);
    if (!from.up || this.#links.has(link)) return;
    const target = world.find(to);
    if (!target) return;
    world.after(2 * this.#delay(), () => {
      if (!from.up || this.#links.has(link)) return;
      const both = this.reaches(from.id, to) && this.reaches(to, from.id) && !target.frozen && !from.frozen;
      if (both && target.up) {
        this.#links.add(link);
        target.post({ type: 'connected', peer: from.id });
        from.post({ type: 'connected', peer: to });
      } else {
        if (both && target.powered) from.post({ type: 'dial-failed', peer: to, refused: true });
        this.#redial(from, to);
      }
    });
  }
  #redial(from: Machine, to: NodeId): void {
    const { way } = this.#name(from.id, to);
    if (this.#redialling.has(way)) return;
    this.#redialling.add(way);
    this.#world.after(200 + this.#rng.next() * 300, () => {
      this.#redialling.delete(way);
      if (from.up && (this.#wanted.get(from.id) ?? []).includes(to)) this.dial(from, to);
    });
  }

  /** One end gives a silent connection up; the other hears of it, or finds out by its own probes. */
  hangUp(from: Machine, to: NodeId): void {
    const other = this.#world.find(to);
    if (other) this.#close(from, other, 0, this.reaches(from.id, to) ? this.#delay() : SILENT_MS);
  }
  #close(near: Machine, far: Machine, nearMs: number, farMs: number): void {
    const { link } = this.#name(near.id, far.id);
    if (!this.#links.delete(link)) return;
    const lost = (end: Machine, other: Machine): void => {
      if (!end.up || this.#links.has(link)) return;
      end.post({ type: 'disconnected', peer: other.id });
      this.#redial(end, other.id);
    };
    this.#world.after(nearMs, () => lost(near, far));
    this.#world.after(farMs, () => lost(far, near));
  }

  /** All connections of a machine end: silently by a power cut (no FIN), or as a dying process closes them. */
  closeAll(machine: Machine, silent: boolean): void {
    for (const other of this.#world.machines)
      if (other !== machine) this.#close(machine, other, 0, silent ? SILENT_MS : this.#delay() + 2);
  }

  // ---- catching up -------------------------------------------------------------------------------------------------------

  fetchEntries(from: Machine, lo: number, hi: number, peers: readonly NodeId[]): void {
    const world = this.#world;
    const neighbour = peers
      .map((p) => world.machine(p))
      .find((m) => m.up && !m.frozen && this.reaches(from.id, m.id) && this.reaches(m.id, from.id));
    if (!neighbour) return;
    world.after(2 * this.#delay(), () => {
      const entries = neighbour.entries(lo, hi);
      if (entries && entries.entries.length > 0) from.post({ type: 'range-reply', entries });
    });
  }
  fetchSnapshot(from: Machine, effect: Extract<PeerEffect, { type: 'fetch-snapshot' }>): void {
    const world = this.#world;
    const source = world.machine(effect.from);
    const boots = from.boots;
    // Dumped at once, streamed for a while: what arrives may be older than what has come by other ways.
    world.after(this.#delay(), () => {
      const snapshot = source.frozen ? undefined : source.snapshot();
      if (!snapshot || snapshot.index < effect.index) return;
      world.after(10 + this.#rng.next() * 200, () => {
        if (from.up && !from.frozen && from.boots === boots && this.reaches(source.id, from.id))
          from.installSnapshot(snapshot);
      });
    });
  }
}

import { type Consensus, createConsensus } from '../../../src/core/consensus/consensus.ts';
import {
  type ConsensusConfig,
  type ConsensusEffect,
  type ConsensusEvent,
  type ConsensusRestore,
  DEFAULT_CONSENSUS_CONFIG,
  type LogEntry,
  type Membership,
  type PersistOp,
  type RaftMessage,
} from '../../../src/core/consensus/types.ts';
import { type LogIndex, logIndex, type MonoMs, type NodeId, nodeId, term } from '../../../src/model/ids.ts';
import { createRng, type Rng } from '../../../src/model/random.ts';
import { Checker } from './checker.ts';
import { applyEntry, applyOp, committedMembership, type Disk, freshDisk } from './sim-disk.ts';
import { Timeline } from './timeline.ts';

// A cluster of real cores in virtual time: disks with a write latency that lose what was not written, a network that
// loses, delays, repeats and reorders, partitions, crashes and restarts. Everything follows from the seed.

interface Batch {
  persistId: number;
  ops: PersistOp[];
  apply: LogEntry[];
}

export interface SimNode {
  readonly id: NodeId;
  disk: Disk;
  core: Consensus | null;
  /** Raised by a crash: what an earlier life had on its way is void. */
  life: number;
  pending: Batch[];
  writing: boolean;
  lastPersistId: number;
  held: { barrier: number; to: NodeId; message: RaftMessage }[];
  tickAt: number;
}

export interface Faults {
  loss: number;
  duplicate: number;
  delayMs: readonly [number, number];
  writeMs: readonly [number, number];
}

export const CALM: Faults = { loss: 0, duplicate: 0, delayMs: [0.2, 0.6], writeMs: [0.2, 1] };
export const ROUGH: Faults = { loss: 0.05, duplicate: 0.03, delayMs: [0.2, 40], writeMs: [0.2, 30] };

export class Cluster {
  readonly nodes = new Map<NodeId, SimNode>();
  readonly check = new Checker(this);
  readonly rng: Rng;
  readonly config: ConsensusConfig;
  faults: Faults = CALM;
  now = 0;
  messages = 0;
  /** Side of a partition each node is on; equal = connected. */
  readonly side = new Map<NodeId, number>();
  readonly #timeline = new Timeline();
  #nextId = 1;
  readonly proposals = new Map<number, { text: string; result: 'ok' | string | null }>();
  readonly reads = new Map<number, { floor: number; done: boolean; ok: boolean }>();
  readonly changes = new Map<number, string | null>();
  /** Peers whose disk was once replaced by an empty one: what they acknowledged before stands there no longer. */
  readonly wiped = new Set<NodeId>();

  constructor(
    seed: string,
    names: readonly string[],
    voters: readonly string[],
    config: Partial<ConsensusConfig> = {},
  ) {
    this.rng = createRng(seed);
    this.config = { ...DEFAULT_CONSENSUS_CONFIG, ...config };
    const membership: Membership = { voters: voters.map(nodeId), outgoing: null };
    for (const name of names) {
      const id = nodeId(name);
      this.nodes.set(id, {
        id,
        disk: freshDisk(membership),
        core: null,
        life: 0,
        pending: [],
        writing: false,
        lastPersistId: 0,
        held: [],
        tickAt: Number.POSITIVE_INFINITY,
      });
      this.side.set(id, 0);
      this.start(id);
    }
    this.#housekeeping();
  }

  node(id: NodeId): SimNode {
    return this.nodes.get(id) as SimNode;
  }

  at(delay: number, run: () => void): void {
    this.#timeline.at(this.now + delay, run);
  }

  /** Runs until virtual time has gone on by `ms`, or `until` holds. Returns whether `until` held. */
  run(ms: number, until: () => boolean = () => false): boolean {
    const end = this.now + ms;
    while (this.#timeline.next <= end) {
      const item = this.#timeline.pop();
      if (item === undefined) break;
      this.now = item.at;
      item.run();
      if (until()) return true;
    }
    this.now = end;
    return until();
  }

  start(id: NodeId): void {
    const n = this.node(id);
    if (n.core !== null) return;
    const restore: ConsensusRestore = {
      hardState: n.disk.hardState,
      snapshot: { ...n.disk.snapshot, term: term(n.disk.snapshot.term) },
      entries: [...n.disk.entries],
      applied: logIndex(n.disk.applied),
      mayVote: n.disk.mayVote,
    };
    const seed = `${id}/${n.life}/${this.rng.next()}`;
    n.lastPersistId = 0;
    n.core = createConsensus(
      { self: id, config: this.config, seed, restore, rank: this.rng.next() },
      this.now as MonoMs,
    );
    this.check.started(n);
    this.#wake(n);
  }

  /** Power cut: everything not written is gone. `wipe`: the disk too, which the peer notices. */
  crash(id: NodeId, wipe = false): void {
    const n = this.node(id);
    n.core = null;
    n.life++;
    n.pending = [];
    n.held = [];
    n.writing = false;
    n.tickAt = Number.POSITIVE_INFINITY;
    if (wipe) this.wiped.add(id);
    if (wipe) n.disk = { ...freshDisk({ voters: [], outgoing: null }), mayVote: false };
  }

  step(id: NodeId, event: ConsensusEvent): void {
    const n = this.node(id);
    if (n.core === null) return;
    const led = n.core.view().role === 'leader';
    const effects = n.core.step(event, this.now as MonoMs);
    this.check.stepped(n, led);
    for (const effect of effects) this.#effect(n, effect);
    this.#write(n);
    this.#wake(n);
  }

  #wake(n: SimNode): void {
    const at = n.core?.nextWake();
    if (at === undefined || at === n.tickAt) return;
    n.tickAt = at;
    const life = n.life;
    this.at(Math.max(0, at - this.now), () => {
      if (n.life !== life || n.tickAt !== at) return;
      n.tickAt = Number.POSITIVE_INFINITY;
      this.step(n.id, { type: 'tick' });
    });
  }

  #effect(n: SimNode, effect: ConsensusEffect): void {
    switch (effect.type) {
      case 'persist':
        n.lastPersistId = effect.persistId;
        n.pending.push({ persistId: effect.persistId, ops: [...effect.ops], apply: [] });
        return;
      case 'send':
        if (effect.afterPersist) n.held.push({ barrier: n.lastPersistId, to: effect.to, message: effect.message });
        else this.#send(n, effect.to, effect.message);
        if (effect.afterPersist && n.pending.length === 0 && !n.writing) this.#release(n, n.lastPersistId);
        return;
      case 'committed':
        this.check.committed(n, effect.entries);
        n.pending.push({ persistId: 0, ops: [], apply: [...effect.entries] });
        return;
      case 'proposal': {
        const change = this.changes.has(effect.proposalId);
        const outcome = effect.result.ok ? 'ok' : effect.result.reason;
        if (change) this.changes.set(effect.proposalId, outcome);
        else this.check.proposalDone(n, effect.proposalId, effect.result);
        return;
      }
      case 'role':
        this.check.role(n, effect.role, effect.term);
        return;
      case 'read-ready':
        this.check.readDone(effect.id, effect.ok, effect.index);
        return;
      case 'install-snapshot':
        this.#install(n, effect.from);
        return;
      case 'fetch-entries':
        this.#fetch(n, effect.from, effect.to);
        return;
      case 'publish-committed': {
        const { prevIndex, prevTerm, entries, commit } = effect;
        for (const other of this.nodes.keys()) {
          if (other === n.id) continue;
          this.#deliver(n.id, other, () =>
            this.step(other, { type: 'committed-entries', prevIndex, prevTerm, entries, commit }),
          );
        }
        return;
      }
      case 'membership':
        return;
    }
  }

  /** Group commit: one write at a time, taking with it everything asked for since the last. */
  #write(n: SimNode): void {
    if (n.writing || n.pending.length === 0) return;
    n.writing = true;
    const batches = n.pending;
    n.pending = [];
    const life = n.life;
    this.at(this.#between(this.faults.writeMs), () => {
      if (n.life !== life) return;
      n.writing = false;
      let persistId = 0;
      let applied = 0;
      for (const b of batches) {
        for (const op of b.ops) applyOp(n.disk, op);
        for (const e of b.apply) applied = applyEntry(n.disk, e);
        persistId = Math.max(persistId, b.persistId);
      }
      if (persistId > 0) {
        this.#release(n, persistId);
        this.step(n.id, { type: 'persisted', persistId });
      }
      if (applied > 0) this.step(n.id, { type: 'applied', index: logIndex(applied) });
      this.#write(n);
    });
  }

  #release(n: SimNode, upTo: number): void {
    const go = n.held.filter((h) => h.barrier <= upTo);
    n.held = n.held.filter((h) => h.barrier > upTo);
    for (const h of go) this.#send(n, h.to, h.message);
  }

  #between([lo, hi]: readonly [number, number]): number {
    return lo + this.rng.next() ** 2 * (hi - lo);
  }

  #send(n: SimNode, to: NodeId, message: RaftMessage): void {
    this.check.leaving(n, to, message);
    this.messages++;
    this.#deliver(n.id, to, () => this.step(to, { type: 'message', from: n.id, message }));
  }

  #deliver(from: NodeId, to: NodeId, run: () => void): void {
    if (!this.nodes.has(to)) return;
    const copies = this.rng.next() < this.faults.duplicate ? 2 : 1;
    for (let i = 0; i < copies; i++) {
      if (this.rng.next() < this.faults.loss) continue;
      this.at(this.#between(this.faults.delayMs), () => {
        if (this.side.get(from) === this.side.get(to)) run();
      });
    }
  }

  /** In its turn among the writes: what was asked for before is on disk when the snapshot replaces the state. */
  #install(n: SimNode, from: NodeId): void {
    const life = n.life;
    this.at(20, () => {
      const source = this.node(from);
      if (n.life !== life || source.core === null || this.side.get(from) !== this.side.get(n.id)) return;
      if (n.writing || n.pending.length > 0) {
        this.#install(n, from);
        return;
      }
      const index = logIndex(source.disk.applied);
      const snapshotTerm = source.core.termAt(index);
      const membership = committedMembership(source.disk, index);
      if (snapshotTerm === undefined || index <= n.disk.applied) return;
      // One atomic change of the store: state, snapshot mark, and a log that does not agree with it gone.
      const joins = n.disk.entries.some((e) => e.index === index && e.term === snapshotTerm);
      n.disk.entries = joins ? n.disk.entries.filter((e) => e.index > index) : [];
      n.disk.snapshot = { index, term: snapshotTerm, membership };
      n.disk.state = [...source.disk.state];
      n.disk.applied = index;
      this.check.snapshot(n, index);
      this.step(n.id, { type: 'snapshot-installed', index, term: term(snapshotTerm), membership });
    });
  }

  #fetch(n: SimNode, from: LogIndex, to: LogIndex): void {
    const neighbour = this.rng.pick([...this.nodes.values()].filter((o) => o !== n && o.core !== null));
    if (neighbour === undefined) return;
    this.#deliver(n.id, neighbour.id, () => {
      const core = neighbour.core;
      if (core === null) return;
      const commit = core.view().commit;
      const prevTerm = core.termAt(logIndex(from - 1));
      const entries = core.entries(from, logIndex(Math.min(to, commit + 1)));
      if (prevTerm === undefined || entries.length === 0) return;
      this.#deliver(neighbour.id, n.id, () =>
        this.step(n.id, {
          type: 'committed-entries',
          prevIndex: logIndex(from - 1),
          prevTerm: term(prevTerm),
          entries,
          commit,
        }),
      );
    });
  }

  /** What the master's core does besides: keeps the leader told of learners and of who is alive. */
  #housekeeping(): void {
    this.at(50, () => {
      const up = [...this.nodes.values()].filter((n) => n.core !== null);
      for (const n of up) {
        const near = up.filter((o) => this.side.get(o.id) === this.side.get(n.id)).map((o) => o.id);
        this.step(n.id, { type: 'health', alive: near.filter((id) => id !== n.id) });
        if (n.core?.view().role !== 'leader') continue;
        const { voters, outgoing } = n.core.view().membership;
        const learners = [...this.nodes.keys()].filter((id) => !voters.includes(id) && !outgoing?.includes(id));
        this.step(n.id, { type: 'learners', learners, direct: [] });
      }
      this.#housekeeping();
    });
  }

  // ---- what tests do

  leader(): SimNode | undefined {
    let best: SimNode | undefined;
    for (const n of this.nodes.values()) {
      const v = n.core?.view();
      if (v?.role === 'leader' && (best === undefined || v.term > (best.core?.view().term ?? 0))) best = n;
    }
    return best;
  }

  propose(id: NodeId, text?: string): number {
    const proposalId = this.#nextId++;
    const words = text ?? `p${proposalId}`;
    this.proposals.set(proposalId, { text: words, result: null });
    this.step(id, { type: 'propose', proposals: [{ proposalId, bytes: new TextEncoder().encode(words) }] });
    return proposalId;
  }

  read(id: NodeId): number {
    const readId = this.#nextId++;
    this.reads.set(readId, { floor: this.check.acknowledged, done: false, ok: false });
    this.step(id, { type: 'read-index', id: readId });
    return readId;
  }

  changeVoters(id: NodeId, voters: readonly NodeId[]): number {
    const proposalId = this.#nextId++;
    this.changes.set(proposalId, null);
    this.step(id, { type: 'change-voters', voters, proposalId });
    return proposalId;
  }

  /** Splits the nodes at random into two sides; or heals. */
  partition(): void {
    for (const id of this.nodes.keys()) this.side.set(id, this.rng.int(0, 1));
  }
  heal(): void {
    for (const id of this.nodes.keys()) this.side.set(id, 0);
    this.faults = CALM;
    for (const id of this.nodes.keys()) this.start(id);
  }
}

import type { ClientResult, GossipMessage, PeerConfig, PeerEffect, PeerEvent, PeerNotice, HostFacts } from '../core/peer/types.ts';
import type { DesiredCopy } from '../core/reconcile/types.ts';
import type { LogEntry } from '../core/consensus/types.ts';
import { nodeId, taskId, wallMs, type NodeId, type TaskId } from '../model/ids.ts';
import { createRng, type Rng } from '../model/random.ts';
import type { Command } from '../model/commands.ts';
import type { TaskSpec } from '../model/task-spec.ts';
import { stateDigest } from '../core/state/state.ts';
import { createEventHeap } from './event-heap.ts';
import { InvariantBroken, Invariants } from './invariants.ts';
import { Machine } from './machine.ts';

// A whole cluster of real peer cores on virtual time: one seed decides everything, so any run can be had again.

export interface WorldOptions {
  readonly seed: string;
  readonly machines: number;
  readonly config: PeerConfig;
  /** One-way network delay range, ms, and probability that a message is lost (a reset stream drops what is in flight). */
  readonly delayMs: readonly [number, number];
  readonly loss: number;
  /** fsync duration range, ms. */
  readonly fsyncMs: readonly [number, number];
  /** Start of a copy, range, ms. */
  readonly startMs: readonly [number, number];
  /** Probability that a machine loses power between two effects of a step. */
  readonly crashBetweenEffects: number;
}

export interface Tally {
  elections: number;
  crashes: number;
  agentCrashes: number;
  heals: number;
  cuts: number;
  falseDeaths: number;
  revivals: number;
  messages: number;
  events: number;
}

/** What a bystander notes, for timelines and recovery times. */
export interface WorldObserver {
  onCopyRuns?(machine: Machine, copy: DesiredCopy, at: number): void;
  onCopyGone?(machine: Machine, copy: DesiredCopy, at: number): void;
  onNotice?(machine: Machine, notice: PeerNotice, at: number): void;
}

export class World {
  readonly seed: string;
  readonly config: PeerConfig;
  readonly invariants = new Invariants();
  readonly machines: Machine[] = [];
  readonly tally: Tally = { elections: 0, crashes: 0, agentCrashes: 0, heals: 0, cuts: 0, falseDeaths: 0, revivals: 0, messages: 0, events: 0 };
  readonly observers = new Set<WorldObserver>();
  now = 0;
  /** Off while faults stop and the cluster is to settle. */
  faultsOn = true;
  readonly #options: WorldOptions;
  readonly #heap = createEventHeap();
  readonly #rng: Rng;
  readonly #byId = new Map<NodeId, Machine>();
  /** Blocked directions, `from>to`. */
  readonly #blocked = new Set<string>();
  /** Open connections, `low|high`. */
  readonly #links = new Set<string>();
  readonly #wanted = new Map<NodeId, readonly NodeId[]>();
  readonly #replies = new Map<number, (result: ClientResult) => void>();
  readonly #stalls = new Map<NodeId, number>();
  #requestIds = 1;
  #appliedUpTo = new Map<NodeId, number>();

  constructor(options: WorldOptions) {
    this.#options = options;
    this.seed = options.seed;
    this.config = options.config;
    this.#rng = createRng(`${options.seed}/world`);
    for (let i = 0; i < options.machines; i++) this.addMachine();
  }

  // ---- time ------------------------------------------------------------------------------------------------------------

  rngFor(name: string): Rng {
    return createRng(`${this.seed}/${name}`);
  }
  wallNow(): number {
    return 1_700_000_000_000 + Math.floor(this.now);
  }
  at(at: number, run: () => void): void {
    this.#heap.push(at, run);
  }
  after(ms: number, run: () => void): void {
    this.#heap.push(this.now + ms, run);
  }
  /** Runs until virtual time `until`, or until `done` holds (looked at after every event). Returns whether it did. */
  run(until: number, done?: () => boolean): boolean {
    for (;;) {
      if (done?.()) return true;
      const next = this.#heap.pop();
      if (next === undefined || next.at > until) {
        if (next !== undefined) this.#heap.push(next.at, next.run);
        this.now = until;
        return done?.() ?? true;
      }
      this.now = next.at;
      this.tally.events += 1;
      next.run();
    }
  }

  // ---- machines --------------------------------------------------------------------------------------------------------

  /** Machine 0 founds the cluster; the rest know it and are admitted through it. */
  addMachine(): Machine {
    const index = this.machines.length;
    const id = nodeId(`12D3Sim${String(index).padStart(3, '0')}`);
    const first = this.machines[0]?.id ?? id;
    const machine = new Machine(this, index, id, index === 0 ? [id] : [], index === 0 ? [] : [{ id: first, addresses: ['/sim/0'] }]);
    this.machines.push(machine);
    this.#byId.set(id, machine);
    return machine;
  }
  machine(id: NodeId): Machine {
    const m = this.#byId.get(id);
    if (!m) throw new Error(`no machine ${id}`);
    return m;
  }
  hostFacts(machine: Machine): HostFacts {
    return {
      name: `node${machine.index + 1}`, addresses: [`/sim/${machine.index}`], bootProbe: [`sim:${machine.index}`], agentVersion: 'sim', wireVersion: 1, os: 'linux', arch: 'x64',
      runtimes: ['process'], problems: [], canFence: true, labels: {}, priority: 0, witness: false, images: [],
      resources: { cpus: 64, memoryBytes: 64 * 2 ** 30, diskBytes: 2 ** 40, gpus: [], devices: [] },
      load: { cpuUsage: 0.1, cpuFrequencyMHz: null, memoryUsedBytes: 0, diskUsedBytes: 0, temperatureC: null, battery: null, fansRpm: [], gpus: [] },
    };
  }
  fsyncMs(machine: Machine): number {
    return this.#between(machine.rng, this.#options.fsyncMs);
  }
  startMs(machine: Machine): number {
    return this.#between(machine.rng, this.#options.startMs);
  }
  stallOf(machine: Machine): number {
    const until = this.#stalls.get(machine.id) ?? 0;
    return Math.max(0, until - this.now);
  }
  /** The agent process stands still (GC, overload); boot goes on. */
  stall(machine: Machine, ms: number): void {
    this.#stalls.set(machine.id, this.now + ms);
  }
  crashBetweenEffects(machine: Machine): boolean {
    const p = this.#options.crashBetweenEffects;
    if (p === 0 || !this.faultsOn || machine.rng.next() >= p) return false;
    this.tally.crashes += 1;
    this.after(machine.rng.int(500, 8000), () => {
      if (!machine.powered) machine.powerOn();
    });
    return true;
  }
  #between(rng: Rng, [lo, hi]: readonly [number, number]): number {
    return lo + rng.next() * (hi - lo);
  }

  // ---- network ---------------------------------------------------------------------------------------------------------

  #link(a: NodeId, b: NodeId): string {
    return a < b ? `${a}|${b}` : `${b}|${a}`;
  }
  reaches(from: NodeId, to: NodeId): boolean {
    return !this.#blocked.has(`${from}>${to}`);
  }
  block(from: Machine, to: Machine): void {
    this.#blocked.add(`${from.id}>${to.id}`);
  }
  unblock(from: Machine, to: Machine): void {
    this.#blocked.delete(`${from.id}>${to.id}`);
  }
  /** Machines of different groups do not hear each other; unnamed machines are alone. */
  partition(groups: readonly (readonly Machine[])[]): void {
    this.heal();
    const group = new Map<NodeId, number>();
    groups.forEach((g, i) => {
      for (const m of g) group.set(m.id, i);
    });
    for (const a of this.machines) for (const b of this.machines) if (a !== b && (group.get(a.id) ?? -1 - a.index) !== (group.get(b.id) ?? -1 - b.index)) this.block(a, b);
    this.tally.cuts += 1;
  }
  heal(): void {
    if (this.#blocked.size > 0) this.tally.heals += 1;
    this.#blocked.clear();
  }
  #delay(): number {
    return this.#between(this.#rng, this.#options.delayMs);
  }

  send(from: Machine, to: NodeId, event: PeerEvent): void {
    if (!this.#links.has(this.#link(from.id, to))) return;
    this.tally.messages += 1;
    if (!this.reaches(from.id, to) || (this.faultsOn && this.#rng.next() < this.#options.loss)) return;
    const stalled = this.stallOf(this.machine(to));
    this.after(this.#delay() + stalled, () => {
      const target = this.machine(to);
      if (target.up && this.#links.has(this.#link(from.id, to))) target.post(event);
    });
  }

  publish(from: Machine, gossip: GossipMessage): void {
    for (const target of this.machines) {
      if (target === from) continue;
      // Gossip reaches whoever is joined by any chain of links; one hop stands for it here, with a longer delay.
      if (!this.reaches(from.id, target.id) || (this.faultsOn && this.#rng.next() < this.#options.loss)) continue;
      this.tally.messages += 1;
      this.after(this.#delay() * 2 + this.stallOf(target), () => {
        if (target.up) target.post({ type: 'gossip', from: from.id, ...gossip });
      });
    }
  }

  probeBoot(from: Machine, peer: NodeId, attempt: number): void {
    const target = this.machine(peer);
    if (!this.reaches(from.id, peer)) return;
    this.after(this.#delay(), () => {
      if (!target.boot || !this.reaches(peer, from.id)) return;
      this.after(this.#delay(), () => from.post({ type: 'boot-ack', peer, attempt }));
    });
  }

  wanted(machine: Machine, wanted: readonly NodeId[]): void {
    this.#wanted.set(machine.id, wanted);
    for (const id of wanted) if (!this.#links.has(this.#link(machine.id, id))) this.after(1, () => this.dial(machine, id));
  }

  dial(from: Machine, to: NodeId): void {
    if (!from.up || this.#links.has(this.#link(from.id, to))) return;
    const target = this.#byId.get(to);
    if (!target) return;
    this.after(2 * this.#delay(), () => {
      if (!from.up || this.#links.has(this.#link(from.id, to))) return;
      const both = this.reaches(from.id, to) && this.reaches(to, from.id);
      if (both && target.up) {
        this.#links.add(this.#link(from.id, to));
        target.post({ type: 'connected', peer: from.id });
        from.post({ type: 'connected', peer: to });
      } else {
        if (both && target.powered) from.post({ type: 'dial-failed', peer: to, refused: true });
        this.#redial(from, to);
      }
    });
  }
  #redial(from: Machine, to: NodeId): void {
    this.after(200 + this.#rng.next() * 300, () => {
      if (from.up && (this.#wanted.get(from.id) ?? []).includes(to)) this.dial(from, to);
    });
  }
  #close(machine: Machine, silent: boolean): void {
    for (const other of this.machines) {
      if (other === machine || !this.#links.delete(this.#link(machine.id, other.id))) continue;
      // A power cut sends no FIN: the other end finds out by probing, and its own redial.
      this.after(silent ? 400 : this.#delay() + 2, () => {
        if (!other.up || this.#links.has(this.#link(machine.id, other.id))) return;
        other.post({ type: 'disconnected', peer: machine.id });
        this.#redial(other, machine.id);
      });
    }
  }
  machineSilent(machine: Machine): void {
    this.#close(machine, true);
  }
  agentGone(machine: Machine): void {
    this.tally.agentCrashes += 1;
    this.#close(machine, false);
  }
  agentUp(machine: Machine): void {
    for (const id of this.#wanted.get(machine.id) ?? []) this.dial(machine, id);
  }

  fetchEntries(from: Machine, lo: number, hi: number, peers: readonly NodeId[]): void {
    const neighbour = peers.map((p) => this.machine(p)).find((m) => m.up && this.reaches(from.id, m.id) && this.reaches(m.id, from.id));
    if (!neighbour) return;
    this.after(2 * this.#delay(), () => {
      const entries = neighbour.entries(lo, hi);
      if (entries && entries.entries.length > 0) from.post({ type: 'range-reply', entries });
    });
  }
  fetchSnapshot(from: Machine, effect: Extract<PeerEffect, { type: 'fetch-snapshot' }>): void {
    const source = this.machine(effect.from);
    this.after(10 + 2 * this.#delay(), () => {
      const snapshot = source.snapshot();
      if (!snapshot || !from.up || !this.reaches(source.id, from.id) || snapshot.index < effect.index) return;
      const index = snapshot.index as typeof effect.index;
      const term = source.peer?.termAt(index) ?? effect.term;
      from.disk.install(index, term, effect.membership, snapshot.pairs);
      this.#appliedUpTo.set(from.id, index);
      from.post({ type: 'snapshot-installed', index, term, membership: effect.membership, pairs: snapshot.pairs });
    });
  }

  // ---- clients and bystanders --------------------------------------------------------------------------------------------

  submit(machine: Machine, spec: TaskSpec, id: TaskId = taskId(`t-${spec.name}`)): void {
    const requestId = this.#requestIds++;
    this.#replies.set(requestId, (result) => {
      if (result.ok && result.result.ok) this.invariants.accepted(id, spec.name);
    });
    machine.post({ type: 'client-submit', requestId, submission: { id, spec, nonce: id, expiresAt: wallMs(this.wallNow() + 86_400_000), from: machine.id } });
  }
  propose(machine: Machine, command: Record<string, unknown>, then: (result: ClientResult) => void = () => {}): void {
    const requestId = this.#requestIds++;
    this.#replies.set(requestId, then);
    machine.post({ type: 'client-propose', requestId, command: { by: machine.id, at: wallMs(this.wallNow()), ...command } as unknown as Command });
  }
  replied(_machine: Machine, requestId: number, result: ClientResult): void {
    this.#replies.get(requestId)?.(result);
    this.#replies.delete(requestId);
  }
  copyRuns(machine: Machine, copy: DesiredCopy): void {
    if (copy.generation.g > 1) this.tally.revivals += 1;
    for (const o of this.observers) o.onCopyRuns?.(machine, copy, this.now);
  }
  copyGone(machine: Machine, copy: DesiredCopy): void {
    for (const o of this.observers) o.onCopyGone?.(machine, copy, this.now);
  }
  noticed(machine: Machine, notice: PeerNotice): void {
    if (notice.type === 'role' && notice.role === 'leader') {
      this.tally.elections += 1;
      const peer = machine.peer;
      if (peer) this.invariants.leader(machine.id, notice.term, (index) => peer.termAt(index));
    }
    if (notice.type === 'member' && notice.change.to === 'dead' && this.machine(notice.change.id).powered && this.reaches(machine.id, notice.change.id)) this.tally.falseDeaths += 1;
    for (const o of this.observers) o.onNotice?.(machine, notice, this.now);
  }

  // ---- checks ------------------------------------------------------------------------------------------------------------

  /** After every event of a machine: what it applied since, and its commit. */
  checked(machine: Machine): void {
    const peer = machine.peer;
    if (!peer) return;
    const view = peer.consensus();
    this.invariants.commit(machine.id, view.commit);
    const from = this.#appliedUpTo.get(machine.id) ?? 0;
    const to = peer.state().applied;
    if (to > from) {
      for (const entry of peer.logEntries((from + 1) as never, (to + 1) as never)) this.#appliedEntry(machine, entry);
      this.#appliedUpTo.set(machine.id, to);
    } else if (to < from) this.#appliedUpTo.set(machine.id, to);
    if (peer.pending().size > 10_000) throw new InvariantBroken('bounded queues', `${machine.id} holds ${peer.pending().size} submissions`);
  }
  #appliedEntry(machine: Machine, entry: LogEntry): void {
    this.invariants.applied(machine.id, entry);
  }

  leader(): Machine | undefined {
    return this.machines.filter((m) => m.peer?.consensus().role === 'leader').sort((a, b) => (b.peer?.consensus().term ?? 0) - (a.peer?.consensus().term ?? 0))[0];
  }
  /** Everybody up, one leader, all applied alike, every task to be running runs. */
  settled(): boolean {
    const up = this.machines.filter((m) => m.powered);
    const leader = this.leader();
    if (!leader || up.some((m) => !m.up)) return false;
    const applied = leader.peer?.state().applied ?? 0;
    if (leader.peer?.consensus().commit !== applied || leader.peer.consensus().lastIndex !== applied) return false;
    if (up.some((m) => m.peer?.state().applied !== applied || m.peer.leader() !== leader.id)) return false;
    for (const task of leader.peer.state().tasks.values()) {
      if (task.desired !== 'running') continue;
      for (const slot of task.slots) {
        if (slot.state.kind === 'finished' || slot.state.kind === 'failed') continue;
        if (slot.state.kind !== 'assigned') return false;
        const holder = this.machine(slot.state.node);
        if (![...holder.copies.values()].some((c) => c.desired.taskId === task.id && c.desired.slot === slot.slot && c.desired.generation.g === slot.generation.g)) return false;
      }
    }
    return true;
  }
  /** All peers' records alike (same digest). Throws otherwise. */
  checkDigests(): void {
    const digests = this.machines.filter((m) => m.up && m.peer).map((m) => [m.id, stateDigest((m.peer as NonNullable<typeof m.peer>).state())] as const);
    const first = digests[0];
    for (const [id, digest] of digests) if (first && digest !== first[1]) throw new InvariantBroken('equal records', `${id} and ${first[0]} differ`);
    for (const m of this.machines) if (m.peer) this.invariants.tasks(m.id, m.peer.state().tasks);
  }
}

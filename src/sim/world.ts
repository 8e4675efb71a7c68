import type { LogEntry } from '../core/consensus/types.ts';
import type { ClientResult, HostFacts, PeerConfig, PeerNotice } from '../core/peer/types.ts';
import type { DesiredCopy } from '../core/reconcile/types.ts';
import type { Command } from '../model/commands.ts';
import { type NodeId, nodeId, type TaskId, taskId, wallMs } from '../model/ids.ts';
import { sameGeneration } from '../model/generation.ts';
import { LIMITS } from '../model/limits.ts';
import { createRng, type Rng } from '../model/random.ts';
import type { TaskSpec } from '../model/task-spec.ts';
import type { Defect } from './defects.ts';
import { createEventHeap } from './event-heap.ts';
import { InvariantBroken, Invariants } from './invariants.ts';
import { Machine } from './machine.ts';
import { Network, type NetworkOptions } from './network.ts';
import { createTrace } from './trace.ts';
import { Watch } from './watch.ts';

// A whole cluster of real peer cores on virtual time: one seed decides everything, so any run can be had again.

export interface WorldOptions {
  readonly seed: string;
  readonly machines: number;
  readonly config: PeerConfig;
  readonly network: NetworkOptions;
  /** fsync duration range, ms. */
  readonly fsyncMs: readonly [number, number];
  /** Start of a copy, range, ms. */
  readonly startMs: readonly [number, number];
  /** Probability that a machine loses power between two effects of a step. */
  readonly crashBetweenEffects: number;
  /** Each machine's clock runs at a rate within 1 +- this. */
  readonly clockRateError: number;
  /** The last machine votes and runs nothing. */
  readonly witness: boolean;
  readonly defects: readonly Defect[];
}

export const NO_TALLY = {
  elections: 0,
  crashes: 0,
  agentCrashes: 0,
  engineCrashes: 0,
  stalls: 0,
  freezes: 0,
  reads: 0,
  cuts: 0,
  heals: 0,
  joins: 0,
  drains: 0,
  snapshots: 0,
  falseDeaths: 0,
  leaseExpiries: 0,
  revivals: 0,
  /** Times a machine became caretaker of a side without a majority; copies such sides started, and what became of them. */
  caretakers: 0,
  provisionalStarts: 0,
  adoptions: 0,
  drops: 0,
  messages: 0,
  events: 0,
};
export type Tally = { -readonly [K in keyof typeof NO_TALLY]: number };

/** What a bystander notes, for timelines and recovery times. */
export interface WorldObserver {
  onCopyRuns?(machine: Machine, copy: DesiredCopy, at: number): void;
  onCopyGone?(machine: Machine, copy: DesiredCopy, at: number): void;
  onNotice?(machine: Machine, notice: PeerNotice, at: number): void;
}

/** A peer may wait for this many answers of its own log at once: what one batch of the master and a few clients make. */
const MAX_ORIGINS = LIMITS.proposalsInFlight * 2;
const SUBMISSION_LIFE_MS = 86_400_000;

export class World {
  readonly seed: string;
  readonly config: PeerConfig;
  readonly invariants = new Invariants(this);
  readonly watch = new Watch(this);
  readonly trace = createTrace();
  readonly network: Network;
  readonly machines: Machine[] = [];
  readonly defects: ReadonlySet<Defect>;
  readonly tally: Tally = { ...NO_TALLY };
  readonly observers = new Set<WorldObserver>();
  now = 0;
  /** Off while faults stop and the cluster is to settle. */
  faultsOn = true;
  disturbedAt = 0;
  readonly #options: WorldOptions;
  readonly #heap = createEventHeap();
  readonly #byId = new Map<NodeId, Machine>();
  readonly #replies = new Map<number, (result: ClientResult) => void>();
  readonly #stalls = new Map<NodeId, number>();
  readonly #appliedUpTo = new Map<NodeId, number>();
  readonly #heads = new Map<NodeId, HostFacts>();
  #requestIds = 1;

  constructor(options: WorldOptions) {
    this.#options = options;
    this.seed = options.seed;
    this.config = options.config;
    this.defects = new Set(options.defects);
    this.network = new Network(this, options.network);
    for (let i = 0; i < options.machines; i++) this.addMachine(options.witness && i === options.machines - 1);
  }

  has(defect: Defect): boolean {
    return this.defects.size > 0 && this.defects.has(defect);
  }

  // ---- time --------------------------------------------------------------------------------------------------------------

  rngFor(name: string): Rng {
    return createRng(`${this.seed}/${name}`);
  }
  wallNow(): number {
    return 1_700_000_000_000 + Math.floor(this.now);
  }
  at(at: number, run: () => void): void {
    this.#heap.push(Math.max(at, this.now), run);
  }
  after(ms: number, run: () => void): void {
    this.#heap.push(this.now + ms, run);
  }
  /** Runs until virtual time `until`, or until `done` holds (looked at after every event). Returns whether it did. */
  run(until: number, done?: () => boolean): boolean {
    for (;;) {
      if (done?.()) return true;
      const at = this.#heap.nextAt();
      if (at === undefined || at > until) {
        this.now = until;
        return done?.() ?? true;
      }
      const next = this.#heap.pop() as { readonly at: number; readonly run: () => void };
      this.now = at;
      this.tally.events += 1;
      next.run();
    }
  }

  // ---- machines ----------------------------------------------------------------------------------------------------------

  /** Machine 0 founds the cluster; the rest know it and are admitted through any that is up. */
  addMachine(witness = false): Machine {
    const index = this.machines.length;
    const id = nodeId(`12D3Sim${String(index).padStart(3, '0')}`);
    const error = this.has('wild-clocks') ? 0.3 : this.#options.clockRateError;
    const rate = 1 + (this.rngFor(`clock/${index}`).next() * 2 - 1) * error;
    const seeds = this.machines.map((m) => ({ id: m.id, addresses: [`/sim/${m.index}`] }));
    const machine = new Machine(this, index, id, { voters: index === 0 ? [id] : [], seeds, rate, witness });
    this.machines.push(machine);
    this.#byId.set(id, machine);
    return machine;
  }
  find(id: NodeId): Machine | undefined {
    return this.#byId.get(id);
  }
  machine(id: NodeId): Machine {
    const m = this.#byId.get(id);
    if (!m) throw new Error(`no machine ${id}`);
    return m;
  }
  hostFacts(machine: Machine): HostFacts {
    let head = this.#heads.get(machine.id);
    if (!head) {
      head = {
        name: `node${machine.index + 1}`,
        addresses: [`/sim/${machine.index}`],
        bootProbe: [`sim:${machine.index}`],
        agentVersion: 'sim',
        wireVersion: 2,
        os: 'linux',
        arch: 'x64',
        runtimes: machine.witness && !this.has('witness-works') ? [] : ['process'],
        problems: [],
        canFence: true,
        labels: {},
        priority: 0,
        witness: machine.witness && !this.has('witness-works'),
        images: [],
        resources: { cpus: 64, memoryBytes: 64 * 2 ** 30, diskBytes: 2 ** 40, gpus: [], devices: [] },
        load: {
          cpuUsage: 0.1,
          cpuFrequencyMHz: null,
          memoryUsedBytes: 0,
          diskUsedBytes: 0,
          temperatureC: null,
          battery: null,
          fansRpm: [],
          gpus: [],
        },
      };
      this.#heads.set(machine.id, head);
    }
    return head;
  }
  configOf(machine: Machine): PeerConfig {
    if (!this.has('settings-differ') || machine.index % 2 === 0) return this.config;
    const { lease } = this.config;
    return { ...this.config, lease: { ...lease, leaseMs: (lease.leaseMs / 2) as typeof lease.leaseMs } };
  }
  /** Something was broken or mended: what the cluster is like from here on takes a while to show. */
  disturbed(): void {
    this.disturbedAt = this.now;
  }
  fsyncMs(machine: Machine): number {
    return between(machine.rng, this.#options.fsyncMs);
  }
  startMs(machine: Machine): number {
    return between(machine.rng, this.#options.startMs);
  }
  stallOf(machine: Machine): number {
    return this.#stalls.size === 0 ? 0 : Math.max(0, (this.#stalls.get(machine.id) ?? 0) - this.now);
  }
  /** The agent process stands still (GC, overload); boot goes on. */
  stall(machine: Machine, ms: number): void {
    this.tally.stalls += 1;
    this.disturbed();
    this.after(ms, () => this.disturbed());
    this.#stalls.set(machine.id, this.now + ms);
  }
  /** The whole machine stands still, boot and its copies too. */
  freeze(machine: Machine, ms: number): void {
    if (machine.frozen || !machine.powered) return;
    this.tally.freezes += 1;
    this.disturbed();
    machine.freeze();
    this.after(ms, () => machine.thaw());
  }
  crashesNow(machine: Machine): boolean {
    const p = this.#options.crashBetweenEffects;
    if (p === 0 || !this.faultsOn || machine.rng.next() >= p) return false;
    this.tally.crashes += 1;
    this.after(machine.rng.int(500, 8000), () => machine.powerOn());
    return true;
  }

  // ---- clients and bystanders --------------------------------------------------------------------------------------------

  submit(machine: Machine, spec: TaskSpec, id: TaskId = taskId(`t-${spec.name}`)): void {
    const requestId = this.#requestIds++;
    this.#replies.set(requestId, (result) => {
      if (result.ok && result.result.ok) this.invariants.acknowledged(id, spec.name);
    });
    machine.post({
      type: 'client-submit',
      requestId,
      submission: { id, spec, nonce: id, expiresAt: wallMs(this.wallNow() + SUBMISSION_LIFE_MS), from: machine.id },
    });
  }
  propose(machine: Machine, command: Record<string, unknown>, then: (result: ClientResult) => void = () => {}): void {
    const requestId = this.#requestIds++;
    this.#replies.set(requestId, then);
    machine.post({
      type: 'client-propose',
      requestId,
      command: { by: machine.id, at: wallMs(this.wallNow()), ...command } as unknown as Command,
    });
  }
  /** A read that has to be current: of everything that was committed when it was asked for. */
  read(machine: Machine): void {
    if (!machine.up || machine.frozen) return;
    const floor = this.invariants.committedCount;
    const requestId = this.#requestIds++;
    const answered = (index: number): void => {
      this.tally.reads += 1;
      this.watch.read(machine, index, floor);
    };
    if (this.has('reads-own-records')) return answered(machine.peer?.state().applied ?? 0);
    this.#replies.set(requestId, (result) => {
      if (result.ok) answered(result.index);
    });
    machine.post({ type: 'client-read', requestId });
  }
  replied(requestId: number, result: ClientResult): void {
    this.#replies.get(requestId)?.(result);
    this.#replies.delete(requestId);
  }
  copyRuns(machine: Machine, copy: DesiredCopy): void {
    if (machine.witness) throw new InvariantBroken('a witness runs nothing', `${machine.id} runs ${copy.taskId}`);
    if (copy.generation.g > 1) this.tally.revivals += 1;
    if (copy.generation.provisional !== undefined) {
      this.tally.provisionalStarts += 1;
      this.invariants.provisionalStarted(machine.id, copy);
    }
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
      this.watch.elected(machine, notice.term);
    }
    if (notice.type === 'role' && notice.role === 'candidate') this.watch.campaigns(machine, notice.term);
    if (notice.type === 'caretaker' && notice.caretaker === machine.id) this.tally.caretakers += 1;
    if (
      notice.type === 'member' &&
      notice.change.to === 'dead' &&
      this.machine(notice.change.id).powered &&
      !this.machine(notice.change.id).frozen &&
      this.network.reaches(machine.id, notice.change.id)
    )
      this.tally.falseDeaths += 1;
    for (const o of this.observers) o.onNotice?.(machine, notice, this.now);
  }

  // ---- checks ------------------------------------------------------------------------------------------------------------

  /** After every event of a machine: what it applied since, its commit, and its queues. */
  checked(machine: Machine): void {
    const peer = machine.peer;
    if (!peer) return;
    const view = peer.consensus();
    this.invariants.commit(machine.id, view.commit);
    const from = this.#appliedUpTo.get(machine.id) ?? 0;
    const to = peer.state().applied;
    if (to === from) return this.invariants.told();
    if (to > from)
      for (const entry of peer.logEntries((from + 1) as never, (to + 1) as never)) this.#applied(machine, entry);
    this.invariants.told();
    this.#appliedUpTo.set(machine.id, to);
    this.#bounds(machine, peer.sizes());
  }
  #applied(machine: Machine, entry: LogEntry): void {
    if (entry.index > this.invariants.committedCount) this.watch.committed(machine, entry);
    this.invariants.applied(machine.id, entry);
  }
  #bounds(machine: Machine, sizes: ReturnType<NonNullable<Machine['peer']>['sizes']>): void {
    const { logRetained } = this.config.consensus;
    const bounds: [string, number, number][] = [
      ['submissions', sizes.pending, LIMITS.pendingSubmissions],
      ['proposals without an answer', sizes.proposals, MAX_ORIGINS],
      ['reads without an answer', sizes.reads, LIMITS.rpcInFlight],
      ['waiting clients', sizes.clients, LIMITS.rpcInFlight],
      ['log entries', sizes.log, logRetained * 1.25 + LIMITS.proposalsInFlight],
      ['decisions in flight', sizes.decisions, LIMITS.proposalsInFlight],
    ];
    for (const [what, is, may] of bounds)
      if (is > may) throw new InvariantBroken('bounded queues', `${machine.id} holds ${is} ${what}, may hold ${may}`);
  }
  /** A snapshot took it to `index`. */
  jumped(machine: Machine, index: number): void {
    this.#appliedUpTo.set(machine.id, index);
  }

  leader(): Machine | undefined {
    let best: Machine | undefined;
    for (const m of this.machines) {
      const view = m.peer?.consensus();
      if (view?.role === 'leader' && view.term > (best?.peer?.consensus().term ?? 0)) best = m;
    }
    return best;
  }
  /** Undefined: everybody up, one leader, all applied alike, every task to be running runs once. Otherwise what is missing. */
  unsettled(): string | undefined {
    const leader = this.leader();
    const peer = leader?.peer;
    if (!leader || !peer) return 'no leader';
    const { applied } = peer.state();
    const view = peer.consensus();
    if (view.commit !== applied || view.lastIndex !== applied)
      return `the leader has applied ${applied} of ${view.lastIndex}`;
    for (const m of this.machines) {
      if (!m.powered || m.frozen) continue;
      if (!m.peer) return `${m.id} has no agent`;
      if (m.peer.state().applied !== applied) return `${m.id} has applied ${m.peer.state().applied} of ${applied}`;
      if (m.peer.leader() !== leader.id) return `${m.id} follows ${m.peer.leader()}, not ${leader.id}`;
    }
    const unsettled = this.invariants.unsettled();
    if (unsettled.length > 0) return `kept submissions without a verdict: ${unsettled.slice(0, 3).join(' ')}`;
    let wanted = 0;
    for (const task of peer.state().tasks.values()) {
      if (task.desired !== 'running') continue;
      for (const slot of task.slots) {
        if (slot.state.kind === 'finished' || slot.state.kind === 'failed') continue;
        if (slot.state.kind !== 'assigned') return `${task.id}/${slot.slot} is ${slot.state.kind}`;
        wanted += 1;
        let runs = false;
        for (const c of this.machine(slot.state.node).copies.values())
          if (
            c.desired.taskId === task.id &&
            c.desired.slot === slot.slot &&
            sameGeneration(c.desired.generation, slot.state.adopted ?? slot.generation) &&
            !c.condemned
          )
            runs = true;
        if (!runs) return `${task.id}/${slot.slot} does not run on ${slot.state.node}`;
      }
    }
    let copies = 0;
    for (const m of this.machines) copies += m.copies.size;
    return copies === wanted ? undefined : `${copies} copies for ${wanted} slots`;
  }
  /** All peers' records are what the log gives, and no task is lost or back. Throws otherwise. */
  checkRecords(): void {
    for (const m of this.machines) {
      if (!m.peer) continue;
      this.invariants.records(m.id, m.peer.state());
      this.invariants.tasks(m.id, m.peer.state().tasks);
    }
  }
}

const between = (rng: Rng, [lo, hi]: readonly [number, number]): number => lo + rng.next() * (hi - lo);

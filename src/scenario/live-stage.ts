import { setTimeout as delay } from 'node:timers/promises';
import { Fleet, nodeName } from './fleet.ts';
import { RunBook } from './run-book.ts';
import type {
  CopyRun,
  FaultAction,
  NodeStatus,
  ScenarioStage,
  StageEvent,
  StageFault,
  TaskDocument,
  TaskStatus,
  Topology,
} from './types.ts';
import { FileWitness, witnessDocument } from './witness.ts';

/** What differs between local processes and real hosts. */
export interface LiveBackend {
  readonly kind: 'processes' | 'hosts';
  readonly supports: ReadonlySet<FaultAction>;
  /** Machines ready, nothing of task-org started. */
  prepare(topology: Topology, witness: { readonly book: RunBook; readonly onChange: () => void }): Promise<void>;
  /** The peer's data directory as seen from here; exists once launch resolved. */
  dataDir(node: number): string;
  socketPath(node: number): string;
  launch(node: number, options: { readonly token?: string; readonly witness: boolean }): Promise<void>;
  /** Power off; epoch ms of the cut. Resolves when nothing of the machine lives. */
  kill(node: number): Promise<number>;
  /** Power on; the peer itself is started by `launch`. */
  powerOn(node: number): Promise<void>;
  /** The faults other than kill, start and join; epoch ms. */
  disturb(fault: Exclude<StageFault, { readonly do: 'kill' | 'start' | 'join' }>): Promise<number>;
  teardown(): Promise<void>;
}

/** How often a settled state is looked for when no witness says that anything changed. */
const LOOK_EVERY_MS = 50;

/** A stage of real time and real peers. */
export class LiveStage implements ScenarioStage {
  readonly kind: 'processes' | 'hosts';
  readonly supports: ReadonlySet<FaultAction>;
  readonly #backend: LiveBackend;
  readonly #fleet: Fleet;
  readonly #book = new RunBook();
  readonly #files: FileWitness;
  readonly #events: StageEvent[] = [];
  readonly #log: (message: string) => void;
  readonly #up = new Set<number>();
  #topology: Topology | undefined;
  #changed: () => void = () => {};

  constructor(backend: LiveBackend, log: (message: string) => void) {
    this.#backend = backend;
    this.#log = log;
    this.kind = backend.kind;
    this.supports = backend.supports;
    this.#files = new FileWitness(this.#book, () => this.#changed());
    this.#fleet = new Fleet({
      socketPath: (node) => backend.socketPath(node),
      launch: (node, options) => this.#launch(node, options),
    });
  }

  async start(topology: Topology): Promise<void> {
    this.#topology = topology;
    await this.#backend.prepare(topology, { book: this.#book, onChange: () => this.#changed() });
    const startedAt = Date.now();
    await this.#fleet.form(topology);
    this.#note(`${topology.peers} peers form a cluster (${Date.now() - startedAt} ms)`);
  }

  now(): number {
    return Date.now();
  }

  async waitUntil(atMs: number): Promise<void> {
    const left = atMs - Date.now();
    if (left > 0) await delay(left);
  }

  async submit(document: TaskDocument): Promise<void> {
    await this.#fleet.submit(witnessDocument(document, this.#topology?.runtime ?? 'process'));
  }

  async tasks(): Promise<readonly TaskStatus[]> {
    return await this.#fleet.tasks();
  }

  async nodes(): Promise<readonly NodeStatus[]> {
    return await this.#fleet.nodes();
  }

  async master(): Promise<number | undefined> {
    return await this.#fleet.master();
  }

  async inject(fault: StageFault): Promise<number> {
    const atMs = await this.#carryOut(fault);
    const whom =
      fault.do === 'partition'
        ? fault.groups.map((group) => group.join(' ')).join(' | ')
        : fault.nodes.map(nodeName).join(', ');
    this.#note(`${fault.do} ${whom}`, atMs);
    return atMs;
  }

  runs(): readonly CopyRun[] {
    return this.#book.list(Date.now());
  }

  events(): readonly StageEvent[] {
    return this.#events;
  }

  async settle(holds: () => boolean | Promise<boolean>, timeoutMs: number): Promise<number | undefined> {
    const deadline = Date.now() + timeoutMs;
    for (;;) {
      const change = new Promise<void>((resolve) => {
        this.#changed = resolve;
      });
      if (await holds()) return Date.now();
      if (Date.now() >= deadline) return undefined;
      await Promise.race([change, delay(LOOK_EVERY_MS)]);
    }
  }

  async stop(): Promise<void> {
    this.#files.stop();
    this.#fleet.close();
    await this.#backend.teardown();
  }

  async #carryOut(fault: StageFault): Promise<number> {
    switch (fault.do) {
      case 'kill':
        return await this.#each(fault.nodes, (node) => this.#kill(node));
      case 'start':
        return await this.#each(fault.nodes, (node) => this.#startAgain(node));
      case 'join':
        return await this.#each(fault.nodes, async (node) => {
          const atMs = Date.now();
          await this.#fleet.join(node);
          return atMs;
        });
      case 'partition': {
        const largest = fault.groups.reduce(
          (best, group) => (group.length > best.length ? group : best),
          [] as readonly number[],
        );
        this.#fleet.setReachable([...this.#up], false);
        this.#fleet.setReachable(
          largest.filter((node) => this.#up.has(node)),
          true,
        );
        return await this.#backend.disturb(fault);
      }
      case 'cut':
      case 'freeze':
        this.#fleet.setReachable(fault.nodes, false);
        return await this.#backend.disturb(fault);
      case 'heal':
      case 'thaw': {
        const atMs = await this.#backend.disturb(fault);
        this.#fleet.setReachable(
          fault.nodes.length === 0 ? [...this.#up] : fault.nodes.filter((node) => this.#up.has(node)),
          true,
        );
        return atMs;
      }
      default:
        return await this.#backend.disturb(fault);
    }
  }

  async #kill(node: number): Promise<number> {
    this.#fleet.setReachable([node], false);
    this.#up.delete(node);
    const atMs = await this.#backend.kill(node);
    this.#book.nodeDied(node, Date.now()); // it may have written until its last process was reaped
    return atMs;
  }

  async #startAgain(node: number): Promise<number> {
    const atMs = Date.now();
    await this.#backend.powerOn(node);
    await this.#fleet.restart(node);
    return atMs;
  }

  async #launch(node: number, options: { readonly token?: string; readonly witness: boolean }): Promise<void> {
    await this.#backend.launch(node, options);
    this.#up.add(node);
    this.#files.follow(node, this.#backend.dataDir(node));
  }

  /** All at once; the earliest moment counts. */
  async #each(nodes: readonly number[], act: (node: number) => Promise<number>): Promise<number> {
    return Math.min(...(await Promise.all(nodes.map(act))));
  }

  #note(text: string, atMs = Date.now()): void {
    this.#events.push({ atMs, text });
    this.#log(text);
  }
}

import { RunBook } from '../../src/scenario/run-book.ts';
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
} from '../../src/scenario/types.ts';

/** What the fake cluster does wrong. */
export interface Flaws {
  /** Tasks of a dead node are never started again. */
  readonly loses?: boolean;
  /** A copy is started elsewhere while the old one runs on after a cut. */
  readonly doubles?: boolean;
  /** A kill also moves a copy of a healthy node. */
  readonly movesHealthy?: boolean;
  readonly refuses?: string;
}

export const RECOVERY_MS = 800;

/** A cluster in virtual time that does what it should, but for its flaws: time passes only in waitUntil and settle. */
export class FakeStage implements ScenarioStage {
  readonly kind = 'simulated';
  readonly supports: ReadonlySet<FaultAction>;
  readonly done: StageFault[] = [];
  stopped = 0;
  readonly #flaws: Flaws;
  readonly #book = new RunBook();
  readonly #copies = new Map<string, { task: string; slot: number; node: number; g: number; copy: string }>();
  readonly #timers: { atMs: number; run: () => void }[] = [];
  readonly #up = new Set<number>();
  #now = 1_000;
  #count = 0;

  constructor(
    flaws: Flaws = {},
    supports: readonly FaultAction[] = ['kill', 'start', 'cut', 'heal', 'kill-agent', 'join', 'partition'],
  ) {
    this.#flaws = flaws;
    this.supports = new Set(supports);
  }

  async start(topology: Topology): Promise<void> {
    for (let node = 1; node <= topology.peers; node += 1) this.#up.add(node);
  }
  now(): number {
    return this.#now;
  }
  async waitUntil(atMs: number): Promise<void> {
    for (let next = this.#due(atMs); next; next = this.#due(atMs)) {
      this.#now = Math.max(this.#now, next.atMs);
      next.run();
    }
    this.#now = Math.max(this.#now, atMs);
  }
  async submit(document: TaskDocument): Promise<void> {
    if (document.name === this.#flaws.refuses) throw new Error('no such image');
    const replicas = typeof document.replicas === 'number' ? document.replicas : 1;
    for (let slot = 0; slot < replicas; slot += 1) this.#place(document.name, slot, 1, []);
  }
  async tasks(): Promise<readonly TaskStatus[]> {
    const names = [...new Set([...this.#copies.values()].map((one) => one.task))];
    return names.map((name) => ({
      name,
      state: 'running',
      slots: [...this.#copies.values()]
        .filter((one) => one.task === name)
        .map((one) => ({
          slot: one.slot,
          node: one.node,
          state: 'running',
          generation: `1.${one.g}`,
          startedAtMs: one.g,
        })),
    }));
  }
  async nodes(): Promise<readonly NodeStatus[]> {
    return [...this.#up].map((node) => ({
      node,
      status: 'alive',
      role: node === Math.min(...this.#up) ? 'master' : 'voter',
    }));
  }
  async master(): Promise<number | undefined> {
    return this.#up.size === 0 ? undefined : Math.min(...this.#up);
  }
  async inject(fault: StageFault): Promise<number> {
    this.done.push(fault);
    const nodes = fault.do === 'partition' ? [] : fault.nodes;
    for (const node of nodes) {
      if (fault.do === 'start' || fault.do === 'join') this.#up.add(node);
      if (fault.do === 'kill') {
        this.#up.delete(node);
        this.#book.nodeDied(node, this.#now);
      }
      if (fault.do === 'kill' || fault.do === 'cut') this.#moveAll(node, fault.do);
    }
    if (fault.do === 'kill' && this.#flaws.movesHealthy) {
      const healthy = [...this.#copies.values()].find((one) => !nodes.includes(one.node));
      if (healthy) this.#move(healthy, [...nodes, healthy.node], true);
    }
    return this.#now;
  }
  runs(): readonly CopyRun[] {
    return this.#book.list(this.#now);
  }
  events(): readonly StageEvent[] {
    return this.done.map((fault) => ({ atMs: this.#now, text: fault.do }));
  }
  async settle(holds: () => boolean | Promise<boolean>, timeoutMs: number): Promise<number | undefined> {
    const deadline = this.#now + timeoutMs;
    while (!(await holds())) {
      const next = this.#due(deadline);
      if (!next) {
        this.#now = deadline;
        return (await holds()) ? deadline : undefined;
      }
      this.#now = Math.max(this.#now, next.atMs);
      next.run();
    }
    return this.#now;
  }
  async stop(): Promise<void> {
    this.stopped += 1;
  }

  #due(untilMs: number): { atMs: number; run: () => void } | undefined {
    this.#timers.sort((a, b) => a.atMs - b.atMs);
    const [next] = this.#timers;
    return next && next.atMs <= untilMs ? this.#timers.shift() : undefined;
  }

  #moveAll(node: number, why: 'kill' | 'cut'): void {
    if (this.#flaws.loses) return;
    for (const copy of [...this.#copies.values()].filter((one) => one.node === node))
      this.#move(copy, [node], why === 'cut');
  }

  #move(
    old: { task: string; slot: number; node: number; g: number; copy: string },
    not: readonly number[],
    ends: boolean,
  ): void {
    this.#timers.push({
      atMs: this.#now + RECOVERY_MS,
      run: () => {
        const stopOld = (): void => this.#book.ended(old.node, old.copy, this.#now);
        if (ends && !this.#flaws.doubles) stopOld();
        if (ends && this.#flaws.doubles) this.#timers.push({ atMs: this.#now + 300, run: stopOld });
        this.#place(old.task, old.slot, old.g + 1, not);
      },
    });
  }

  #place(task: string, slot: number, g: number, not: readonly number[]): void {
    const free = [...this.#up].filter((node) => !not.includes(node)).sort((a, b) => a - b);
    const node = free[this.#count % free.length] ?? 1;
    const copy = `c${this.#count++}`;
    this.#copies.set(`${task}[${slot}]`, { task, slot, node, g, copy });
    this.#book.started({ task, slot, generation: `1.${g}`, node, copy }, this.#now);
  }
}

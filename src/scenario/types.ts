// Words between the scenario runner and the stages it plays on.

/** What may be done to a stage. `nodes` are numbers from 1. */
export type StageFault =
  /** Power off: agent, boot and every copy at once. */
  | { readonly do: 'kill'; readonly nodes: readonly number[] }
  /** Only the agent process; boot and the copies live on. */
  | { readonly do: 'kill-agent'; readonly nodes: readonly number[] }
  /** Powers a killed peer on again, on the same disk. */
  | { readonly do: 'start'; readonly nodes: readonly number[] }
  /** Network silence. */
  | { readonly do: 'cut'; readonly nodes: readonly number[] }
  /** Empty = the whole network. */
  | { readonly do: 'heal'; readonly nodes: readonly number[] }
  | { readonly do: 'partition'; readonly groups: readonly (readonly number[])[] }
  | { readonly do: 'engine-kill' | 'engine-start'; readonly nodes: readonly number[] }
  | { readonly do: 'freeze' | 'thaw'; readonly nodes: readonly number[] }
  /** A further machine, numbered after the first ones, joins. */
  | { readonly do: 'join'; readonly nodes: readonly number[] };
export type FaultAction = StageFault['do'];

export interface Topology {
  readonly peers: number;
  /** Further machines that `join` may add later. */
  readonly joining: number;
  /** The last `witnesses` of the peers vote and run nothing. */
  readonly witnesses: number;
  readonly runtime: 'docker' | 'process';
  /** Seed of every random choice. */
  readonly seed: string;
}

/** A task document as a person writes it; the peer checks it. `name` and `replicas` are what the runner itself reads. */
export type TaskDocument = Readonly<Record<string, unknown>> & { readonly name: string };

export interface SlotStatus {
  readonly slot: number;
  /** Node number; null when no node holds it. */
  readonly node: number | null;
  readonly state: string;
  readonly generation: string;
  readonly startedAtMs: number | null;
}
export interface TaskStatus {
  readonly name: string;
  readonly state: string;
  readonly slots: readonly SlotStatus[];
}
export interface NodeStatus {
  readonly node: number;
  readonly status: string;
  readonly role: string;
}

/**
 * One copy's life as witnessed from outside, never as the system tells it. Times in the stage's milliseconds. A copy that
 * was silent for long (a frozen machine) has several spans.
 */
export interface CopyRun {
  readonly task: string;
  readonly slot: number;
  readonly generation: string;
  readonly node: number;
  /** Container id, or `pid:N`. */
  readonly copy: string;
  readonly spans: readonly { readonly fromMs: number; readonly toMs: number }[];
  /** Null while it lives. */
  readonly endedAtMs: number | null;
}

/** What happened, for the printed timeline. */
export interface StageEvent {
  readonly atMs: number;
  readonly text: string;
}

/**
 * Where a scenario is played: a simulator, processes of this machine, or real hosts. One scenario per stage; `stop` always
 * follows `start`, also when that failed. No method sleeps by itself; time passes in `waitUntil` and `settle`.
 */
export interface ScenarioStage {
  readonly kind: 'simulated' | 'processes' | 'hosts';
  readonly supports: ReadonlySet<FaultAction>;
  /** Resolves when all peers are members of one cluster with a master. */
  start(topology: Topology): Promise<void>;
  /** Milliseconds: of the epoch, or virtual ones. */
  now(): number;
  waitUntil(atMs: number): Promise<void>;
  /**
   * Hands the document to some live peer and resolves once it is accepted; tried again, with the same id, on another peer
   * when the first gives no answer. Documents without image and command get the stage's own witness workload. Rejects
   * when it is refused.
   */
  submit(document: TaskDocument): Promise<void>;
  /** As a live peer tells it. */
  tasks(): Promise<readonly TaskStatus[]>;
  nodes(): Promise<readonly NodeStatus[]>;
  /** Node number of the master; undefined when there is none. */
  master(): Promise<number | undefined>;
  /** Returns the stage's milliseconds of the fault itself. */
  inject(fault: StageFault): Promise<number>;
  /** Every copy witnessed so far, in no order. */
  runs(): readonly CopyRun[];
  events(): readonly StageEvent[];
  /** Asks whenever something may have changed. The milliseconds at which it first held; undefined after `timeoutMs`. */
  settle(holds: () => boolean | Promise<boolean>, timeoutMs: number): Promise<number | undefined>;
  stop(): Promise<void>;
}

export interface StageOptions {
  /** Where the stage keeps disks and logs; it makes a directory of its own there. */
  readonly dir: string;
  readonly log: (message: string) => void;
  /** Keeps data and logs after `stop`, for a look. */
  readonly keep: boolean;
}
export type StageFactory = (options: StageOptions) => ScenarioStage;

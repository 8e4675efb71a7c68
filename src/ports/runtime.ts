import type { CopyId, DesiredCopy, ObservedCopy } from '../core/reconcile/types.ts';
import type { KillTarget } from '../model/boot-protocol.ts';

export type { KillTarget };

/** Where copies run. Adapters: docker, process, fake (test). All pass test/contract/runtime-contract.ts. */
export interface Runtime {
  readonly kind: 'docker' | 'process';
  /** Facts for people: engine version, storage driver, cgroup version. Throws TaskOrgError('no_runtime') when it does not answer. */
  info(signal: AbortSignal): Promise<RuntimeInfo>;
  /** Image present / command usable, volumes created. Idempotent. Throws image_missing (hint says how to load it). */
  prepare(copy: DesiredCopy, signal: AbortSignal): Promise<void>;
  /**
   * Creates and starts. `register` is called after the copy's cgroup or pid is known to be about to exist and before any
   * of its processes run, so that boot can kill it. A copy of the same id that already runs is returned as it is.
   * `signal` aborted: nothing is left behind running.
   */
  start(copy: DesiredCopy, register: (how: KillTarget) => Promise<void>, signal: AbortSignal): Promise<ObservedCopy>;
  /** Stop signal, grace, SIGKILL, then removal. Resolves when no process of the copy is left. Idempotent. */
  stop(copyId: CopyId, options: StopOptions, signal: AbortSignal): Promise<void>;
  /** SIGKILL to all processes at once and removal. Idempotent. */
  kill(copyId: CopyId, signal: AbortSignal): Promise<void>;
  /** Every copy of this cluster on this machine, running or exited. */
  list(signal: AbortSignal): Promise<readonly ObservedCopy[]>;
  /** Events until `signal` aborts: exits as they happen (engine event stream, not polling); `down`/`up` when the engine goes and returns. */
  events(onEvent: (event: RuntimeEvent) => void, signal: AbortSignal): Promise<void>;
  stats(copyId: CopyId, signal: AbortSignal): Promise<CopyStats>;
  /** Chunks of the copy's output; ends when the copy ends unless it is `follow` and the copy goes on. */
  logs(
    copyId: CopyId,
    options: { readonly follow: boolean; readonly tail: number; readonly timestamps: boolean },
    signal: AbortSignal,
  ): AsyncIterable<LogChunk>;
  exec(copyId: CopyId, options: ExecOptions, signal: AbortSignal): Promise<ExecSession>;
  /** Images present, as references `name:tag`. Empty for runtimes without images. */
  images(signal: AbortSignal): Promise<readonly string[]>;
  close(): Promise<void>;
}

export interface StopOptions {
  readonly stopSignal: string;
  /** 0: killed at once. */
  readonly graceMs: number;
  /** What the copy wrote is set aside on this machine as a branch, where no copy will touch it, instead of removed. */
  readonly keep?: boolean;
}

export interface RuntimeInfo {
  readonly version: string;
  readonly details: Readonly<Record<string, string>>;
}

export type RuntimeEvent =
  | { readonly type: 'exited'; readonly copyId: CopyId; readonly exitCode: number | null; readonly oomKilled: boolean }
  | { readonly type: 'down'; readonly reason: string }
  | { readonly type: 'up' };

export interface CopyStats {
  /** Cores in use, e.g. 1.5. */
  readonly cpuCores: number;
  readonly memoryBytes: number;
  readonly memoryLimitBytes: number | null;
  readonly networkRxBytes: number;
  readonly networkTxBytes: number;
  readonly diskReadBytes: number;
  readonly diskWriteBytes: number;
  readonly pids: number;
}

export interface LogChunk {
  readonly stream: 'stdout' | 'stderr';
  readonly data: Uint8Array;
}

export interface ExecOptions {
  readonly command: readonly string[];
  readonly env: Readonly<Record<string, string>>;
  readonly tty: boolean;
  readonly interactive: boolean;
  readonly user: string;
  readonly workdir: string;
  readonly size: { readonly columns: number; readonly rows: number } | null;
}
export interface ExecSession {
  readonly output: AsyncIterable<LogChunk>;
  write(data: Uint8Array): Promise<void>;
  closeInput(): void;
  resize(columns: number, rows: number): Promise<void>;
  readonly exitCode: Promise<number>;
}

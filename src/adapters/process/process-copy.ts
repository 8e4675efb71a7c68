import { type FSWatcher, watch } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { formatCopyId, parseCopyId } from '../../core/reconcile/copy-id.ts';
import type { ObservedCopy } from '../../core/reconcile/types.ts';
import type { KillTarget } from '../../model/boot-protocol.ts';
import { wallMs } from '../../model/ids.ts';
import { removeCgroup, wasOomKilled } from './copy-cgroup.ts';
import type { CopyRecord } from './copy-record.ts';
import { isAlive, killTarget } from './kill-target.ts';
import { EXIT_FILE, noteExit, readExit } from './launcher.ts';
import { LogSampler } from './log-files.ts';
import { bootId, isSameProcess } from './proc-fs.ts';
import type { CpuSample } from './process-stats.ts';

/** As a shell and Docker write a death by SIGKILL. */
export const KILLED = 137;
const RETRY_MS = 100;
const THIS_BOOT = bootId();

/** One run of a process copy: its record, whether it still runs, and what to do when it ends. */
export class ProcessCopy {
  readonly dir: string;
  readonly record: CopyRecord;
  readonly logs: LogSampler;
  /** Resolves when the command is over and nothing of it is left. */
  readonly ended: Promise<void>;
  /** Commands running beside it, to be ended with it. */
  readonly beside = new Map<number, KillTarget>();
  /** Those reading its output now: they get the end of it before it is removed. */
  readonly readers = new Set<Promise<void>>();
  cpuSample: CpuSample | undefined;
  running = true;
  exitCode: number | null = null;
  oomKilled = false;
  /** Its end was told. */
  reported = false;
  readonly #resolveEnded: () => void;
  #finishing: Promise<void> | undefined;
  #watcher: FSWatcher | undefined;

  constructor(dir: string, record: CopyRecord) {
    this.dir = dir;
    this.record = record;
    this.logs = new LogSampler(dir);
    const { promise, resolve } = Promise.withResolvers<void>();
    this.ended = promise;
    this.#resolveEnded = resolve;
  }

  get copyId(): string {
    return this.record.copyId;
  }

  get target(): KillTarget {
    return targetOf(this.record);
  }

  /** Whether the launcher is still there. */
  isAlive(): boolean {
    const { pid, startTicks } = this.record;
    return this.record.bootId === THIS_BOOT && isSameProcess(pid, startTicks);
  }

  /** For a copy that is not our child: `onChange` is called when its exit code is noted. */
  watchExit(onChange: () => void): void {
    try {
      this.#watcher = watch(join(this.dir, EXIT_FILE), { persistent: false }, () => {
        if (readExit(this.dir).code !== undefined) onChange();
      });
      this.#watcher.on('error', () => this.#watcher?.close());
    } catch {
      // too many watches: the look every 250 ms tells
    }
  }

  /** The command is over: ends what it left behind and settles the exit code. Safe to call again. */
  finish(): Promise<void> {
    this.#finishing ??= this.#finish();
    return this.#finishing;
  }

  async #finish(): Promise<void> {
    this.#watcher?.close();
    const sameBoot = this.record.bootId === THIS_BOOT;
    // Unkillable for now (a process in the kernel): it is not over before it is gone. Its cgroup not to be seen at all: this
    // is another container of the same machine, and what ran in the former one went with it.
    while (sameBoot && !(await killTarget(this.target)) && isAlive(this.target) !== undefined) await delay(RETRY_MS);
    for (const target of this.beside.values()) await killTarget(target);
    const noted = readExit(this.dir).code;
    this.exitCode = noted ?? KILLED;
    this.oomKilled = this.exitCode !== 0 && wasOomKilled(this.record.cgroupDirs);
    try {
      if (noted === undefined) noteExit(this.dir, KILLED);
      this.logs.sample(Date.now());
    } catch {
      // a full disk: the next agent will conclude the same
    }
    await removeCgroup(this.record.cgroupDirs);
    this.running = false;
    this.#resolveEnded();
  }

  /** Stops watching; the copy goes on. */
  leave(): void {
    this.#watcher?.close();
  }

  observe(): ObservedCopy | undefined {
    const name = parseCopyId(this.copyId);
    if (!name) return undefined;
    const { pid, startedAt, ports } = this.record;
    return {
      copyId: formatCopyId(name),
      ...name,
      runtime: 'process',
      handle: `pid:${pid}`,
      running: this.running,
      startedAt: wallMs(startedAt),
      exitCode: this.running ? null : this.exitCode,
      ports,
    };
  }
}

export const targetOf = (record: Pick<CopyRecord, 'killPaths' | 'pid' | 'startTicks'>): KillTarget =>
  record.killPaths.length > 0
    ? { type: 'cgroup', paths: record.killPaths }
    : { type: 'process-group', pgid: record.pid, startTicks: record.startTicks };

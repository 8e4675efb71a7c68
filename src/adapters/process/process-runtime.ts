import { mkdirSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { formatCopyId } from '../../core/reconcile/copy-id.ts';
import type { CopyId, DesiredCopy, ObservedCopy } from '../../core/reconcile/types.ts';
import { BOOT_LIMITS } from '../../model/boot-protocol.ts';
import { TaskOrgError } from '../../model/errors.ts';
import type { ClusterId, NodeId } from '../../model/ids.ts';
import type { Log } from '../../ports/log.ts';
import type {
  CopyStats,
  ExecOptions,
  ExecSession,
  KillTarget,
  LogChunk,
  Runtime,
  RuntimeEvent,
  RuntimeInfo,
} from '../../ports/runtime.ts';
import { cgroupMounts } from './cgroup-fs.ts';
import { findCommand } from './command-path.ts';
import { copyCgroups, createCopyCgroup, enterCgroup, removeCgroup } from './copy-cgroup.ts';
import { type ReadLogsOptions, readCopyLogs } from './copy-logs.ts';
import { type CopyRecord, readRecord, recordDirectories, writeRecord } from './copy-record.ts';
import { CpuPins, usableCores } from './cpu-pins.ts';
import { killTarget } from './kill-target.ts';
import { commandPid, launchCopy, signalNumber } from './launcher.ts';
import { bootId, readProcStat } from './proc-fs.ts';
import { ProcessCopy, targetOf } from './process-copy.ts';
import { execInCopy } from './process-exec.ts';
import { processStats } from './process-stats.ts';
import { resolveUser } from './users.ts';
import { choosePorts, prepareSurroundings } from './work-directory.ts';

// Copies as plain processes: no engine needed. They run in sessions (and where allowed cgroups) of their own, outlive the
// agent, and are taken up again by the next one from the records on disk.

/** How soon the end of a copy that is not our child is seen at the latest. Usually a file event tells at once. */
const LOOK_MS = 250;
const LOOKS_PER_LOG_SAMPLE = 4;
const COMMAND_LOOK_MS = 5;
const SIGTERM = 15;

export interface ProcessRuntimeOptions {
  /** Copies, work directories and volumes stand below it. One runtime at a time. */
  readonly dataDir: string;
  readonly clusterId: ClusterId;
  readonly nodeId: NodeId;
  readonly log: Log;
}

/** Runs copies as processes of this machine. Owns `copies/`, `work/` and `volumes/` in the data directory. */
export function createProcessRuntime(options: ProcessRuntimeOptions): Runtime {
  return new ProcessRuntime(options);
}

class ProcessRuntime implements Runtime {
  readonly kind = 'process';
  readonly #o: ProcessRuntimeOptions;
  readonly #copiesDir: string;
  readonly #groupParent: string;
  readonly #copies = new Map<CopyId, ProcessCopy>();
  readonly #starting = new Map<CopyId, Promise<ObservedCopy>>();
  readonly #listeners = new Set<(event: RuntimeEvent) => void>();
  readonly #pins = new CpuPins(usableCores());
  readonly #ready: Promise<void>;
  readonly #timer: NodeJS.Timeout;
  #looks = 0;
  #closed = false;

  constructor(options: ProcessRuntimeOptions) {
    this.#o = options;
    this.#copiesDir = join(options.dataDir, 'copies');
    this.#groupParent = `taskorg-${plain(options.clusterId).slice(0, 8)}-${plain(options.nodeId).slice(-8)}`;
    mkdirSync(this.#copiesDir, { recursive: true, mode: 0o700 });
    this.#ready = this.#adopt();
    this.#ready.catch((error: unknown) =>
      options.log.error({ error: String(error) }, 'process copies could not be read back'),
    );
    this.#timer = setInterval(() => this.#look(), LOOK_MS);
    this.#timer.unref();
  }

  async info(): Promise<RuntimeInfo> {
    await this.#ready;
    const mounts = cgroupMounts();
    const cgroup = mounts.some((m) => !m.v2) ? 'v1' : mounts.length > 0 ? 'v2' : 'none';
    return { version: `node ${process.versions.node}`, details: { cgroup, copies: this.#copiesDir } };
  }

  async prepare(copy: DesiredCopy, signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    const { cwd, env } = prepareSurroundings(this.#o.dataDir, copy, [], resolveUser(copy.spec.user));
    const command = [...copy.spec.command, ...copy.spec.args][0] ?? '';
    if (findCommand(command, env.PATH ?? '', cwd)) return;
    throw new TaskOrgError(
      'image_missing',
      command === '' ? 'the task names no command' : `command not found: ${command}`,
      {
        hint: 'install the program on this machine, or give its full path',
      },
    );
  }

  start(copy: DesiredCopy, register: (how: KillTarget) => Promise<void>, signal: AbortSignal): Promise<ObservedCopy> {
    const copyId = formatCopyId(copy);
    const pending = this.#starting.get(copyId);
    if (pending) return pending;
    const started = this.#start(copyId, copy, register, signal).finally(() => this.#starting.delete(copyId));
    this.#starting.set(copyId, started);
    return started;
  }

  async #start(
    copyId: CopyId,
    desired: DesiredCopy,
    register: (how: KillTarget) => Promise<void>,
    signal: AbortSignal,
  ): Promise<ObservedCopy> {
    await this.#ready;
    signal.throwIfAborted();
    const before = this.#copies.get(copyId);
    if (before?.running && before.isAlive()) return before.observe() as ObservedCopy;
    if (before?.running) await before.finish();
    if (this.#copies.size >= BOOT_LIMITS.copies)
      throw new TaskOrgError('busy', `${BOOT_LIMITS.copies} copies stand on this machine already`, { retryable: true });
    const dir = join(this.#copiesDir, copyId);
    mkdirSync(dir, { recursive: true, mode: 0o700 });
    let target: KillTarget | undefined;
    let dirs: readonly string[] = [];
    try {
      const user = resolveUser(desired.spec.user);
      const ports = await choosePorts(desired, before?.record.ports ?? []);
      const around = prepareSurroundings(this.#o.dataDir, desired, ports, user);
      const group = this.#makeGroup(copyId, desired);
      dirs = group?.dirs ?? [];
      signal.throwIfAborted();
      const launched = await launchCopy(dir, {
        argv: [...desired.spec.command, ...desired.spec.args],
        ...around,
        ...user,
      });
      const startTicks = readProcStat(launched.pid)?.startTicks ?? 0;
      target = { type: 'process-group', pgid: launched.pid, startTicks };
      enterCgroup(dirs, launched.pid);
      const record: CopyRecord = {
        version: 1,
        copyId,
        spec: desired.spec,
        pid: launched.pid,
        startTicks,
        bootId: bootId(),
        startedAt: Date.now(),
        ports: [...ports],
        env: { ...around.env },
        cwd: around.cwd,
        ...user,
        cgroupDirs: [...dirs],
        killPaths: [...(group?.killPaths ?? [])],
        pins: group?.pins ?? '',
      };
      target = targetOf(record);
      await writeRecord(dir, record);
      await register(target);
      signal.throwIfAborted();
      const copy = new ProcessCopy(dir, record);
      launched.child.unref();
      launched.child.once('exit', () => void this.#over(copy));
      this.#copies.set(copyId, copy);
      launched.open();
      return copy.observe() as ObservedCopy;
    } catch (error) {
      if (target) await killTarget(target);
      await removeCgroup(dirs);
      this.#pins.release(copyId);
      // A former run stays to be seen, with its logs.
      if (before) this.#copies.set(copyId, before);
      else {
        this.#copies.delete(copyId);
        await rm(dir, { recursive: true, force: true });
      }
      if (signal.aborted)
        throw new TaskOrgError('aborted', `start of ${copyId} was called off`, { cause: error, retryable: true });
      throw error;
    }
  }

  #makeGroup(
    copyId: CopyId,
    { spec }: DesiredCopy,
  ): { dirs: readonly string[]; killPaths: readonly string[]; pins: string } | undefined {
    const pins = this.#pins.take(copyId, spec.cpus);
    const group = createCopyCgroup(this.#groupParent, copyId, { cpus: spec.cpus, pins, memoryBytes: spec.memoryBytes });
    const unmet = group?.unmet ?? [...(spec.cpus > 0 ? ['cpus'] : []), ...(spec.memoryBytes > 0 ? ['memory'] : [])];
    if (unmet.length > 0)
      this.#o.log.warn({ copyId, limits: unmet }, 'limits of a process copy are not enforced on this machine');
    return group && { ...group, pins: pins ?? '' };
  }

  async stop(
    copyId: CopyId,
    options: { readonly stopSignal: string; readonly graceMs: number },
    signal: AbortSignal,
  ): Promise<void> {
    const copy = await this.#settled(copyId);
    if (!copy) return;
    if (copy.running && options.graceMs > 0) {
      const grace = new AbortController();
      const timer = setTimeout(() => grace.abort(), options.graceMs);
      const until = AbortSignal.any([signal, grace.signal]);
      try {
        await this.#signalCommand(copy, signalNumber(options.stopSignal) ?? SIGTERM, until);
        await Promise.race([copy.ended, aborted(until)]);
      } finally {
        clearTimeout(timer);
      }
      signal.throwIfAborted();
    }
    await this.#destroy(copy);
  }

  async kill(copyId: CopyId): Promise<void> {
    const copy = await this.#settled(copyId);
    if (copy) await this.#destroy(copy);
  }

  /** The command stands behind the launcher a moment after the gate opened. */
  async #signalCommand(copy: ProcessCopy, number: number, until: AbortSignal): Promise<void> {
    while (copy.running && !until.aborted && copy.isAlive()) {
      const pid = commandPid(copy.record.pid);
      if (pid !== undefined) {
        try {
          process.kill(pid, number);
        } catch {
          // it ended in between
        }
        return;
      }
      await delay(COMMAND_LOOK_MS, undefined, { signal: until }).catch(() => {});
    }
  }

  async #destroy(copy: ProcessCopy): Promise<void> {
    if (copy.running && !(await killTarget(copy.target)))
      throw new TaskOrgError('runtime_failed', `processes of ${copy.copyId} outlive SIGKILL`, { retryable: true });
    await this.#over(copy);
    if (this.#copies.get(copy.copyId) === copy) this.#copies.delete(copy.copyId);
    await rm(copy.dir, { recursive: true, force: true });
  }

  /** A run ended: what is left is ended too, then everybody is told, once. */
  async #over(copy: ProcessCopy): Promise<void> {
    const first = copy.running;
    await copy.finish();
    this.#pins.release(copy.copyId);
    if (!first || copy.reported) return;
    copy.reported = true;
    const { copyId, exitCode, oomKilled } = copy;
    for (const listener of this.#listeners) listener({ type: 'exited', copyId, exitCode, oomKilled });
  }

  /** The copy once no start of it is under way. */
  async #settled(copyId: CopyId): Promise<ProcessCopy | undefined> {
    await this.#ready;
    await this.#starting.get(copyId)?.catch(() => {});
    return this.#copies.get(copyId);
  }

  async list(signal: AbortSignal): Promise<readonly ObservedCopy[]> {
    await this.#ready;
    signal.throwIfAborted();
    return [...this.#copies.values()].map((copy) => copy.observe()).filter((copy) => copy !== undefined);
  }

  async events(onEvent: (event: RuntimeEvent) => void, signal: AbortSignal): Promise<void> {
    this.#listeners.add(onEvent);
    await aborted(signal);
    this.#listeners.delete(onEvent);
  }

  async stats(copyId: CopyId): Promise<CopyStats> {
    const copy = await this.#find(copyId);
    if (!copy.running) throw new TaskOrgError('not_found', `${copyId} is not running`);
    const { stats, sample } = processStats(copy.record, copy.cpuSample);
    copy.cpuSample = sample;
    return stats;
  }

  async *logs(copyId: CopyId, options: ReadLogsOptions, signal: AbortSignal): AsyncGenerator<LogChunk> {
    const copy = await this.#find(copyId);
    yield* readCopyLogs(copy.dir, options, copy.running ? copy.ended : Promise.resolve(), signal);
  }

  async exec(copyId: CopyId, options: ExecOptions, signal: AbortSignal): Promise<ExecSession> {
    const copy = await this.#find(copyId);
    if (!copy.running) throw new TaskOrgError('not_found', `${copyId} is not running`);
    let pid = 0;
    const started = await execInCopy(copy.record, options, signal, () => copy.beside.delete(pid));
    pid = started.pid;
    copy.beside.set(pid, { type: 'process-group', pgid: pid, startTicks: started.startTicks });
    return started.session;
  }

  async #find(copyId: CopyId): Promise<ProcessCopy> {
    const copy = await this.#settled(copyId);
    if (!copy) throw new TaskOrgError('not_found', `there is no copy ${copyId} on this machine`);
    return copy;
  }

  async images(): Promise<readonly string[]> {
    return [];
  }

  async close(): Promise<void> {
    this.#closed = true;
    clearInterval(this.#timer);
    await this.#ready.catch(() => {});
    for (const copy of this.#copies.values()) copy.leave();
  }

  /** Takes up what an earlier agent left: running copies, exits it missed, remains of starts it did not finish. */
  async #adopt(): Promise<void> {
    const groups = copyCgroups(this.#groupParent);
    for (const dir of await recordDirectories(this.#copiesDir)) {
      const record = await readRecord(dir);
      if (!record) {
        await rm(dir, { recursive: true, force: true });
        continue;
      }
      groups.delete(record.copyId);
      const copy = new ProcessCopy(dir, record);
      this.#copies.set(record.copyId, copy);
      if (record.pins !== '') this.#pins.restore(record.copyId, record.pins);
      if (copy.isAlive()) copy.watchExit(() => void this.#over(copy));
      else await this.#over(copy);
    }
    // A launcher without a record never opened its gate; it is gone, or goes now.
    for (const dirs of groups.values()) if (await killTarget({ type: 'cgroup', paths: dirs })) await removeCgroup(dirs);
  }

  #look(): void {
    const sample = this.#looks++ % LOOKS_PER_LOG_SAMPLE === 0;
    for (const copy of this.#copies.values()) {
      if (!copy.running || this.#closed) continue;
      if (!copy.isAlive()) void this.#over(copy);
      else if (sample) this.#sampleLogs(copy);
    }
  }

  #sampleLogs(copy: ProcessCopy): void {
    try {
      copy.logs.sample(Date.now());
    } catch (error) {
      this.#o.log.warn({ copyId: copy.copyId, error: String(error) }, 'log of a process copy could not be rotated');
    }
  }
}

const plain = (text: string): string => text.replace(/[^A-Za-z0-9]/g, '');

const aborted = (signal: AbortSignal): Promise<void> =>
  new Promise((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener('abort', () => resolve(), { once: true });
  });

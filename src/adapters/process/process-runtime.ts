import { existsSync, mkdirSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { basename, join } from 'node:path';
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
  StopOptions,
} from '../../ports/runtime.ts';
import { cgroupMounts } from './cgroup-fs.ts';
import { findCommand } from './command-path.ts';
import { copyCgroups, removeCgroup, removeParentCgroup } from './copy-cgroup.ts';
import { type ReadLogsOptions, readCopyLogs } from './copy-logs.ts';
import { readRecord, recordDirectories } from './copy-record.ts';
import { CpuPins, usableCores } from './cpu-pins.ts';
import { HostPorts } from './host-ports.ts';
import { killTarget } from './kill-target.ts';
import { commandPid, noteExit, readExit, signalNumber } from './launcher.ts';
import { KILLED, ProcessCopy } from './process-copy.ts';
import { execInCopy } from './process-exec.ts';
import { processStats } from './process-stats.ts';
import { type StartRoom, startCopy } from './start-copy.ts';
import { endUnrecorded } from './unrecorded.ts';
import { resolveUser } from './users.ts';
import { prepareSurroundings, setAside } from './work-directory.ts';

// Copies as plain processes: no engine needed. They run in sessions (and where allowed cgroups) of their own, outlive the
// agent, and are taken up again by the next one from the records on disk.

/** How soon the end of a copy that is not our child is seen at the latest. Usually a file event tells at once. */
const LOOK_MS = 250;
const LOOKS_PER_LOG_SAMPLE = 4;
const COMMAND_LOOK_MS = 5;
/** Longest time the ends of former copies hold up the first listing. */
const ADOPT_WAIT_MS = 3000;
/** How long the removal of a copy waits for readers of its output. */
const LAST_READ_MS = 200;
/** Shortest time over which the use of the CPU is measured. */
const CPU_SAMPLE_MS = 200;
const SIGTERM = 15;

export interface ProcessRuntimeOptions {
  /** Copies, work directories and volumes stand below it. One runtime at a time. */
  readonly dataDir: string;
  readonly clusterId: ClusterId;
  readonly nodeId: NodeId;
  readonly log: Log;
}

/** Runs copies as processes of this machine. Owns `copies/`, `work/`, `volumes/` and `branches/` in the data directory. */
export function createProcessRuntime(options: ProcessRuntimeOptions): Runtime {
  return new ProcessRuntime(options);
}

class ProcessRuntime implements Runtime {
  readonly kind = 'process';
  readonly #o: ProcessRuntimeOptions;
  readonly #copiesDir: string;
  readonly #room: StartRoom;
  readonly #copies = new Map<CopyId, ProcessCopy>();
  readonly #starting = new Map<CopyId, { observed: Promise<ObservedCopy>; called: AbortController }>();
  readonly #listeners = new Set<(event: RuntimeEvent) => void>();
  readonly #ready: Promise<void>;
  readonly #timer: NodeJS.Timeout;
  #looks = 0;
  #closed = false;

  constructor(options: ProcessRuntimeOptions) {
    this.#o = options;
    this.#copiesDir = join(options.dataDir, 'copies');
    this.#room = {
      dataDir: options.dataDir,
      groupParent: `taskorg-${plain(options.clusterId).slice(0, 8)}-${plain(options.nodeId).slice(-8)}`,
      pins: new CpuPins(usableCores()),
      ports: new HostPorts(),
      log: options.log,
    };
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
    if (pending) return pending.observed;
    const called = new AbortController();
    const observed = this.#start(copyId, copy, register, AbortSignal.any([signal, called.signal])).finally(() =>
      this.#starting.delete(copyId),
    );
    this.#starting.set(copyId, { observed, called });
    return observed;
  }

  async #start(
    copyId: CopyId,
    desired: DesiredCopy,
    register: (how: KillTarget) => Promise<void>,
    signal: AbortSignal,
  ): Promise<ObservedCopy> {
    await this.#ready;
    const before = this.#copies.get(copyId);
    if (before?.running && before.isAlive()) return before.observe() as ObservedCopy;
    if (before) await this.#over(before);
    if (this.#copies.size >= BOOT_LIMITS.copies)
      throw new TaskOrgError('busy', `${BOOT_LIMITS.copies} copies stand on this machine already`, { retryable: true });
    const dir = join(this.#copiesDir, copyId);
    try {
      signal.throwIfAborted();
      const launched = await startCopy(this.#room, dir, copyId, desired, before?.record.ports ?? [], register, signal);
      const copy = new ProcessCopy(dir, launched.record);
      this.#copies.set(copyId, copy);
      const { child } = launched;
      child.unref();
      const over = (): void => void (this.#closed || this.#over(copy));
      if (child.exitCode !== null || child.signalCode !== null) over();
      else child.once('exit', over);
      launched.open();
      return copy.observe() as ObservedCopy;
    } catch (error) {
      // A former run stays to be seen, with its logs.
      if (!before) await rm(dir, { recursive: true, force: true });
      else noteExit(dir, before.exitCode ?? KILLED);
      if (signal.aborted)
        throw new TaskOrgError('aborted', `start of ${copyId} was called off`, { cause: error, retryable: true });
      throw error;
    }
  }

  async stop(copyId: CopyId, options: StopOptions, signal: AbortSignal): Promise<void> {
    this.#starting.get(copyId)?.called.abort();
    const copy = await this.#settled(copyId);
    if (!copy) return;
    if (copy.running && options.graceMs > 0) {
      const grace = new AbortController();
      const timer = setTimeout(() => grace.abort(), options.graceMs);
      const until = AbortSignal.any([signal, grace.signal]);
      try {
        await this.#signalGroup(copy, signalNumber(options.stopSignal) ?? SIGTERM, until);
        await Promise.race([copy.ended, aborted(until)]);
      } finally {
        clearTimeout(timer);
      }
      signal.throwIfAborted();
    }
    await this.#destroy(copy, options.keep);
  }

  async kill(copyId: CopyId): Promise<void> {
    this.#starting.get(copyId)?.called.abort();
    const copy = await this.#settled(copyId);
    if (copy) await this.#destroy(copy);
  }

  /** Not before the command stands behind the launcher, a moment after the gate opened: else it would miss the signal. */
  async #signalGroup(copy: ProcessCopy, number: number, until: AbortSignal): Promise<void> {
    while (copy.running && !until.aborted && copy.isAlive()) {
      if (commandPid(copy.record.pid) !== undefined) {
        try {
          process.kill(-copy.record.pid, number);
        } catch {
          // it ended in between
        }
        return;
      }
      await delay(COMMAND_LOOK_MS, undefined, { signal: until }).catch(() => {});
    }
  }

  async #destroy(copy: ProcessCopy, keep = false): Promise<void> {
    if (copy.running && !(await killTarget(copy.target)))
      throw new TaskOrgError('runtime_failed', `processes of ${copy.copyId} outlive SIGKILL`, { retryable: true });
    await this.#over(copy);
    if (copy.readers.size > 0)
      await Promise.race([Promise.all(copy.readers), delay(LAST_READ_MS, undefined, { ref: false })]);
    if (this.#copies.get(copy.copyId) === copy) this.#copies.delete(copy.copyId);
    if (keep) await setAside(this.#o.dataDir, copy.copyId, copy.dir);
    else await rm(copy.dir, { recursive: true, force: true });
  }

  /** A run ended: what is left is ended too, then everybody is told, once. */
  async #over(copy: ProcessCopy): Promise<void> {
    await copy.finish();
    if (copy.reported) return;
    copy.reported = true;
    this.#room.pins.release(copy.copyId);
    this.#room.ports.release(copy.copyId);
    const { copyId, exitCode, oomKilled } = copy;
    for (const listener of this.#listeners) listener({ type: 'exited', copyId, exitCode, oomKilled });
  }

  /** The copy once no start of it is under way. */
  async #settled(copyId: CopyId): Promise<ProcessCopy | undefined> {
    await this.#ready;
    await this.#starting.get(copyId)?.observed.catch(() => {});
    return this.#copies.get(copyId);
  }

  async list(signal: AbortSignal): Promise<readonly ObservedCopy[]> {
    await this.#ready;
    signal.throwIfAborted();
    // Removed by another hand, such as the next agent's, once it was dead.
    for (const copy of this.#copies.values()) {
      if (copy.isAlive() || existsSync(copy.dir)) continue;
      this.#copies.delete(copy.copyId);
      void this.#over(copy);
    }
    return [...this.#copies.values()].map((copy) => copy.observe()).filter((copy) => copy !== undefined);
  }

  async events(onEvent: (event: RuntimeEvent) => void, signal: AbortSignal): Promise<void> {
    this.#listeners.add(onEvent);
    await aborted(signal);
    this.#listeners.delete(onEvent);
  }

  async stats(copyId: CopyId, signal: AbortSignal): Promise<CopyStats> {
    const copy = await this.#find(copyId);
    if (!copy.running) throw new TaskOrgError('not_found', `${copyId} is not running`);
    if (!copy.cpuSample || Date.now() - copy.cpuSample.atMs < CPU_SAMPLE_MS) {
      copy.cpuSample ??= processStats(copy.record, undefined).sample;
      await delay(CPU_SAMPLE_MS, undefined, { signal });
    }
    const { stats, sample } = processStats(copy.record, copy.cpuSample);
    copy.cpuSample = sample;
    return stats;
  }

  async *logs(copyId: CopyId, options: ReadLogsOptions, signal: AbortSignal): AsyncGenerator<LogChunk> {
    const copy = await this.#find(copyId);
    const { promise, resolve } = Promise.withResolvers<void>();
    copy.readers.add(promise);
    try {
      yield* readCopyLogs(copy.dir, options, copy.running ? copy.ended : Promise.resolve(), signal);
    } finally {
      copy.readers.delete(promise);
      resolve();
    }
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
    removeParentCgroup(this.#room.groupParent);
  }

  /** Takes up what an earlier agent left: running copies, exits it missed, remains of starts it did not finish. */
  async #adopt(): Promise<void> {
    const { groupParent, pins, ports, log } = this.#room;
    const groups = copyCgroups(groupParent);
    const ending: Promise<void>[] = [];
    for (const dir of await recordDirectories(this.#copiesDir)) {
      const copyId = basename(dir);
      const record = await readRecord(dir);
      const copy = record?.copyId === copyId ? new ProcessCopy(dir, record) : undefined;
      const alive = copy?.isAlive() ?? false;
      if (!copy || (!alive && !readExit(dir).begun)) {
        // Never begun: the agent died before it let the command run.
        if (!copy)
          log.warn({ copyId }, 'record of a process copy cannot be read: what is left of it is ended and removed');
        await endUnrecorded(dir, groups.get(copyId) ?? []);
        groups.delete(copyId);
        await rm(dir, { recursive: true, force: true });
        continue;
      }
      groups.delete(copyId);
      this.#copies.set(copyId, copy);
      if (alive && copy.record.pins !== '') pins.restore(copyId, copy.record.pins);
      if (alive) ports.restore(copyId, copy.record.ports);
      if (alive) copy.watchExit(() => void this.#over(copy));
      else ending.push(this.#over(copy));
    }
    for (const dirs of groups.values()) if (await killTarget({ type: 'cgroup', paths: dirs })) await removeCgroup(dirs);
    // What cannot be ended now is shown as running until it is.
    await Promise.race([Promise.all(ending), delay(ADOPT_WAIT_MS, undefined, { ref: false })]);
  }

  #look(): void {
    const sample = this.#looks++ % LOOKS_PER_LOG_SAMPLE === 0;
    for (const copy of this.#copies.values()) {
      if (!copy.running || this.#closed) continue;
      if (!copy.isAlive()) void this.#over(copy);
      else if (sample) void this.#sampleLogs(copy);
    }
  }

  async #sampleLogs(copy: ProcessCopy): Promise<void> {
    try {
      copy.logs.sample(Date.now());
      await copy.logs.rotate();
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

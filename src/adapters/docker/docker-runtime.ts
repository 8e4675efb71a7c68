import { formatCopyId } from '../../core/reconcile/copy-id.ts';
import type { CopyId, DesiredCopy, ObservedCopy } from '../../core/reconcile/types.ts';
import { BOOT_LIMITS, type KillTarget } from '../../model/boot-protocol.ts';
import { TaskOrgError } from '../../model/errors.ts';
import type { ClusterId, NodeId, WallMs } from '../../model/ids.ts';
import type { Log } from '../../ports/log.ts';
import type {
  CopyStats,
  ExecOptions,
  ExecSession,
  LogChunk,
  Runtime,
  RuntimeEvent,
  RuntimeInfo,
  StopOptions,
} from '../../ports/runtime.ts';
import { killTarget } from '../process/kill-target.ts';
import { execInContainer } from './container-exec.ts';
import { containerLogs, type LogOptions } from './container-logs.ts';
import { branchName, type ContainerSummary, isBranch, LABEL, ownLabels, readSummary } from './container-spec.ts';
import { startContainer } from './container-start.ts';
import { type CpuSample, containerStats } from './container-stats.ts';
import { CALL_TIMEOUT_MS, EngineApi, EngineError, runtimeFailed } from './engine-api.ts';
import { followEvents } from './engine-events.ts';
import { type ContainerRuntimeState, openEngine } from './engine-state.ts';
import { ImageCheck } from './image-check.ts';
import { StartSlots } from './start-slots.ts';
import { RecentIds, unlessAborted, within } from './waiting.ts';

// Copies as containers of the machine's Docker Engine. The engine keeps the truth: everything is read back from labels.

/** More starts at once gain nothing: the engine works through them one after another. */
const STARTS_AT_ONCE = 8;
const INSPECTS_AT_ONCE = 16;
/** An engine that has not removed a container by then gets the help of the kernel. */
const ENGINE_PATIENCE_MS = 500;
const REMOVAL_PATIENCE_MS = 1_000;
const REMOVE_AGAIN_MS = 500;
/** Shortest time over which CPU use is measured between two calls. */
const CPU_SAMPLE_MS = 500;
/** Longest wait for an engine to pass a stop signal on. */
const SIGNAL_PATIENCE_MS = 2_000;

export interface DockerRuntimeOptions {
  readonly clusterId: ClusterId;
  readonly nodeId: NodeId;
  /** Undefined: DOCKER_HOST, or the default socket. */
  readonly socketPath?: string;
  readonly log: Log;
}

export interface DockerRuntimeDependencies {
  readonly api?: EngineApi;
}

/** Runs copies as containers (volumes come with them). Nothing is called before the first use, engine or not. */
export function createDockerRuntime(options: DockerRuntimeOptions, deps: DockerRuntimeDependencies = {}): Runtime {
  return new DockerRuntime(options, deps.api ?? new EngineApi(options.socketPath));
}

class DockerRuntime implements Runtime {
  readonly kind = 'docker';
  readonly #o: DockerRuntimeOptions;
  readonly #api: EngineApi;
  readonly #slots = new StartSlots(STARTS_AT_ONCE);
  readonly #starting = new Map<CopyId, { readonly done: Promise<ObservedCopy>; readonly callOff: AbortController }>();
  readonly #state: ContainerRuntimeState = { containers: new Map(), startedAt: new Map() };
  readonly #cpu = new Map<CopyId, CpuSample>();
  readonly #images: ImageCheck;
  /** Containers whose processes are dead and whose removal the engine still owes. */
  readonly #removing = new Set<string>();
  /** Containers whose end was asked for: it is told by the answer, not by an event. */
  readonly #ending = new RecentIds(BOOT_LIMITS.copies);
  readonly #closing = new AbortController();
  #engine: ReturnType<typeof openEngine> | undefined;

  constructor(options: DockerRuntimeOptions, api: EngineApi) {
    this.#o = options;
    this.#api = api;
    this.#images = new ImageCheck(api);
  }

  async info(signal: AbortSignal): Promise<RuntimeInfo> {
    this.#engine = undefined;
    const { version, details } = await this.#opened(signal);
    return { version, details };
  }

  #opened(signal: AbortSignal): ReturnType<typeof openEngine> {
    this.#engine ??= openEngine(this.#api, signal).catch((error: unknown) => {
      this.#engine = undefined;
      throw runtimeFailed(error, 'the Docker Engine cannot be used');
    });
    return this.#engine;
  }

  async prepare(copy: DesiredCopy, signal: AbortSignal): Promise<void> {
    await this.#images.need(copy.spec.image, signal);
  }

  start(copy: DesiredCopy, register: (how: KillTarget) => Promise<void>, signal: AbortSignal): Promise<ObservedCopy> {
    const copyId = formatCopyId(copy);
    const pending = this.#starting.get(copyId);
    if (pending) return pending.done;
    const callOff = new AbortController();
    const done = this.#start(copyId, copy, register, AbortSignal.any([signal, callOff.signal])).finally(() =>
      this.#starting.delete(copyId),
    );
    this.#starting.set(copyId, { done, callOff });
    return done;
  }

  async #start(
    copyId: CopyId,
    copy: DesiredCopy,
    register: (how: KillTarget) => Promise<void>,
    signal: AbortSignal,
  ): Promise<ObservedCopy> {
    let leave: (() => void) | undefined;
    try {
      const engine = await this.#opened(signal);
      if (this.#state.containers.size >= BOOT_LIMITS.copies)
        throw new TaskOrgError('busy', `${BOOT_LIMITS.copies} copies stand on this machine already`, {
          retryable: true,
        });
      leave = await this.#slots.acquire(signal);
      return await startContainer(
        {
          api: this.#api,
          engine,
          owner: this.#o,
          state: this.#state,
          log: this.#o.log,
          remove: (id) => this.#removeSurely(id, engine.cgroups.target(id)),
        },
        copy,
        register,
        signal,
      );
    } catch (error) {
      this.#images.forget(copy.spec.image);
      if (signal.aborted)
        throw new TaskOrgError('aborted', `start of ${copyId} was called off`, { cause: error, retryable: true });
      throw runtimeFailed(error, `start of ${copy.spec.name}`);
    } finally {
      leave?.();
    }
  }

  async stop(copyId: CopyId, options: StopOptions, signal: AbortSignal): Promise<void> {
    await this.#starting.get(copyId)?.done.catch(() => {});
    const id = await this.#find(copyId, signal);
    if (id === undefined) return;
    this.#ending.add(id);
    try {
      if (options.graceMs > 0 && (await this.#signal(id, options.stopSignal, signal)))
        await this.#untilStopped(id, options.graceMs, signal);
    } catch (error) {
      // An engine that hangs passes no signal on: the copy is killed without it.
      if (signal.aborted || !(error instanceof TaskOrgError && error.code === 'no_runtime')) throw error;
    }
    if (options.keep) await this.#setAside(id, copyId, signal);
    else await this.kill(copyId, signal);
  }

  /** Killed, and given a name by which it counts as a copy no more. */
  async #setAside(id: string, copyId: CopyId, signal: AbortSignal): Promise<void> {
    await this.#signal(id, 'SIGKILL', signal);
    await this.#untilStopped(id, CALL_TIMEOUT_MS, signal);
    const rename = {
      method: 'POST',
      path: `/containers/${id}/rename`,
      query: { name: branchName(copyId) },
      signal,
    } as const;
    await this.#do(`setting aside of ${copyId}`, this.#api.call(rename));
    this.#forget(copyId);
  }

  /** False: it does not run. */
  async #signal(id: string, name: string, signal: AbortSignal): Promise<boolean> {
    const path = `/containers/${id}/kill`;
    try {
      await this.#api.call({ method: 'POST', path, query: { signal: name }, signal, timeoutMs: SIGNAL_PATIENCE_MS });
      return true;
    } catch (error) {
      if (!(error instanceof EngineError)) throw error;
      if (error.status === 404 || error.status === 409) return false;
      if (name === 'SIGTERM') throw runtimeFailed(error, 'stop signal');
      return this.#signal(id, 'SIGTERM', signal); // a signal this engine does not know
    }
  }

  async #untilStopped(id: string, graceMs: number, signal: AbortSignal): Promise<void> {
    const grace = new AbortController();
    const timer = setTimeout(() => grace.abort(), graceMs);
    try {
      const both = AbortSignal.any([signal, grace.signal]);
      await this.#api.call({
        method: 'POST',
        path: `/containers/${id}/wait`,
        query: { condition: 'not-running' },
        signal: both,
        timeoutMs: graceMs + CALL_TIMEOUT_MS,
      });
    } catch (error) {
      signal.throwIfAborted();
      if (!grace.signal.aborted && !(error instanceof EngineError)) throw error;
    } finally {
      clearTimeout(timer);
    }
  }

  async kill(copyId: CopyId, signal: AbortSignal): Promise<void> {
    const pending = this.#starting.get(copyId);
    pending?.callOff.abort();
    const target = this.#state.containers.get(copyId)?.target;
    const byEngine = this.#killByEngine(copyId, signal, pending?.done);
    if (await within(byEngine, ENGINE_PATIENCE_MS)) return byEngine;
    const known = target ?? this.#state.containers.get(copyId)?.target;
    // While a start is out at the engine, no process now does not mean none to come.
    if (known && (await killTarget(known)) && !this.#starting.has(copyId)) {
      const id = this.#state.containers.get(copyId)?.id;
      this.#o.log.warn({ copyId }, 'the engine does not answer: the copy was killed by its cgroup');
      if (id !== undefined) {
        this.#removing.add(id);
        void byEngine.catch(() => this.#removeSurely(id)).finally(() => this.#removing.delete(id));
      }
      // The engine may only be slow: then the copy is gone from it, too, when this resolves.
      await within(
        byEngine.catch(() => {}),
        REMOVAL_PATIENCE_MS,
      );
      this.#forget(copyId);
      return;
    }
    return unlessAborted(byEngine, signal);
  }

  async #killByEngine(copyId: CopyId, signal: AbortSignal, starting: Promise<unknown> | undefined): Promise<void> {
    await starting?.catch(() => {});
    const id = await this.#find(copyId, signal);
    if (id === undefined) return;
    this.#ending.add(id);
    await this.#do(`kill of ${copyId}`, this.#remove(id, signal));
    this.#forget(copyId);
  }

  /** SIGKILL and removal in one call; no error when it is gone or going. Named volumes stay. */
  async #remove(id: string, signal?: AbortSignal): Promise<void> {
    try {
      await this.#api.call({
        method: 'DELETE',
        path: `/containers/${id}`,
        query: { force: true, v: true }, // anonymous volumes of the image go, named ones stay
        ...(signal ? { signal } : {}),
      });
    } catch (error) {
      if (!(error instanceof EngineError && (error.status === 404 || /already in progress/.test(error.message))))
        throw error;
    }
  }

  /** Tries until the engine has removed it: for what nobody waits for. */
  async #removeSurely(id: string, target?: KillTarget): Promise<void> {
    this.#ending.add(id);
    while (!this.#closing.signal.aborted) {
      try {
        return await this.#remove(id);
      } catch {
        if (target) await killTarget(target);
        await new Promise((resolve) => setTimeout(resolve, REMOVE_AGAIN_MS).unref());
      }
    }
  }

  #forget(copyId: CopyId): void {
    const id = this.#state.containers.get(copyId)?.id;
    if (id !== undefined) this.#state.startedAt.delete(id);
    this.#state.containers.delete(copyId);
    this.#cpu.delete(copyId);
    void this.#engine?.then(({ pins }) => pins.release(copyId)).catch(() => {});
  }

  /** The container of a copy, from memory or by label. */
  async #find(copyId: CopyId, signal: AbortSignal): Promise<string | undefined> {
    const known = this.#state.containers.get(copyId);
    if (known) return known.id;
    const found = await this.#summaries(signal, { [LABEL.copy]: copyId });
    return found.find((c) => c.Labels[LABEL.copy] === copyId)?.Id;
  }

  #summaries(signal: AbortSignal, more: Readonly<Record<string, string>> = {}): Promise<readonly ContainerSummary[]> {
    const label = Object.entries({ ...ownLabels(this.#o), ...more }).map(([name, value]) => `${name}=${value}`);
    const query = { all: true, filters: JSON.stringify({ label }) };
    const all = this.#api.call<readonly ContainerSummary[]>({ method: 'GET', path: '/containers/json', query, signal });
    return this.#do('listing', all).then((list) => list.filter((summary) => !isBranch(summary)));
  }

  async list(signal: AbortSignal): Promise<readonly ObservedCopy[]> {
    const { cgroups, pins } = await this.#opened(signal);
    const summaries = (await this.#summaries(signal)).filter((s) => !this.#removing.has(s.Id));
    await this.#learnStarts(summaries, signal);
    const copies: ObservedCopy[] = [];
    const seen = new Set<CopyId>();
    for (const summary of summaries) {
      const copy = readSummary(summary, this.#state.startedAt.get(summary.Id) ?? null);
      if (!copy) continue;
      copies.push(copy);
      seen.add(copy.copyId);
      if (!this.#state.containers.has(copy.copyId))
        this.#state.containers.set(copy.copyId, { id: summary.Id, target: cgroups.target(summary.Id) });
      const pinned = summary.Labels[LABEL.cpuset];
      if (copy.running && pinned !== undefined) pins.restore(copy.copyId, pinned);
    }
    for (const copyId of this.#state.containers.keys())
      if (!seen.has(copyId) && !this.#starting.has(copyId)) this.#forget(copyId);
    return copies;
  }

  /** The listing does not tell when a container started: asked once for each that we did not start ourselves. */
  async #learnStarts(summaries: readonly ContainerSummary[], signal: AbortSignal): Promise<void> {
    const { cgroups } = await this.#opened(signal);
    const unknown = summaries.filter((s) => s.State !== 'created' && !this.#state.startedAt.has(s.Id));
    const next = async (): Promise<void> => {
      for (let s = unknown.pop(); s; s = unknown.pop()) {
        try {
          const { State } = await this.#api.call<{ State: { StartedAt: string; Pid: number } }>({
            method: 'GET',
            path: `/containers/${s.Id}/json`,
            signal,
          });
          const at = Date.parse(State.StartedAt);
          if (at > 0) this.#state.startedAt.set(s.Id, at as WallMs);
          if (!cgroups.learnt && State.Pid > 0) cgroups.learn(s.Id, State.Pid);
        } catch (error) {
          if (!(error instanceof EngineError)) throw error; // removed meanwhile
        }
      }
    };
    await Promise.all(Array.from({ length: INSPECTS_AT_ONCE }, next));
  }

  events(onEvent: (event: RuntimeEvent) => void, signal: AbortSignal): Promise<void> {
    const told = (event: RuntimeEvent): void => {
      if (event.type === 'exited') void this.#engine?.then(({ pins }) => pins.release(event.copyId)).catch(() => {});
      // Another engine may answer next time: other version, other cgroups.
      if (event.type === 'down') this.#engine = undefined;
      onEvent(event);
    };
    // A late word of an earlier container must not end the copy that was started anew.
    const isPresent = (copyId: CopyId, id: string): boolean =>
      !this.#ending.has(id) && (this.#state.containers.get(copyId)?.id ?? id) === id;
    return followEvents(this.#api, this.#o, told, isPresent, AbortSignal.any([signal, this.#closing.signal]));
  }

  async stats(copyId: CopyId, signal: AbortSignal): Promise<CopyStats> {
    const id = await this.#need(copyId, signal);
    const { memoryBytes } = await this.#opened(signal);
    const kept = this.#cpu.get(copyId);
    // The counters are refreshed in steps: over a few milliseconds they tell nothing.
    const last = kept && Date.now() - kept.atMs >= CPU_SAMPLE_MS ? kept : undefined;
    const { stats, sample } = await this.#do(
      `stats of ${copyId}`,
      containerStats(this.#api, id, last, memoryBytes, signal),
    );
    this.#cpu.set(copyId, sample);
    return stats;
  }

  async *logs(copyId: CopyId, options: LogOptions, signal: AbortSignal): AsyncGenerator<LogChunk> {
    yield* containerLogs(this.#api, await this.#need(copyId, signal), options, signal);
  }

  async exec(copyId: CopyId, options: ExecOptions, signal: AbortSignal): Promise<ExecSession> {
    const id = await this.#need(copyId, signal);
    return this.#do(`exec in ${copyId}`, execInContainer(this.#api, id, options, signal));
  }

  async #need(copyId: CopyId, signal: AbortSignal): Promise<string> {
    const id = await this.#find(copyId, signal);
    if (id === undefined) throw new TaskOrgError('not_found', `there is no copy ${copyId} on this machine`);
    return id;
  }

  async images(signal: AbortSignal): Promise<readonly string[]> {
    const images = await this.#do(
      'images',
      this.#api.call<readonly { RepoTags?: readonly string[] | null }[]>({
        method: 'GET',
        path: '/images/json',
        signal,
      }),
    );
    return images.flatMap((image) => image.RepoTags ?? []).filter((tag) => !tag.startsWith('<none>'));
  }

  /** The containers go on. */
  async close(): Promise<void> {
    this.#closing.abort();
  }

  async #do<T>(what: string, work: Promise<T>): Promise<T> {
    try {
      return await work;
    } catch (error) {
      throw runtimeFailed(error, what);
    }
  }
}

import type { CopyId, DesiredCopy, ReconcileEffect, ReconcileEvent } from '../core/reconcile/types.ts';
import { toTaskOrgError } from '../model/errors.ts';
import type { MonoMs } from '../model/ids.ts';
import { isExclusive } from '../model/task-spec.ts';
import type { BootLink } from '../ports/boot.ts';
import type { Log } from '../ports/log.ts';
import type { Runtime } from '../ports/runtime.ts';

// Carries out what reconciliation decides, through the runtimes, and reports what came of it.

export type RuntimeEffect = Extract<ReconcileEffect, { type: 'start' | 'stop' | 'check-health' }>;
export type HealthChecker = (
  copy: DesiredCopy,
  runtime: Runtime,
  copyId: CopyId,
  signal: AbortSignal,
) => Promise<{ ok: boolean; output: string }>;

export interface RuntimeDriver {
  run(effect: RuntimeEffect): void;
  /** Deadline of every copy whose id starts with `prefix`. */
  deadline(prefix: string, deadline: MonoMs | undefined): void;
  runtime(kind: 'docker' | 'process'): Runtime | undefined;
  /** Runtimes that answer now. */
  available(): readonly ('docker' | 'process')[];
  stop(): Promise<void>;
}

const START_TIMEOUT_MS = 300_000;
const STOP_SLACK_MS = 15_000;
const RELIST_MS = 500;

export function createRuntimeDriver(deps: {
  readonly runtimes: readonly Runtime[];
  readonly boot: BootLink;
  readonly post: (event: ReconcileEvent) => void;
  readonly checkHealth: HealthChecker;
  readonly log: Log;
  /** A runtime began or ceased to answer. */
  readonly onAvailable?: () => void;
}): RuntimeDriver {
  const { boot, post, log } = deps;
  const byKind = new Map(deps.runtimes.map((r) => [r.kind, r]));
  const copies = new Set<CopyId>(boot.registered().keys());
  const deadlines = new Map<string, MonoMs | undefined>();
  const starting = new Map<CopyId, AbortController>();
  const aborted = new AbortController();
  const running = new Set<Promise<void>>();
  const answering = new Set<'docker' | 'process'>();

  const setAnswering = (kind: 'docker' | 'process', answers: boolean): void => {
    if (answering.has(kind) === answers) return;
    if (answers) answering.add(kind);
    else answering.delete(kind);
    deps.onAvailable?.();
  };

  const track = (work: Promise<void>): void => {
    const p = work.finally(() => running.delete(p));
    running.add(p);
  };

  const prefixOf = (copyId: CopyId): string => copyId.slice(0, copyId.lastIndexOf('.') + 1);

  async function start(effect: Extract<RuntimeEffect, { type: 'start' }>): Promise<void> {
    const { copyId, copy } = effect;
    const runtime = byKind.get(copy.spec.runtime);
    if (!runtime)
      return post({
        type: 'start-failed',
        copyId,
        error: `this machine has no ${copy.spec.runtime} runtime`,
        retryable: false,
      });
    const controller = new AbortController();
    starting.set(copyId, controller);
    const signal = AbortSignal.any([controller.signal, aborted.signal, AbortSignal.timeout(START_TIMEOUT_MS)]);
    try {
      await runtime.prepare(copy, signal);
      const observed = await runtime.start(
        copy,
        async (target) => {
          copies.add(copyId);
          await boot.register(copyId, isExclusive(copy.spec), [target]);
          if (isExclusive(copy.spec)) boot.deadline(copyId, deadlines.get(prefixOf(copyId)));
        },
        signal,
      );
      post({ type: 'started', copy: observed });
    } catch (cause) {
      const error = toTaskOrgError(cause);
      log.warn({ copyId, code: error.code, error: error.message }, 'copy did not start');
      const retryable =
        error.retryable ||
        (error.code !== 'image_missing' && error.code !== 'no_runtime' && error.code !== 'invalid_input');
      post({
        type: 'start-failed',
        copyId,
        error: error.hint ? `${error.message} (${error.hint})` : error.message,
        retryable,
      });
    } finally {
      starting.delete(copyId);
    }
  }

  async function stop(effect: Extract<RuntimeEffect, { type: 'stop' }>): Promise<void> {
    const { copyId } = effect;
    starting.get(copyId)?.abort();
    const runtime = byKind.get(effect.runtime);
    try {
      if (runtime) {
        const signal = AbortSignal.timeout(effect.graceMs + STOP_SLACK_MS);
        const { stopSignal, keep } = effect;
        if (effect.graceful || keep)
          await runtime.stop(copyId, { stopSignal, graceMs: effect.graceful ? effect.graceMs : 0, keep }, signal);
        else await runtime.kill(copyId, signal);
        if (keep) log.warn({ copyId }, 'the copy lost against another of its slot; what it wrote is set aside here');
      }
      copies.delete(copyId);
      boot.forget(copyId);
      post({ type: 'stopped', copyId });
    } catch (cause) {
      log.warn({ copyId, error: String(cause) }, 'copy did not stop');
      post({ type: 'stop-failed', copyId, error: toTaskOrgError(cause).message });
    }
  }

  async function checkHealth(effect: Extract<RuntimeEffect, { type: 'check-health' }>): Promise<void> {
    const check = effect.copy.spec.healthCheck;
    const runtime = byKind.get(effect.copy.spec.runtime);
    if (!check || !runtime) return;
    const signal = AbortSignal.any([aborted.signal, AbortSignal.timeout(check.timeoutMs)]);
    const result = await deps
      .checkHealth(effect.copy, runtime, effect.copyId, signal)
      .catch((error: unknown) => ({ ok: false, output: toTaskOrgError(error).message }));
    post({ type: 'health', copyId: effect.copyId, ok: result.ok, output: result.output });
  }

  async function listAndPost(runtime: Runtime): Promise<void> {
    const observed = await runtime.list(aborted.signal);
    for (const c of observed) copies.add(c.copyId);
    setAnswering(runtime.kind, true);
    post({ type: 'listing', runtime: runtime.kind, copies: observed });
  }

  /** Lists once the runtime answers; tries again until it does. */
  async function relist(runtime: Runtime): Promise<void> {
    while (!aborted.signal.aborted) {
      try {
        return await listAndPost(runtime);
      } catch (error) {
        log.debug({ runtime: runtime.kind, error: String(error) }, 'listing failed, trying again');
        await new Promise((resolve) => setTimeout(resolve, RELIST_MS));
      }
    }
  }

  async function watch(runtime: Runtime): Promise<void> {
    const watching = runtime.events((event) => {
      if (event.type === 'exited') {
        post({
          type: 'exited',
          copyId: event.copyId,
          exitCode: event.exitCode,
          error: event.oomKilled ? 'out of memory' : '',
        });
      } else if (event.type === 'down') {
        setAnswering(runtime.kind, false);
        log.warn({ runtime: runtime.kind, reason: event.reason }, 'runtime does not answer');
        post({ type: 'runtime-down', runtime: runtime.kind, reason: event.reason });
      } else track(relist(runtime));
    }, aborted.signal);
    await relist(runtime);
    await watching;
  }

  for (const runtime of byKind.values()) {
    track(
      watch(runtime).catch((error: unknown) => {
        if (!aborted.signal.aborted) log.error({ runtime: runtime.kind, error: String(error) }, 'runtime watch ended');
      }),
    );
  }

  return {
    run: (effect) => {
      if (effect.type === 'start') track(start(effect));
      else if (effect.type === 'stop') track(stop(effect));
      else track(checkHealth(effect));
    },
    deadline: (prefix, deadline) => {
      if (deadline === undefined) deadlines.delete(prefix);
      else deadlines.set(prefix, deadline);
      for (const copyId of copies) if (copyId.startsWith(prefix)) boot.deadline(copyId, deadline);
    },
    runtime: (kind) => byKind.get(kind),
    available: () => [...answering].sort(),
    stop: async () => {
      aborted.abort();
      await Promise.allSettled([...running]);
    },
  };
}

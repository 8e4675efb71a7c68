import type { EngineApi, EngineEvent } from '../scenario/hosts/engine-api.ts';

/** Waits for containers to start, by the engines' own events, seen from outside the hosts' network. */
export interface StartWatch {
  /** Resolves once every engine's events flow. */
  readonly opened: Promise<unknown>;
  /** Epoch ms of the `count`-th start. Rejects on time-out. */
  readonly done: Promise<number>;
  readonly stop: () => void;
}

export interface StartWatchOptions {
  readonly what: string;
  readonly engines: readonly EngineApi[];
  readonly matches: (labels: Readonly<Record<string, string>>) => boolean;
  readonly count: number;
  readonly timeoutMs: number;
}

export function watchStarts({ what, engines, matches, count, timeoutMs }: StartWatchOptions): StartWatch {
  const abort = new AbortController();
  let started = 0;
  let settle: (atMs: number) => void = () => {};
  const done = new Promise<number>((resolve, reject) => {
    settle = resolve;
    const timer = setTimeout(
      () => reject(new Error(`${what}: ${started} of ${count} containers started within ${timeoutMs} ms`)),
      timeoutMs,
    );
    abort.signal.addEventListener('abort', () => clearTimeout(timer));
  });
  done.catch(() => {}); // reported where it is awaited
  const onEvent = (event: EngineEvent): void => {
    if (event.Action !== 'start' || !matches(event.Actor.Attributes)) return;
    started += 1;
    if (started === count) settle(event.timeNano / 1e6);
  };
  const opened = engines.map(
    (engine) =>
      new Promise<void>((resolve, reject) => {
        engine.containerEvents(onEvent, abort.signal, resolve).catch(reject);
      }),
  );
  return { opened: Promise.all(opened), done, stop: () => abort.abort() };
}

import type { CopyId } from '../../core/reconcile/types.ts';
import type { Log } from '../../ports/log.ts';
import { killTarget } from '../process/kill-target.ts';
import { killTargetOf } from './cgroup-finder.ts';
import { type Engine, ENGINE_TIMEOUTS, hasStatus } from './engine.ts';

/** How long the engine may take to kill before it is done by cgroup, ms. */
const PATIENCE_MS = 500;
const FIRST_RETRY_MS = 20;
const LONGEST_RETRY_MS = 1_000;

export interface Condemned {
  readonly id: string;
  readonly copyId: CopyId;
  /** Where its processes stand or would stand. */
  readonly paths: readonly string[];
  /** A start that the engine may still carry out: until it settled, no processes does not mean none to come. */
  readonly starting?: Promise<unknown> | undefined;
}

export interface Removal {
  readonly copyId: CopyId;
  readonly id: string;
  /** No process is left and none will come: proven by the engine's removal or by the empty cgroup. Never rejects. */
  readonly dead: Promise<void>;
  /** The engine has forgotten it. Never rejects; stays open while the engine is away. */
  readonly gone: Promise<void>;
  isDead(): boolean;
}

/** Containers that must die and go. Killing needs no engine; removal is tried until the engine says that it is gone. */
export class Removals {
  readonly #engine: Engine;
  readonly #log: Log;
  readonly #open = new Map<string, Removal>();
  readonly #closed = new AbortController();

  constructor(engine: Engine, log: Log) {
    this.#engine = engine;
    this.#log = log;
  }

  condemn(c: Condemned): Removal {
    const known = this.#open.get(c.id);
    if (known) return known;
    let dead = false;
    let tellDead = (): void => {};
    const died = new Promise<void>((resolve) => {
      tellDead = () => {
        dead = true;
        resolve();
      };
    });
    const gone = this.#remove(c).then(tellDead);
    void this.#killUnless(c, () => dead).then((killed) => killed && tellDead());
    const removal: Removal = { copyId: c.copyId, id: c.id, dead: died, gone, isDead: () => dead };
    this.#open.set(c.id, removal);
    void gone.then(() => this.#open.delete(c.id));
    return removal;
  }

  get(id: string): Removal | undefined {
    return this.#open.get(id);
  }

  ofCopy(copyId: CopyId): Removal[] {
    return [...this.#open.values()].filter((r) => r.copyId === copyId);
  }

  close(): void {
    this.#closed.abort();
  }

  async #remove(c: Condemned): Promise<void> {
    const container = this.#engine.docker.getContainer(c.id);
    for (let pauseMs = FIRST_RETRY_MS; ; pauseMs = Math.min(2 * pauseMs, LONGEST_RETRY_MS)) {
      try {
        // `v` takes the image's anonymous volumes with it; named ones stay.
        await this.#engine.ask('remove', { timeoutMs: ENGINE_TIMEOUTS.remove, signal: this.#closed.signal }, (abortSignal) =>
          container.remove({ force: true, v: true, abortSignal } as object),
        );
        return;
      } catch (error) {
        if (hasStatus(error, 404)) return;
        // 409: another removal is at it.
        if (this.#closed.signal.aborted) return await new Promise<never>(() => {});
        if (!hasStatus(error, 409)) this.#log.debug({ copyId: c.copyId, error: String(error) }, 'container not removed yet');
      }
      await pause(pauseMs);
    }
  }

  async #killUnless(c: Condemned, done: () => boolean): Promise<boolean> {
    await pause(PATIENCE_MS);
    let started = c.starting === undefined;
    void c.starting?.then(
      () => { started = true; },
      () => { started = true; },
    );
    for (let pauseMs = FIRST_RETRY_MS; !done() && !this.#closed.signal.aborted; pauseMs = Math.min(2 * pauseMs, LONGEST_RETRY_MS)) {
      const settled = started;
      if ((await killTarget(killTargetOf(c.paths))) && settled) return true;
      await pause(pauseMs);
    }
    return false;
  }
}

export const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

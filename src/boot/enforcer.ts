import { BOOT_TIME_ERROR_MS } from '../adapters/clock/boot-time.ts';
import type { KillTarget } from '../model/boot-protocol.ts';
import type { Log } from '../ports/log.ts';
import type { Copy, Registry } from './registry.ts';

/** Timers stand still while the machine sleeps and boot time does not: so boot looks at least this often. */
const LONGEST_WAIT_MS = 100;
const RETRY_MS = 20;
/** A copy proven dead is looked after until it is forgotten: a start may have been pending in the engine. */
const SWEEP_AGAIN_MS = 250;

export interface EnforcerDependencies {
  readonly registry: Registry;
  /** Boot time, never ahead of the truth. */
  readonly nowMs: () => number;
  /** Kills; true when nothing is left. */
  readonly kill: (target: KillTarget) => Promise<boolean>;
  /** Every process of the copy is reaped. */
  readonly onKilled: (copyId: string, atMs: number) => void;
  readonly log: Log;
}

/**
 * Kills exclusive copies so that they are dead by their lease's deadline: begins at deadline - S on a clock rounded against
 * them, whatever the agent does. What it has begun to kill stays condemned until it is registered anew.
 */
export class Enforcer {
  readonly #deps: EnforcerDependencies;
  /** Copies being swept, with the kill in hand. */
  readonly #sweeping = new Map<string, Promise<unknown>>();
  #timer: NodeJS.Timeout | undefined;
  #stopped = false;

  constructor(deps: EnforcerDependencies) {
    this.#deps = deps;
  }

  /** To be called when the registry has changed. */
  look(): void {
    if (this.#stopped) return;
    clearTimeout(this.#timer);
    this.#timer = undefined;
    const { registry } = this.#deps;
    const now = this.#deps.nowMs() + BOOT_TIME_ERROR_MS;
    let next = Number.POSITIVE_INFINITY;
    for (const copy of registry.all()) {
      const killAt = registry.killAtMs(copy);
      if (killAt === undefined || this.#sweeping.has(copy.copyId)) continue;
      if (killAt <= now) void this.#sweep(copy);
      else next = Math.min(next, killAt);
    }
    if (next < Number.POSITIVE_INFINITY)
      this.#timer = setTimeout(() => this.look(), Math.min(LONGEST_WAIT_MS, Math.max(1, next - now)));
  }

  async #sweep(due: Copy): Promise<void> {
    const { registry, kill, log, nowMs } = this.#deps;
    const { copyId } = due;
    this.#sweeping.set(copyId, Promise.resolve());
    registry.update(copyId, { condemned: true });
    log.info({ copyId, deadlineMs: due.deadlineMs, exclusive: due.exclusive }, 'killing a copy');
    try {
      for (;;) {
        const copy = registry.get(copyId);
        // Forgotten, or registered anew under the same name: then this sweep is over.
        if (this.#stopped || copy === undefined || !copy.condemned) return;
        const kills = Promise.all(copy.targets.map((target) => kill(target).catch(() => false)));
        this.#sweeping.set(copyId, kills);
        const gone = await kills;
        const now = registry.get(copyId);
        if (now?.condemned === true && gone.every(Boolean) && now.killedAtMs === null) {
          const atMs = nowMs() + BOOT_TIME_ERROR_MS;
          registry.update(copyId, { killedAtMs: atMs });
          log.info({ copyId, atMs }, 'a copy is dead');
          this.#deps.onKilled(copyId, atMs);
        }
        await new Promise((resolve) => setTimeout(resolve, gone.every(Boolean) ? SWEEP_AGAIN_MS : RETRY_MS).unref());
      }
    } finally {
      this.#sweeping.delete(copyId);
      // Registered anew meanwhile: its new deadline counts from here.
      this.look();
    }
  }

  /** Resolves when no kill under this name is on its way. */
  async killing(copyId: string): Promise<void> {
    await this.#sweeping.get(copyId);
  }

  stop(): void {
    this.#stopped = true;
    clearTimeout(this.#timer);
  }
}

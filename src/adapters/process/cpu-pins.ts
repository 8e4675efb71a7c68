import { readFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';

/** Which cores whole-number CPU shares are pinned to: always the cores with the fewest copies on them, lowest first. */
export class CpuPins {
  readonly #load: Map<number, number>;
  readonly #held = new Map<string, readonly number[]>();

  constructor(cores: readonly number[]) {
    this.#load = new Map(cores.map((core) => [core, 0]));
  }

  get cores(): number {
    return this.#load.size;
  }

  /** `0,2` for two cores; held until released. Undefined when `count` is no whole number or more than there are. */
  take(holder: string, count: number): string | undefined {
    this.release(holder);
    if (!Number.isInteger(count) || count < 1 || count > this.#load.size) return undefined;
    const chosen = [...this.#load]
      .sort((a, b) => a[1] - b[1] || a[0] - b[0])
      .slice(0, count)
      .map(([core]) => core)
      .sort((a, b) => a - b);
    this.#hold(holder, chosen);
    return chosen.join(',');
  }

  /** What a copy of an earlier agent was pinned to. */
  restore(holder: string, pins: string): void {
    this.release(holder);
    this.#hold(holder, parseCores(pins));
  }

  release(holder: string): void {
    for (const core of this.#held.get(holder) ?? []) this.#load.set(core, Math.max(0, (this.#load.get(core) ?? 0) - 1));
    this.#held.delete(holder);
  }

  #hold(holder: string, cores: readonly number[]): void {
    const known = cores.filter((core) => this.#load.has(core));
    for (const core of known) this.#load.set(core, (this.#load.get(core) ?? 0) + 1);
    if (known.length > 0) this.#held.set(holder, known);
  }
}

/** Cores this process may use. */
export function usableCores(): number[] {
  try {
    const list = /^Cpus_allowed_list:\s*(\S+)$/m.exec(readFileSync('/proc/self/status', 'latin1'))?.[1];
    if (list !== undefined) return parseCores(list);
  } catch {
    // no /proc
  }
  return Array.from({ length: availableParallelism() }, (_, core) => core);
}

/** `0-2,5` as the kernel writes it. */
export function parseCores(list: string): number[] {
  return list.split(',').flatMap((part) => {
    const m = /^(\d+)(?:-(\d+))?$/.exec(part.trim());
    if (!m) return [];
    const first = Number(m[1]);
    return Array.from({ length: Number(m[2] ?? first) - first + 1 }, (_, i) => first + i);
  });
}

import { readFileSync } from 'node:fs';
import { rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import {
  BOOT_GRACE_MS,
  BOOT_LIMITS,
  DEFAULT_STOP_ALLOWANCE_MS,
  type KillTarget,
  type RegisteredCopy,
} from '../model/boot-protocol.ts';
import { isRegistration, isStopAllowance, isTime } from './agent-messages.ts';
import { guardFile } from './guard.ts';

export interface Copy extends RegisteredCopy {
  readonly registeredAtMs: number;
  /** Killing has begun; no later deadline takes that back. */
  readonly condemned: boolean;
}

export interface StoredRegistry {
  readonly bootId: string;
  readonly stopAllowanceMs: number;
  readonly copies: readonly Copy[];
}

function readStored(dir: string): StoredRegistry | undefined {
  try {
    return parseRegistry(readFileSync(join(dir, 'registry.json'), 'utf8'));
  } catch {
    // None: the guard of an earlier boot goes by its own file until it is replaced.
    return undefined;
  }
}

/** Undefined: cut short by a full disk, or not what a registry writes. Half a registry would leave copies without a deadline. */
export function parseRegistry(text: string): StoredRegistry | undefined {
  let stored: unknown;
  try {
    stored = JSON.parse(text);
  } catch {
    return undefined;
  }
  if (typeof stored !== 'object' || stored === null) return undefined;
  const { bootId, stopAllowanceMs, copies } = stored as Partial<StoredRegistry>;
  if (typeof bootId !== 'string' || !isStopAllowance(stopAllowanceMs)) return undefined;
  if (!Array.isArray(copies) || copies.length > BOOT_LIMITS.copies || !copies.every(isCopy)) return undefined;
  return { bootId, stopAllowanceMs, copies };
}

function isCopy(v: unknown): v is Copy {
  if (!isRegistration(v)) return false;
  const { registeredAtMs, killedAtMs, condemned } = v as Partial<Copy>;
  return isTime(registeredAtMs) && (killedAtMs === null || isTime(killedAtMs)) && typeof condemned === 'boolean';
}

/**
 * The copies on this machine, in memory and in two small files: `registry.json` for the next boot, `guard` for the guard
 * (a line for each thing to kill). The files serve other processes of this boot of the machine, so they are not fsynced.
 */
export class Registry {
  readonly #copies = new Map<string, Copy>();
  readonly #dir: string;
  readonly #bootId: string;
  #stopAllowanceMs = DEFAULT_STOP_ALLOWANCE_MS;
  #writing: Promise<void> | undefined;
  #next: Promise<void> | undefined;
  #watchedOnDisk = 0;
  /** Called when the guard's file has gained its first line: the guard sleeps until it is told. */
  onWatch: () => void = () => undefined;

  /** Takes over what an earlier boot left in `dir`, if the machine was not started anew since. */
  constructor(dir: string, bootId: string) {
    this.#dir = dir;
    this.#bootId = bootId;
    const stored = readStored(dir);
    if (stored === undefined || stored.bootId !== bootId || bootId === '') return;
    this.#stopAllowanceMs = stored.stopAllowanceMs;
    for (const copy of stored.copies) this.#copies.set(copy.copyId, copy);
  }

  get stopAllowanceMs(): number {
    return this.#stopAllowanceMs;
  }
  set stopAllowanceMs(value: number) {
    this.#stopAllowanceMs = value;
  }

  get(copyId: string): Copy | undefined {
    return this.#copies.get(copyId);
  }
  all(): IterableIterator<Copy> {
    return this.#copies.values();
  }

  /** Says why not, or undefined when it is taken. */
  register(
    copy: {
      readonly copyId: string;
      readonly exclusive: boolean;
      readonly targets: readonly KillTarget[];
      readonly deadlineMs: number | null;
    },
    nowMs: number,
  ): string | undefined {
    if (this.#copies.size >= BOOT_LIMITS.copies && !this.#copies.has(copy.copyId))
      return `more than ${BOOT_LIMITS.copies} copies`;
    this.#copies.set(copy.copyId, { ...copy, registeredAtMs: nowMs, killedAtMs: null, condemned: false });
    return undefined;
  }

  update(copyId: string, change: Partial<Pick<Copy, 'deadlineMs' | 'killedAtMs' | 'condemned'>>): void {
    const copy = this.#copies.get(copyId);
    if (copy !== undefined) this.#copies.set(copyId, { ...copy, ...change });
  }

  forget(copyId: string): void {
    this.#copies.delete(copyId);
  }

  /** When killing this copy has to begin; undefined = never by time. */
  killAtMs(copy: Copy): number | undefined {
    if (copy.condemned) return Number.NEGATIVE_INFINITY;
    if (!copy.exclusive) return undefined;
    return copy.deadlineMs === null ? copy.registeredAtMs + BOOT_GRACE_MS : copy.deadlineMs - this.#stopAllowanceMs;
  }

  /** What is left for the guard to watch: exclusive or condemned copies not proven dead. */
  watched(): Copy[] {
    return [...this.#copies.values()].filter((c) => c.killedAtMs === null && (c.exclusive || c.condemned));
  }

  /** Resolves when both files hold everything up to this call. One write at a time; calls during it share the next. */
  save(): Promise<void> {
    if (this.#writing === undefined) {
      this.#writing = this.#write().finally(() => {
        this.#writing = undefined;
      });
      return this.#writing;
    }
    this.#next ??= this.#writing
      .catch(() => undefined)
      .then(() => {
        this.#next = undefined;
        return this.save();
      });
    return this.#next;
  }

  async #write(): Promise<void> {
    const copies = [...this.#copies.values()];
    const json = JSON.stringify({ bootId: this.#bootId, stopAllowanceMs: this.#stopAllowanceMs, copies });
    const watched = this.watched();
    const guard = guardFile(
      watched.map((copy) => ({ targets: copy.targets, killAtMs: this.killAtMs(copy) ?? 0 })),
      this.#stopAllowanceMs,
    );
    // The guard's first: should the disk be full for the other, what must die still dies.
    for (const [name, content] of [
      ['guard', guard],
      ['registry.json', json],
    ] as const) {
      await writeFile(join(this.#dir, `${name}.new`), content, { mode: 0o600 });
      await rename(join(this.#dir, `${name}.new`), join(this.#dir, name));
      if (name !== 'guard') continue;
      if (this.#watchedOnDisk === 0 && watched.length > 0) this.onWatch();
      this.#watchedOnDisk = watched.length;
    }
  }
}

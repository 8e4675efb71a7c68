import { type MonoMs, monoMs, type WallMs } from '../../model/ids.ts';
import { createRng, type Rng } from '../../model/random.ts';
import type { LeaseKey } from '../lease/types.ts';
import { createWakeQueue, type WakeQueue } from '../lease/wake-queue.ts';
import type { ReconcileConfig } from './config.ts';
import { type Copy, compareCopies, mayRun } from './copy.ts';
import type { CopyId, ReconcileEffect } from './types.ts';

/** Keys of dead exclusive copies remembered, so that none of them is ever started again under its generation. */
const RELEASED_KEPT = 1024;

export type RuntimeKind = 'docker' | 'process';

/**
 * What the parts of this core share: the copies, their timers, the effects of the step under way. Timer names: `p` + id
 * for what the phase waits for, `h` health, `e` end report, `k` how long an ended copy is kept, `l` + lease key, `r` +
 * lease key.
 */
export class Room {
  readonly copies = new Map<CopyId, Copy>();
  readonly bySlot = new Map<string, Set<Copy>>();
  /** What each runtime is: `unknown` until its first listing, so nothing starts beside what may be running. */
  readonly runtimes = new Map<RuntimeKind, { state: 'up' | 'down'; reason: string }>();
  /** Runtimes listed at least once in this life: only then is what was not seen known not to exist. */
  readonly listed = new Set<RuntimeKind>();
  readonly leases = new Map<string, { readonly deadline: MonoMs; readonly slotText: string }>();
  /** Exclusive keys of the first desired set, until their runtime's first listing shows whether a copy of them exists. */
  readonly inherited = new Set<string>();
  readonly released = new Map<string, LeaseKey>();
  readonly timers: WakeQueue = createWakeQueue();
  readonly dirty = new Set<Copy>();
  /** Wanted copies in phase `waiting`. */
  readonly waiting = new Set<Copy>();
  /** Ended copies whose end is committed, oldest first. */
  readonly kept = new Set<Copy>();
  readonly rng: Rng;
  readonly config: ReconcileConfig;
  now = monoMs(0);
  wall = 0 as WallMs;
  current = false;
  startsOut = 0;
  factsDirty = false;
  effects: ReconcileEffect[] = [];
  #order = 0;

  constructor(config: ReconcileConfig, seed: string) {
    this.config = config;
    this.rng = createRng(seed);
  }

  nextOrder(): number {
    return this.#order++;
  }

  add(c: Copy): Copy {
    this.copies.set(c.id, c);
    const siblings = this.bySlot.get(c.slotText) ?? new Set<Copy>();
    siblings.add(c);
    this.bySlot.set(c.slotText, siblings);
    this.touch(c);
    return c;
  }

  remove(c: Copy): void {
    this.copies.delete(c.id);
    this.dirty.delete(c);
    this.waiting.delete(c);
    this.kept.delete(c);
    const siblings = this.bySlot.get(c.slotText);
    siblings?.delete(c);
    if (siblings?.size === 0) this.bySlot.delete(c.slotText);
    for (const prefix of ['p', 'h', 'e', 'k']) this.timers.delete(prefix + c.id);
    this.factsDirty = true;
    // A newer copy of the slot may have waited for this one.
    for (const s of siblings ?? []) this.touch(s);
  }

  /** The copy is to be decided upon (again) before this step ends, and its fact may have changed. */
  touch(c: Copy): void {
    this.dirty.add(c);
    this.factsDirty = true;
  }

  touchSlot(c: Copy): void {
    for (const s of this.bySlot.get(c.slotText) ?? []) this.touch(s);
  }

  runtimeUp(kind: RuntimeKind): boolean {
    return this.runtimes.get(kind)?.state === 'up';
  }

  leaseValid(c: Copy): boolean {
    const lease = this.leases.get(c.keyText);
    return lease !== undefined && this.now < lease.deadline - this.config.stopAllowanceMs;
  }

  /** A newer copy of the same slot is wanted on this machine: a committed fact, so this one is superseded for certain. */
  superseded(c: Copy): boolean {
    if (c.desired !== undefined) return false;
    for (const s of this.bySlot.get(c.slotText) ?? []) {
      if (
        s.desired !== undefined &&
        compareCopies(s.desired, { generation: c.key.generation, specVersion: c.specVersion }) > 0
      )
        return true;
    }
    return false;
  }

  slotBusy(c: Copy): boolean {
    for (const s of this.bySlot.get(c.slotText) ?? []) if (s !== c && mayRun(s)) return true;
    return false;
  }

  /** Says that no copy under this key lives or will live here. For exclusive ones, and those nobody here knows. */
  release(key: LeaseKey, keyText: string): void {
    if (this.released.has(keyText)) return;
    this.released.set(keyText, key);
    for (const old of this.released.keys()) {
      if (this.released.size <= RELEASED_KEPT) break;
      this.released.delete(old);
      this.timers.delete(`r${old}`);
    }
    this.leases.delete(keyText);
    this.timers.delete(`l${keyText}`);
    this.effects.push({ type: 'released', key });
    this.timers.set(`r${keyText}`, this.now + this.config.releaseRepeatMs);
  }
}

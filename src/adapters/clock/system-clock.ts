import { randomBytes } from 'node:crypto';
import { type MonoMs, monoMs, wallMs } from '../../model/ids.ts';
import type { Clock, RandomSource } from '../../ports/clock.ts';
import { type BootTime, openBootTime } from './boot-time.ts';

/** setTimeout counts in 31 bits. */
const LONGEST_TIMER_MS = 2 ** 31 - 1;

/** The real clock: boot time (suspend counted) for rules, wall time for people. */
export function createSystemClock(bootTime: BootTime = openBootTime()): Clock & { close(): void } {
  const at = (due: MonoMs, callback: (lateMs: number) => void): (() => void) => {
    let timer: NodeJS.Timeout;
    const arm = (): void => {
      const wait = Math.min(Math.max(0, Math.ceil(due - bootTime.nowMs())), LONGEST_TIMER_MS);
      timer = setTimeout(fire, wait);
    };
    // A timer may fire a little early by the other clock, or be shorter than asked for: never call back before `due`.
    const fire = (): void => {
      const late = bootTime.nowMs() - due;
      if (late < 0) arm();
      else callback(late);
    };
    arm();
    return () => clearTimeout(timer);
  };
  return { mono: () => monoMs(bootTime.nowMs()), wall: () => wallMs(Date.now()), at, close: () => bootTime.close() };
}

export function createSystemRandom(): RandomSource {
  return { bytes: (length) => randomBytes(length), seed: () => randomBytes(16).toString('hex') };
}

import { closeSync, openSync, readSync } from 'node:fs';
import { uptime } from 'node:os';

/** /proc/uptime is cut to hundredths of a second: the true time is at most this far ahead of what `bootTimeMs` gives. */
export const BOOT_TIME_ERROR_MS = 10;

/** Milliseconds since the machine started, suspend counted. Never steps, never runs ahead of the truth. */
export interface BootTime {
  nowMs(): number;
  close(): void;
}

const monotonicMs = (): number => Number(process.hrtime.bigint()) / 1e6;

/**
 * The clock of leases: CLOCK_BOOTTIME as /proc/uptime shows it (Node's own monotonic clock stands still while the machine
 * sleeps). Between two hundredths it is refined by the monotonic clock: every reading bounds the difference of the two from
 * below, and the greatest bound is kept; a suspend raises it at the next reading. About 1 us a call.
 */
export function openBootTime(path = '/proc/uptime'): BootTime {
  let fd: number;
  try {
    fd = openSync(path, 'r');
  } catch {
    // Not Linux. No promise about suspend there; such a machine fails the self-test and holds no exclusive task.
    const offset = uptime() * 1000 - monotonicMs();
    return { nowMs: () => monotonicMs() + offset, close: () => undefined };
  }
  const buffer = Buffer.alloc(64);
  let offset = Number.NEGATIVE_INFINITY;
  return {
    nowMs: () => {
      const floor = parseUptime(buffer, readSync(fd, buffer, 0, buffer.length, 0));
      const monotonic = monotonicMs();
      if (floor - monotonic > offset) offset = floor - monotonic;
      return monotonic + offset;
    },
    close: () => closeSync(fd),
  };
}

/** First number of `SECONDS.HH SECONDS.HH`, in ms, without floating point text parsing on the way. */
function parseUptime(bytes: Buffer, length: number): number {
  let hundredths = 0;
  for (let i = 0; i < length; i++) {
    const digit = (bytes[i] as number) - 48;
    if (digit === -16) break;
    if (digit >= 0 && digit <= 9) hundredths = hundredths * 10 + digit;
  }
  return hundredths * 10;
}

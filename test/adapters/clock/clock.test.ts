import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { BOOT_TIME_ERROR_MS, openBootTime } from '../../../src/adapters/clock/boot-time.ts';
import { createSystemClock, createSystemRandom } from '../../../src/adapters/clock/system-clock.ts';
import { monoMs } from '../../../src/model/ids.ts';

const kernel = (): number => Number(readFileSync('/proc/uptime', 'utf8').split(' ')[0]) * 1000;

describe('boot time', () => {
  it('is never ahead of the kernel’s, at most a hundredth behind, and never steps back', () => {
    const time = openBootTime();
    let last = 0;
    for (let i = 0; i < 2000; i++) {
      const before = kernel();
      const now = time.nowMs();
      const after = kernel();
      // The kernel's figure is cut to hundredths.
      expect(now).toBeLessThan(after + BOOT_TIME_ERROR_MS + 0.5);
      expect(now).toBeGreaterThan(before - 0.5);
      expect(now).toBeGreaterThanOrEqual(last);
      last = now;
    }
    time.close();
  });

  it('follows a suspend at the next reading', () => {
    const dir = mkdtempSync(join(tmpdir(), 'task-org-clock-'));
    const path = join(dir, 'uptime');
    writeFileSync(path, '100.50 3.00\n');
    const time = openBootTime(path);
    expect(time.nowMs()).toBeCloseTo(100_500, -2);
    writeFileSync(path, '7300.75 3.00\n');
    expect(time.nowMs()).toBeCloseTo(7_300_750, -2);
    time.close();
    rmSync(dir, { recursive: true });
  });

  it('gives way to what the machine has where there is no /proc', () => {
    expect(Math.abs(openBootTime('/nonexistent').nowMs() - kernel())).toBeLessThan(1500);
  });
});

describe('system clock', () => {
  it('calls back at or after the time, once, and tells how late', async () => {
    const clock = createSystemClock();
    const due = monoMs(clock.mono() + 15);
    const late = await new Promise<number>((resolve) => clock.at(due, resolve));
    expect(clock.mono()).toBeGreaterThanOrEqual(due);
    expect(late).toBeGreaterThanOrEqual(0);
    clock.close();
  });

  it('a cancelled callback does not come', async () => {
    const clock = createSystemClock();
    const seen: string[] = [];
    clock.at(monoMs(clock.mono()), () => seen.push('cancelled'))();
    await new Promise<void>((resolve) => clock.at(monoMs(clock.mono() + 5), () => resolve()));
    expect(seen).toEqual([]);
    clock.close();
  });

  it('gives random bytes and seeds', () => {
    const random = createSystemRandom();
    expect(random.bytes(24)).toHaveLength(24);
    expect(random.seed()).not.toBe(random.seed());
  });
});

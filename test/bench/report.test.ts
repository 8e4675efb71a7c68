import { expect, test } from 'vitest';
import { pool, share } from '../../src/bench/pool.ts';
import { compare, formatReport, targetsReached } from '../../src/bench/report.ts';
import { percentile, summarize } from '../../src/scenario/statistics.ts';

const series = (subject: string, samples: number[]) => ({ subject, metric: 'time', unit: 'ms', samples });

test('percentiles are samples, by nearest rank', () => {
  const ten = [10, 9, 8, 7, 6, 5, 4, 3, 2, 1];
  expect([0, 10, 50, 90, 99, 100].map((p) => percentile(ten, p))).toEqual([1, 1, 5, 9, 10, 10]);
  expect(percentile([7], 50)).toBe(7);
  expect(percentile([], 50)).toBeNaN();
  expect(summarize([1, 2, 6])).toMatchObject({ count: 3, min: 1, p50: 2, max: 6, mean: 3 });
});

test('a ratio above one means that we are ahead, whichever way is better', () => {
  expect(compare('t', series('a', [100]), series('b', [1000]), 'smaller', 10)?.ratio).toBe(10);
  expect(compare('t', series('a', [100]), series('b', [1000]), 'larger', 1)?.ratio).toBe(0.1);
  expect(compare('t', series('a', []), series('b', [1]), 'larger')).toBeUndefined();
});

test('the report shows both sides, the ratio and whether the target is reached', () => {
  const missed = compare('recovery', series('ours', [200]), series('other', [1000]), 'smaller', 10);
  const report = {
    name: 'x',
    setting: ['5 hosts'],
    series: [series('ours', [200, 210.5]), series('other', [1000])],
    comparisons: missed ? [missed] : [],
  };
  const text = formatReport(report);
  expect(text).toMatch(/ours +time +ms +2 +200 +200 +210\.5/);
  expect(text).toMatch(/recovery +200 +1000 +5 +>= 10 +MISSED/);
  expect(targetsReached(report)).toBe(false);
});

test('the pool never has more in work than its width, and does everything once', async () => {
  let now = 0;
  let most = 0;
  const done: number[] = [];
  await pool([1, 2, 3, 4, 5, 6, 7], 3, async (item) => {
    most = Math.max(most, ++now);
    await Promise.resolve();
    now -= 1;
    done.push(item);
  });
  expect(most).toBe(3);
  expect(done.sort()).toEqual([1, 2, 3, 4, 5, 6, 7]);
  expect([0, 1, 2].map((index) => share(200, 3, index))).toEqual([67, 67, 66]);
});

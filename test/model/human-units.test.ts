import fc from 'fast-check';
import { expect, it } from 'vitest';
import { formatBytes, formatDuration, parseBytes, parseDurationMs } from '../../src/model/human-units.ts';
import { shellWords } from '../../src/model/shell-words.ts';
import { nearest } from '../../src/model/suggest.ts';

it.each<[unknown, number | undefined]>([
  ['64m', 67_108_864],
  ['1.5g', 1_610_612_736],
  ['10', 10],
  [10, 10],
  ['1k', 1024],
  ['1KB', 1024],
  ['1 KiB', 1024],
  ['2b', 2],
  ['1t', 1024 ** 4],
  ['0', 0],
  ['', undefined],
  ['m', undefined],
  ['-1m', undefined],
  ['1x', undefined],
  ['1e3', undefined],
  [-1, undefined],
  [1.5, undefined],
  [null, undefined],
  ['9999999p', undefined],
  ['1 m m', undefined],
])('size %j is %j', (text, bytes) => expect(parseBytes(text)).toBe(bytes));

it.each<[unknown, number | undefined]>([
  ['1.5s', 1500],
  ['250ms', 250],
  ['1h30m', 5_400_000],
  ['2m', 120_000],
  ['1d', 86_400_000],
  ['500us', 1],
  ['0', 0],
  [0, 0],
  ['1h 30m', 5_400_000],
  ['10', undefined],
  [10, undefined],
  ['', undefined],
  ['s', undefined],
  ['-1s', undefined],
  ['1.s', undefined],
  ['1 month', undefined],
  [null, undefined],
])('duration %j is %j ms', (text, ms) => expect(parseDurationMs(text)).toBe(ms));

it('what is shown reads back: exactly where it is short, within half a percent elsewhere', () => {
  fc.assert(
    fc.property(fc.integer({ min: 0, max: 2 ** 50 }), (n) => {
      expect(Math.abs((parseBytes(formatBytes(n)) ?? Number.NaN) - n)).toBeLessThanOrEqual(n * 0.005);
      const ms = n % 10_000_000_000;
      expect(Math.abs((parseDurationMs(formatDuration(ms)) ?? Number.NaN) - ms)).toBeLessThanOrEqual(
        Math.max(500 * Number(ms >= 60_000), 0),
      );
    }),
  );
  expect([
    formatBytes(67_108_864),
    formatBytes(0),
    formatDuration(1500),
    formatDuration(5_400_000),
    formatDuration(0),
  ]).toEqual(['64 MiB', '0 B', '1.5s', '1h30m', '0ms']);
});

it.each<[string, string[] | string]>([
  ['sleep 60', ['sleep', '60']],
  [`sh -c 'echo "a b"'`, ['sh', '-c', 'echo "a b"']],
  ['a "b \\" c" d\\ e', ['a', 'b " c', 'd e']],
  [`x ''`, ['x', '']],
  ['  ', []],
  ['echo $HOME *', ['echo', '$HOME', '*']],
  ['a"b"\'c\'', ['abc']],
  ["a 'b", 'a single quote is not closed'],
  ['a "b', 'a double quote is not closed'],
  ['a\\', 'it ends in a backslash'],
])('words of %j', (line, expected) => {
  const r = shellWords(line);
  expect(r.ok ? r.words : r.error).toEqual(expected);
});

it('suggests what is near and nothing else', () => {
  const known = ['image', 'memory', 'restart', 'healthCheck'];
  expect(['imgae', 'Memory', 'health_check', 'restrat', 'zzz', 'x'].map((w) => nearest(w, known))).toEqual([
    'image',
    'memory',
    'healthCheck',
    'restart',
    undefined,
    undefined,
  ]);
});

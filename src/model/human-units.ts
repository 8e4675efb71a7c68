// What people write and read for amounts: '64m', '1.5s'. Sizes follow Docker: k, m, g, t are powers of 1024, with or
// without `b` or `ib`. Durations always carry a unit, so that nobody's 10 seconds become 10 milliseconds.

const SIZE_UNITS: Readonly<Record<string, number>> = {
  '': 1,
  b: 1,
  k: 1024,
  m: 1024 ** 2,
  g: 1024 ** 3,
  t: 1024 ** 4,
  p: 1024 ** 5,
};
const DURATION_UNITS: Readonly<Record<string, number>> = {
  us: 0.001,
  ms: 1,
  s: 1000,
  m: 60_000,
  h: 3_600_000,
  d: 86_400_000,
};

export const SIZE_PATTERN = '^\\s*\\d{1,16}(\\.\\d{1,9})?\\s*([kmgtpKMGTP]?([iI]?[bB])?)\\s*$';
export const DURATION_PATTERN = '^\\s*(0|(\\d{1,12}(\\.\\d{1,9})?\\s*(us|ms|s|m|h|d)\\s*)+)$';

/** Bytes, from a whole number or text such as `64m`, `1.5 GiB`. Undefined when it is neither or not safe as an integer. */
export function parseBytes(value: unknown): number | undefined {
  if (typeof value === 'number') return Number.isSafeInteger(value) && value >= 0 ? value : undefined;
  if (typeof value !== 'string') return undefined;
  const m = /^\s*(\d{1,16}(?:\.\d{1,9})?)\s*([kmgtp]?)(?:i?b)?\s*$/i.exec(value);
  if (!m) return undefined;
  const bytes = Math.round(Number(m[1]) * (SIZE_UNITS[(m[2] ?? '').toLowerCase()] ?? Number.NaN));
  return Number.isSafeInteger(bytes) ? bytes : undefined;
}

/** Milliseconds, from text such as `1.5s`, `1h30m`, `250ms`; `0` needs no unit. Undefined when it is not a duration. */
export function parseDurationMs(value: unknown): number | undefined {
  if (value === 0) return 0;
  if (typeof value !== 'string' || value.length > 64 || !DURATION.test(value)) return undefined;
  let ms = 0;
  for (const [, amount, unit] of value.matchAll(/(\d+(?:\.\d+)?)\s*(us|ms|s|m|h|d)/g)) {
    ms += Number(amount) * (DURATION_UNITS[unit ?? ''] ?? Number.NaN);
  }
  const rounded = Math.round(ms);
  return Number.isSafeInteger(rounded) ? rounded : undefined;
}
const DURATION = new RegExp(DURATION_PATTERN);

/** `64 MiB`, `1.5 GiB`, `512 B`: at most two decimals, read back by parseBytes. */
export function formatBytes(bytes: number): string {
  const names = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'];
  let amount = bytes;
  let unit = 0;
  while (amount >= 1024 && unit < names.length - 1) {
    amount /= 1024;
    unit += 1;
  }
  return `${trim(amount, 2)} ${names[unit]}`;
}

/** `250ms`, `1.5s`, `1h30m`: read back by parseDurationMs. */
export function formatDuration(ms: number): string {
  if (ms < 1000) return `${trim(ms, 3)}ms`;
  if (ms < 60_000) return `${trim(ms / 1000, 3)}s`;
  let rest = Math.round(ms / 1000);
  let text = '';
  for (const [name, size] of [
    ['d', 86_400],
    ['h', 3600],
    ['m', 60],
    ['s', 1],
  ] as const) {
    const n = Math.floor(rest / size);
    rest -= n * size;
    if (n > 0) text += `${n}${name}`;
  }
  return text;
}

function trim(amount: number, decimals: number): string {
  return String(Number(amount.toFixed(decimals)));
}

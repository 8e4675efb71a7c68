import Table from 'cli-table3';
import { percentile, summarize } from '../scenario/statistics.ts';

/** Samples of one quantity, in one unit. */
export interface Series {
  /** Who: `task-org`, `etcd 3.4`, ... */
  readonly subject: string;
  /** What: `host lost -> runs elsewhere`. */
  readonly metric: string;
  readonly unit: string;
  readonly samples: readonly number[];
}

/** Two series side by side. `ratio` = better / worse reading for us: above 1 we are ahead. */
export interface Comparison {
  readonly metric: string;
  readonly ours: number;
  readonly reference: number;
  readonly ratio: number;
  /** The ratio that must be reached; null = none stated. */
  readonly target: number | null;
}

export interface BenchReport {
  readonly name: string;
  /** What was run, on what: one line each. */
  readonly setting: readonly string[];
  readonly series: readonly Series[];
  readonly comparisons: readonly Comparison[];
}

/**
 * Compares by the median. `smaller` is better: reference / ours; `larger` is better: ours / reference. Undefined when a
 * side has no samples.
 */
export function compare(
  metric: string,
  ours: Series | undefined,
  reference: Series | undefined,
  better: 'smaller' | 'larger',
  target: number | null = null,
): Comparison | undefined {
  if (!ours?.samples.length || !reference?.samples.length) return undefined;
  const a = percentile(ours.samples, 50);
  const b = percentile(reference.samples, 50);
  return { metric, ours: a, reference: b, ratio: better === 'smaller' ? b / a : a / b, target };
}

/** True when every stated target is reached. */
export function targetsReached(report: BenchReport): boolean {
  return report.comparisons.every((one) => one.target === null || one.ratio >= one.target);
}

export function formatNumber(value: number): string {
  if (Number.isNaN(value)) return '-';
  if (Number.isInteger(value)) return String(value);
  const size = Math.abs(value);
  return size >= 1000
    ? value.toFixed(0)
    : size >= 100
      ? value.toFixed(1)
      : size >= 1
        ? value.toFixed(2)
        : value.toPrecision(2);
}

/** The whole report as text for a terminal. */
export function formatReport(report: BenchReport): string {
  const lines = [`bench ${report.name}`, ...report.setting.map((line) => `  ${line}`), ''];
  lines.push(
    formatTable(['subject', 'metric', 'unit', 'n', 'min', 'p50', 'p90', 'p99', 'max'], report.series.map(seriesRow)),
  );
  if (report.comparisons.length > 0) {
    lines.push(
      '',
      formatTable(
        ['compared', 'ours (p50)', 'reference (p50)', 'ratio', 'target', ''],
        report.comparisons.map(comparisonRow),
      ),
    );
  }
  return lines.join('\n');
}

function seriesRow(series: Series): string[] {
  const all = summarize(series.samples);
  const numbers = [all.min, all.p50, all.p90, all.p99, all.max].map(formatNumber);
  return [series.subject, series.metric, series.unit, String(all.count), ...numbers];
}

function comparisonRow(one: Comparison): string[] {
  const verdict = one.target === null ? '' : one.ratio >= one.target ? 'reached' : 'MISSED';
  return [
    one.metric,
    formatNumber(one.ours),
    formatNumber(one.reference),
    formatNumber(one.ratio),
    one.target === null ? '' : `>= ${one.target}`,
    verdict,
  ];
}

/** A plain table without rules; numbers of a column end at the same place. */
export function formatTable(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const numeric = head.map(
    (_, column) => rows.length > 0 && rows.every((row) => /^(-|>= )?[\d.]*$/.test(row[column] ?? '')),
  );
  const none = {
    top: '',
    'top-mid': '',
    'top-left': '',
    'top-right': '',
    bottom: '',
    'bottom-mid': '',
    'bottom-left': '',
    'bottom-right': '',
    left: '',
    'left-mid': '',
    mid: '',
    'mid-mid': '',
    right: '',
    'right-mid': '',
    middle: '  ',
  };
  const table = new Table({
    head: [...head],
    chars: none,
    style: { head: [], border: [], 'padding-left': 0, 'padding-right': 0 },
    colAligns: numeric.map((yes) => (yes ? 'right' : 'left')),
  });
  for (const row of rows) table.push([...row]);
  return table
    .toString()
    .split('\n')
    .map((line) => line.trimEnd())
    .join('\n');
}

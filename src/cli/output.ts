import Table from 'cli-table3';
import { TaskOrgError } from '../model/errors.ts';

// What a person sees: Docker-like tables, JSON on request, plain words. No colour, so nothing changes when piped.

export interface ListOptions {
  readonly format?: string;
  readonly quiet?: boolean;
  readonly filter?: readonly string[];
  /** Commander's form of --no-trunc. */
  readonly trunc?: boolean;
}

export interface Column<T> {
  readonly title: string;
  readonly value: (row: T) => string;
  /** Longest text before it is cut (unless --no-trunc). */
  readonly width?: number;
}

export interface Listing<T> {
  readonly items: readonly T[];
  readonly seenBy?: {
    readonly peers: number;
    readonly of: number;
    readonly appliedIndex: number;
    readonly hasQuorum: boolean;
  };
  readonly oldestFactMs?: number;
}

const NO_BORDERS = {
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
  middle: '   ',
};

export const print = (text: string): void => void process.stdout.write(`${text}\n`);
export const note = (text: string): void => void process.stderr.write(`${text}\n`);

const cut = (text: string, width: number | undefined): string =>
  width !== undefined && text.length > width ? `${text.slice(0, width - 1)}…` : text;

/** `--filter key=value`, repeated: all must hold. A key is a field name, or `label`, matched exactly or by part for names. */
export function applyFilters<T extends object>(items: readonly T[], filters: readonly string[] | undefined): T[] {
  return (filters ?? []).reduce<T[]>(
    (rows, filter) => {
      const eq = filter.indexOf('=');
      if (eq < 1)
        throw new TaskOrgError('invalid_input', `--filter ${filter}: expected key=value`, {
          hint: 'e.g. --filter status=alive, --filter label=zone=lab',
        });
      const key = filter.slice(0, eq);
      const want = filter.slice(eq + 1);
      return rows.filter((row) => {
        if (key === 'label') {
          const [name, value] = want.split('=', 2);
          const labels = (row as { labels?: Record<string, string> }).labels ?? {};
          return name !== undefined && name in labels && (value === undefined || labels[name] === value);
        }
        if (!(key in row))
          throw new TaskOrgError('invalid_input', `--filter ${key}: no such field`, {
            hint: `fields: ${Object.keys(row).join(', ')}`,
          });
        const have = (row as Record<string, unknown>)[key];
        return key === 'name'
          ? String(have).includes(want)
          : Array.isArray(have)
            ? have.map(String).includes(want)
            : String(have) === want;
      });
    },
    [...items],
  );
}

/** Prints a listing in the form asked for. */
export function printList<T extends object>(
  listing: Listing<T>,
  columns: readonly Column<T>[],
  id: (row: T) => string,
  options: ListOptions,
): void {
  if (options.format !== undefined && options.format !== 'table' && options.format !== 'json')
    throw new TaskOrgError('invalid_input', `--format ${options.format}: expected json or table`);
  const items = applyFilters(listing.items, options.filter);
  if (options.quiet) {
    for (const row of items) print(id(row));
    return;
  }
  if (options.format === 'json') {
    for (const row of items) print(JSON.stringify(row));
    return;
  }
  printTable(columns, items, options.trunc !== false);
  if (listing.seenBy && !listing.seenBy.hasQuorum)
    note('warning: no majority is in reach of this peer; what is shown may be out of date');
}

export function printTable<T>(columns: readonly Column<T>[], items: readonly T[], truncate = true): void {
  const table = new Table({
    head: columns.map((c) => c.title),
    chars: NO_BORDERS,
    style: { head: [], border: [], 'padding-left': 0, 'padding-right': 0 },
  });
  for (const row of items) table.push(columns.map((c) => (truncate ? cut(c.value(row), c.width) : c.value(row))));
  print(
    table
      .toString()
      .split('\n')
      .map((line) => line.trimEnd())
      .join('\n'),
  );
}

export function age(epochMs: number | null): string {
  if (epochMs === null) return '';
  const s = Math.max(0, Math.round((Date.now() - epochMs) / 1000));
  const [n, unit] =
    s < 60
      ? [s, 'second']
      : s < 3600
        ? [Math.floor(s / 60), 'minute']
        : s < 48 * 3600
          ? [Math.floor(s / 3600), 'hour']
          : [Math.floor(s / 86_400), 'day'];
  return `${n} ${unit}${n === 1 ? '' : 's'} ago`;
}

export function bytes(n: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let value = n;
  let i = 0;
  while (value >= 1024 && i < units.length - 1) {
    value /= 1024;
    i += 1;
  }
  return `${i === 0 ? value : value.toFixed(1)}${units[i]}`;
}

export const shortId = (id: string): string => id.slice(-12);
export const time = (epochMs: number): string => new Date(epochMs).toISOString().replace('T', ' ').replace('Z', '');

/** A reader that has seen enough (`| head`) ends the program quietly. */
export function endWithReader(): void {
  for (const stream of [process.stdout, process.stderr]) {
    stream.on('error', (error: NodeJS.ErrnoException) => {
      if (error.code === 'EPIPE') process.exit();
      throw error;
    });
  }
}

/** Prints an error the way a person can act on, and gives the exit code. */
export function printError(error: unknown): number {
  if (error instanceof TaskOrgError) {
    note(`Error: ${error.message}`);
    for (const issue of error.details) note(`  ${issue.path === '' ? '(document)' : issue.path}: ${issue.message}`);
    if (error.hint) note(`Hint: ${error.hint}`);
    return error.code === 'invalid_input' ? 2 : 1;
  }
  note(`Error: ${error instanceof Error ? error.message : String(error)}`);
  return 1;
}

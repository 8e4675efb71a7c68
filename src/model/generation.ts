import type { NodeId } from './ids.ts';

/**
 * The fencing number of one slot assignment: strictly rising per slot, committed before use.
 * A caretaker (no majority in reach) may start `available` tasks with a provisional generation, which orders after
 * the committed (epoch, g) it grew from and before g+1.
 */
export interface Generation {
  /** Raised only by `task-org cluster recover --force`. */
  readonly epoch: number;
  readonly g: number;
  readonly provisional?: { readonly caretaker: NodeId; readonly n: number };
}

/** Total order: epoch, g, committed before provisional, n, then caretaker id as the tie break. */
export function compareGeneration(a: Generation, b: Generation): number {
  if (a.epoch !== b.epoch) return a.epoch - b.epoch;
  if (a.g !== b.g) return a.g - b.g;
  const an = a.provisional?.n ?? 0;
  const bn = b.provisional?.n ?? 0;
  if (an !== bn) return an - bn;
  const ac = a.provisional?.caretaker ?? '';
  const bc = b.provisional?.caretaker ?? '';
  return ac < bc ? -1 : ac > bc ? 1 : 0;
}

/** True when both grew from the same committed (epoch, g), provisional or not. */
export const sameBase = (a: Generation, b: Generation): boolean => a.epoch === b.epoch && a.g === b.g;

export function sameGeneration(a: Generation, b: Generation): boolean {
  return compareGeneration(a, b) === 0;
}

/** `1.7` for a committed generation, `1.7~2@PEERID` for a provisional one. Used in labels and tables. */
export function formatGeneration(a: Generation): string {
  const base = `${a.epoch}.${a.g}`;
  return a.provisional ? `${base}~${a.provisional.n}@${a.provisional.caretaker}` : base;
}

/** Inverse of formatGeneration; undefined when the text is not a generation. */
export function parseGeneration(text: string): Generation | undefined {
  const m = /^(\d{1,9})\.(\d{1,15})(?:~(\d{1,9})@([A-Za-z0-9_.-]{1,128}))?$/.exec(text);
  if (!m) return undefined;
  const base = { epoch: Number(m[1]), g: Number(m[2]) };
  return m[3] === undefined ? base : { ...base, provisional: { caretaker: m[4] as NodeId, n: Number(m[3]) } };
}

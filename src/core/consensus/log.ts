import type { LogEntry } from './types.ts';

// The log in memory (Raft, Figure 2: log[]; section 7: everything up to `base` lives in the snapshot). Indices are plain
// numbers inside the room; brands are put on at its border.

/** Rough cost of an entry on the wire besides its payload, bytes. */
const ENTRY_OVERHEAD_BYTES = 24;
/** Dropped entries are kept in the array until there are this many, so that compaction costs O(1) per entry. */
const SHIFT_CHUNK = 4096;

export function entryBytes(entry: LogEntry): number {
  const payload = entry.payload;
  if (payload.kind === 'command') return payload.bytes.length + ENTRY_OVERHEAD_BYTES;
  if (payload.kind === 'noop') return ENTRY_OVERHEAD_BYTES;
  return ENTRY_OVERHEAD_BYTES + 64 * (payload.membership.voters.length + (payload.membership.outgoing?.length ?? 0));
}

export class RaftLog {
  /** Index and term of the last entry that the snapshot stands for. */
  base: number;
  baseTerm: number;
  #items: LogEntry[];
  #head = 0;

  constructor(base: number, baseTerm: number, entries: readonly LogEntry[]) {
    this.base = base;
    this.baseTerm = baseTerm;
    this.#items = [...entries];
  }

  get last(): number {
    return this.base + this.#items.length - this.#head;
  }

  get lastTerm(): number {
    return this.termAt(this.last) ?? 0;
  }

  at(index: number): LogEntry | undefined {
    return index <= this.base ? undefined : this.#items[this.#head + index - this.base - 1];
  }

  /** Term of an entry held, or of the snapshot's last; undefined outside. */
  termAt(index: number): number | undefined {
    return index === this.base ? this.baseTerm : this.at(index)?.term;
  }

  /** Entries must follow `last` without a gap: the caller has checked. */
  append(entries: readonly LogEntry[]): void {
    for (const entry of entries) this.#items.push(entry);
  }

  /** Drops entries with index >= from. */
  truncate(from: number): void {
    this.#items.length = Math.max(this.#head, this.#head + from - this.base - 1);
  }

  /** Entries [from, to), as far as held. Empty when `from` is compacted away. */
  slice(from: number, to: number): LogEntry[] {
    if (from <= this.base || to <= from) return [];
    const start = this.#head + from - this.base - 1;
    return this.#items.slice(start, start + to - from);
  }

  /** Entries from `from` on within the limits; at least one if there is any. */
  batch(from: number, maxEntries: number, maxBytes: number): LogEntry[] {
    const out: LogEntry[] = [];
    let bytes = 0;
    for (let index = from; out.length < maxEntries; index++) {
      const entry = this.at(index);
      if (entry === undefined) break;
      bytes += entryBytes(entry);
      if (bytes > maxBytes && out.length > 0) break;
      out.push(entry);
    }
    return out;
  }

  /** Largest index <= `from` whose term is <= `term` (the place where two logs may still agree); at least `base`. */
  lastAtOrBelow(from: number, term: number): number {
    let index = Math.min(from, this.last);
    while (index > this.base && (this.termAt(index) ?? 0) > term) index--;
    return Math.max(index, this.base);
  }

  /** Forgets entries <= upTo, which must be held. */
  compact(upTo: number): void {
    const term = this.termAt(upTo);
    if (term === undefined || upTo <= this.base) return;
    this.#head += upTo - this.base;
    this.base = upTo;
    this.baseTerm = term;
    if (this.#head >= SHIFT_CHUNK) {
      this.#items = this.#items.slice(this.#head);
      this.#head = 0;
    }
  }

  /** The log after a snapshot that does not join on: nothing but its last index and term. */
  reset(index: number, term: number): void {
    this.#items = [];
    this.#head = 0;
    this.base = index;
    this.baseTerm = term;
  }
}

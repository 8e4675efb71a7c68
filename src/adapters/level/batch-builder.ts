import { createHash } from 'node:crypto';
import { crc32 } from 'node:zlib';
import { aboveSnapshot } from '../../core/consensus/persist-ops.ts';
import type { PersistOp } from '../../core/consensus/types.ts';
import { TaskOrgError } from '../../model/errors.ts';
import { assertNever } from '../../model/ids.ts';
import type { StoreBatch } from '../../ports/store.ts';
import { decodeEntry, encodeEntry, logKey } from './log-codec.ts';
import { encode, KEY, LOCAL_PREFIX, PENDING_PREFIX, plainMembership, statePrefix, type Tail } from './tail.ts';
import { encodeVote, NO_HASH, type VoteRecord } from './vote-file.ts';

export type Op =
  | { readonly type: 'put'; readonly key: string; readonly value: Uint8Array }
  | { readonly type: 'del'; readonly key: string };

/** Reads what is durable now; the builder itself knows what the batch in hand has changed. */
export type ReadStored = (key: string) => Uint8Array | undefined;

export function voteRecord(tail: Tail): VoteRecord {
  return {
    sequence: tail.sequence,
    lost: tail.lost,
    term: tail.hardState.term,
    votedFor: tail.hardState.votedFor,
    lastIndex: tail.lastIndex,
    lastTerm: tail.lastTerm,
    lastHash: tail.lastValue === undefined ? NO_HASH : createHash('sha256').update(tail.lastValue).digest(),
  };
}

/**
 * Turns store batches into the operations of one LevelDB batch, keeping the tail up to date. A batch that cannot be encoded
 * or does not join on is refused as a whole before it has left a trace.
 */
export class BatchBuilder {
  readonly ops: Op[] = [];
  tail: Tail;
  sync = false;
  voteChanged = false;
  readonly #read: ReadStored;
  /** Log entries and state checksums that this batch has put (or removed: undefined). */
  readonly #log = new Map<number, Uint8Array | undefined>();
  readonly #stateSums = new Map<string, number | undefined>();

  constructor(tail: Tail, read: ReadStored) {
    this.tail = { ...tail };
    this.#read = read;
  }

  add(asked: StoreBatch): void {
    const batch = { ...asked, consensus: aboveSnapshot(asked.consensus, this.tail.snapshot.index) };
    const prepared = this.#prepare(batch);
    for (const op of batch.consensus) this.#consensus(op, prepared.entries);
    // State from before a snapshot that was installed meanwhile: the snapshot stands for it.
    const overtaken = batch.applied !== null && batch.applied < this.tail.state.applied;
    if (!overtaken) this.#state(prepared.state, batch.applied);
    this.ops.push(...prepared.ops);
    this.sync ||= batch.sync || this.voteChanged;
  }

  /** Closes the batch: stamps what it promises. */
  finish(): VoteRecord | undefined {
    if (!this.voteChanged) return undefined;
    this.tail.sequence++;
    const record = voteRecord(this.tail);
    this.ops.push({ type: 'put', key: KEY.vote, value: encodeVote(record) });
    return record;
  }

  /** Everything that can throw: values are encoded and the log operations checked against a copy of the tail. */
  #prepare(batch: StoreBatch): {
    entries: Map<number, Uint8Array>;
    state: { key: string; value: Uint8Array | null }[];
    ops: Op[];
  } {
    const entries = new Map<number, Uint8Array>();
    let { lastIndex } = this.tail;
    const snapshotIndex = this.tail.snapshot.index;
    const applied = Math.max(this.tail.state.applied, batch.applied ?? 0);
    for (const op of batch.consensus) {
      if (op.type === 'truncate') {
        // What is applied is committed, and what is committed is never taken back (Raft section 5.3).
        if (op.from <= Math.max(snapshotIndex, this.tail.state.applied)) {
          throw misuse(`truncate from ${op.from}, but ${applied} is applied`);
        }
        lastIndex = Math.min(lastIndex, op.from - 1);
      } else if (op.type === 'append') {
        for (const entry of op.entries) {
          if (entry.index !== lastIndex + 1) throw misuse(`append of ${entry.index} after ${lastIndex}`);
          lastIndex = entry.index;
          entries.set(entry.index, encodeEntry(entry));
        }
      } else if (op.type === 'compact' && op.upTo > snapshotIndex && (op.upTo > lastIndex || op.upTo > applied)) {
        throw misuse(`compact up to ${op.upTo}, but the log ends at ${lastIndex} and ${applied} is applied`);
      }
    }
    const ops: Op[] = [];
    for (const s of batch.addSubmissions) ops.push({ type: 'put', key: PENDING_PREFIX + s.id, value: encode(s) });
    for (const id of batch.removeSubmissions) ops.push({ type: 'del', key: PENDING_PREFIX + id });
    for (const { key, value } of batch.local) {
      ops.push(
        value === null ? { type: 'del', key: LOCAL_PREFIX + key } : { type: 'put', key: LOCAL_PREFIX + key, value },
      );
    }
    const state = batch.state.map(({ key, value }) => ({ key, value: value === null ? null : encode(value) }));
    return { entries, state, ops };
  }

  #consensus(op: PersistOp, entries: ReadonlyMap<number, Uint8Array>): void {
    const { tail } = this;
    switch (op.type) {
      case 'hard-state':
        tail.hardState = op.hardState;
        if (op.readmitted === true) tail.lost = false;
        this.voteChanged = true;
        return;
      case 'truncate':
        if (op.from > tail.lastIndex) return;
        for (let i: number = op.from; i <= tail.lastIndex; i++) this.#delEntry(i);
        this.#endAt(op.from - 1);
        this.voteChanged = true;
        return;
      case 'append':
        for (const entry of op.entries) {
          const value = entries.get(entry.index) as Uint8Array;
          this.ops.push({ type: 'put', key: logKey(entry.index), value });
          this.#log.set(entry.index, value);
          tail.lastIndex = entry.index;
          tail.lastTerm = entry.term;
          tail.lastValue = value;
          this.voteChanged = true;
        }
        return;
      case 'compact':
        if (op.upTo < tail.snapshot.index) return;
        for (let i = tail.snapshot.index + 1; i <= op.upTo; i++) this.#delEntry(i);
        this.setSnapshot(op.upTo, op.term, op.membership);
        return;
      default:
        assertNever(op, 'persist operation');
    }
  }

  /** The log now begins after `index`; it is emptied when it does not reach that far. */
  setSnapshot(index: number, term: number, membership: Tail['snapshot']['membership']): void {
    const { tail } = this;
    tail.snapshot = { index, term, membership: plainMembership(membership) };
    this.ops.push({ type: 'put', key: KEY.snapshot, value: encode(tail.snapshot) });
    if (tail.lastIndex > index) return;
    tail.lastIndex = index;
    tail.lastTerm = term;
    tail.lastValue = undefined;
  }

  setState(state: Tail['state']): void {
    this.tail.state = state;
    this.ops.push({ type: 'put', key: KEY.state, value: encode(state) });
  }

  /** The stored entry as this batch leaves it. */
  entry(index: number): Uint8Array | undefined {
    return this.#log.has(index) ? this.#log.get(index) : this.#read(logKey(index));
  }

  #delEntry(index: number): void {
    this.ops.push({ type: 'del', key: logKey(index) });
    this.#log.set(index, undefined);
  }

  #endAt(index: number): void {
    const { tail } = this;
    tail.lastIndex = index;
    tail.lastValue = index === tail.snapshot.index ? undefined : this.entry(index);
    const entry = tail.lastValue && decodeEntry(index, tail.lastValue);
    if (index !== tail.snapshot.index && entry === undefined)
      throw new TaskOrgError('store_failed', `log entry ${index} is damaged`);
    tail.lastTerm = entry?.term ?? tail.snapshot.term;
  }

  #state(puts: readonly { key: string; value: Uint8Array | null }[], applied: number | null): void {
    if (puts.length === 0 && applied === null) return;
    const { side } = this.tail.state;
    let { count, sum } = this.tail.state;
    for (const { key, value } of puts) {
      const stored = statePrefix(side) + key;
      let old = this.#stateSums.get(stored);
      if (!this.#stateSums.has(stored)) {
        const bytes = this.#read(stored);
        old = bytes && pairSum(key, bytes);
      }
      const now = value === null ? undefined : pairSum(key, value);
      this.#stateSums.set(stored, now);
      count += (now === undefined ? 0 : 1) - (old === undefined ? 0 : 1);
      sum = (sum - (old ?? 0) + (now ?? 0)) >>> 0;
      this.ops.push(value === null ? { type: 'del', key: stored } : { type: 'put', key: stored, value });
    }
    this.setState({ side, applied: Math.max(applied ?? 0, this.tail.state.applied), count, sum });
  }
}

export function pairSum(key: string, value: Uint8Array): number {
  return crc32(value, crc32(key));
}

function misuse(message: string): TaskOrgError {
  return new TaskOrgError('internal', `the store was asked for the impossible: ${message}`);
}

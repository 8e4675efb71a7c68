import { aboveSnapshot } from '../../core/consensus/persist-ops.ts';
import type { HardState, LogEntry, Membership } from '../../core/consensus/types.ts';
import type { StatePut } from '../../core/state/types.ts';
import { type ErrorCode, TaskOrgError } from '../../model/errors.ts';
import { assertNever, type LogIndex, type TaskId, type Term } from '../../model/ids.ts';
import type { Submission } from '../../model/records.ts';
import type { Store, StoreBatch, StoreContents } from '../../ports/store.ts';

// The store of the simulator: the same contract as the LevelDB one, on a disk in memory that outlives the store and can be
// made to fail. Everything happens inside the call; the promises only carry the answer.

/** Synced batches that a lying disk can still take back. */
const HISTORY = 8;
/** Unsynced batches kept apart; older ones count as written back by the system. */
const MAX_UNSYNCED = 1024;

type Snapshot = { readonly index: number; readonly term: number; readonly membership: Membership };
/** One atomic change of an image. */
type Change = (image: Image) => void;

class Image {
  hardState: HardState = { term: 0 as Term, votedFor: null };
  snapshot: Snapshot = { index: 0, term: 0, membership: { voters: [], outgoing: null } };
  lastIndex = 0;
  applied = 0;
  lost = false;
  sequence = 0;
  log = new Map<number, LogEntry>();
  state = new Map<string, unknown>();
  pending = new Map<TaskId, Submission>();
  local = new Map<string, Uint8Array>();

  clone(): Image {
    const copy = Object.assign(new Image(), this);
    copy.log = new Map(this.log);
    copy.state = new Map(this.state);
    copy.pending = new Map(this.pending);
    copy.local = new Map(this.local);
    return copy;
  }

  lastTerm(): number {
    return this.log.get(this.lastIndex)?.term ?? this.snapshot.term;
  }
}

/** What the vote file would hold. */
interface Promised {
  readonly sequence: number;
  readonly hardState: HardState;
  readonly lastIndex: number;
  readonly lastTerm: number;
}

export interface CrashOptions {
  /** Unsynced batches that had reached the disk all the same, oldest first. Default 0. */
  readonly keepUnsynced?: number;
  /** Synced batches, newest first, that the database lost although the vote file stands (a cut file, a lying disk). Default 0, at most 8. */
  readonly loseSynced?: number;
  /** The crash cut the last write of the vote file: its other slot, one promise older, is what is found. */
  readonly tearVoteFile?: boolean;
}

/** One machine's disk. Survives `crash`; holds one open store at a time. */
export class MemoryDisk {
  #live = new Image();
  /** The image before the batches in `#history`. */
  #base = new Image();
  #history: { readonly change: Change; readonly sync: boolean }[] = [];
  #promised: readonly [Promised | undefined, Promised | undefined] = [undefined, undefined];
  #owner: object | undefined;
  /** The next write fails with this, and the store takes no more. */
  failNextWrite: Extract<ErrorCode, 'disk_full' | 'store_failed'> | undefined;
  /** Batches and synced batches written, for tests and measurements. */
  readonly counters = { batches: 0, synced: 0 };

  /** Power off: unsynced batches are gone, the open store is dead. */
  crash(options: CrashOptions = {}): void {
    this.#owner = undefined;
    let synced = this.#history.findLastIndex((h) => h.sync) + 1;
    for (let lose = options.loseSynced ?? 0; lose > 0 && synced > 0; lose--)
      synced = this.#history.slice(0, synced - 1).findLastIndex((h) => h.sync) + 1;
    const kept = this.#history.slice(0, synced + (options.loseSynced ? 0 : (options.keepUnsynced ?? 0)));
    if (options.tearVoteFile === true) this.#promised = [this.#promised[1], this.#promised[1]];
    this.#live = this.#base.clone();
    for (const { change } of kept) change(this.#live);
    this.#history = kept.map(({ change }) => ({ change, sync: true }));
  }

  /** @internal */
  open(owner: object): void {
    if (this.#owner !== undefined) throw new TaskOrgError('data_dir_locked', 'this memory disk has an open store');
    this.#owner = owner;
  }
  /** @internal */
  release(owner: object): void {
    if (this.#owner !== owner) return;
    // A closed store is a stopped process, not a power cut: the system writes back what it was given.
    this.#history = this.#history.map(({ change }) => ({ change, sync: true }));
    this.#owner = undefined;
  }
  /** @internal */
  owns(owner: object): boolean {
    return this.#owner === owner;
  }
  get image(): Image {
    return this.#live;
  }
  get promised(): Promised | undefined {
    return this.#promised[0];
  }

  /** @internal Applies one atomic change; `promise` also renews the vote file. */
  apply(change: Change, sync: boolean, promise: boolean): void {
    if (this.failNextWrite !== undefined) {
      const code = this.failNextWrite;
      this.failNextWrite = undefined;
      throw new TaskOrgError(code, `injected fault: ${code}`);
    }
    const whole: Change = promise
      ? (image) => {
          change(image);
          image.sequence++;
        }
      : change;
    whole(this.#live);
    this.#history.push({ change: whole, sync });
    this.counters.batches++;
    if (sync) this.counters.synced++;
    const durable = this.#history.findLastIndex((h) => h.sync) + 1;
    const leave = Math.max(durable - HISTORY, this.#history.length - MAX_UNSYNCED);
    for (const old of this.#history.splice(0, Math.max(0, leave))) old.change(this.#base);
    if (!promise) return;
    const { sequence, hardState, lastIndex } = this.#live;
    this.#promised = [{ sequence, hardState, lastIndex, lastTerm: this.#live.lastTerm() }, this.#promised[0]];
  }
}

/** Opens the store on a memory disk. Throws TaskOrgError data_dir_locked while another store on it is open. */
export function openMemoryStore(disk: MemoryDisk = new MemoryDisk()): Promise<Store> {
  try {
    return Promise.resolve(new MemoryStore(disk));
  } catch (error) {
    return Promise.reject(error);
  }
}

class MemoryStore implements Store {
  readonly #disk: MemoryDisk;
  #failed: TaskOrgError | undefined;
  #closed = false;

  constructor(disk: MemoryDisk) {
    disk.open(this);
    this.#disk = disk;
  }

  load(): Promise<StoreContents> {
    return this.#answer(() => {
      const problems: string[] = [];
      const { image, promised } = this.#disk;
      let { hardState } = image;
      const short = promised !== undefined && promised.sequence > image.sequence;
      if (short) {
        problems.push(`the log ends at ${image.lastIndex}, but entries up to ${promised.lastIndex} were promised`);
        if (promised.hardState.term >= hardState.term) hardState = promised.hardState;
      } else if (image.lost) problems.push('the log was lost earlier and this peer has not been admitted again');
      if (short) {
        this.#disk.apply(
          (i) => {
            i.lost = true;
            i.hardState = hardState;
            i.sequence = promised.sequence;
          },
          true,
          true,
        );
      }
      return this.#contents(problems);
    });
  }

  #contents(problems: readonly string[]): StoreContents {
    const { image } = this.#disk;
    const entries: LogEntry[] = [];
    for (let i = image.snapshot.index + 1; i <= image.lastIndex; i++) entries.push(image.log.get(i) as LogEntry);
    const state = [...image.state].sort(([a], [b]) => (a < b ? -1 : 1)).map(([key, value]) => ({ key, value }));
    return {
      consensus: {
        hardState: image.hardState,
        snapshot: { ...image.snapshot, index: image.snapshot.index as LogIndex, term: image.snapshot.term as Term },
        entries,
        applied: image.applied as LogIndex,
        mayVote: !image.lost,
      },
      state,
      pendingSubmissions: [...image.pending.values()],
      local: new Map(image.local),
      problems,
    };
  }

  write(batch: StoreBatch): Promise<void> {
    return this.#answer(() => {
      check(this.#disk.image, batch);
      const promise = batch.consensus.some((op) => op.type !== 'compact');
      this.#apply((image) => applyBatch(image, batch), batch.sync || promise, promise);
    });
  }

  #apply(change: Change, sync: boolean, promise: boolean): void {
    try {
      this.#disk.apply(change, sync, promise);
    } catch (error) {
      if (error instanceof TaskOrgError) this.#failed = error;
      throw error;
    }
  }

  entries(from: LogIndex, to: LogIndex): Promise<readonly LogEntry[]> {
    return this.#answer(() => {
      const { image } = this.#disk;
      const found: LogEntry[] = [];
      for (let i = Math.max(from, image.snapshot.index + 1); i <= Math.min(to, image.lastIndex); i++)
        found.push(image.log.get(i) as LogEntry);
      return found;
    });
  }

  async installSnapshot(snapshot: {
    readonly index: LogIndex;
    readonly term: number;
    readonly membership: Membership;
    readonly pairs: AsyncIterable<StatePut>;
  }): Promise<void> {
    const state = new Map<string, unknown>();
    for await (const { key, value } of snapshot.pairs) state.set(key, value);
    const { index, term, membership } = snapshot;
    await this.#answer(() => {
      if (index < this.#disk.image.applied) return;
      this.#apply(
        (image) => {
          const joins = image.log.get(index)?.term === term;
          for (let i = image.snapshot.index + 1; i <= (joins ? index : image.lastIndex); i++) image.log.delete(i);
          if (!joins) image.lastIndex = index;
          image.snapshot = { index, term, membership };
          image.applied = index;
          image.state = new Map(state);
        },
        true,
        true,
      );
    });
  }

  close(): Promise<void> {
    this.#closed = true;
    this.#disk.release(this);
    return Promise.resolve();
  }

  #answer<T>(work: () => T): Promise<T> {
    if (this.#failed) return Promise.reject(this.#failed);
    if (this.#closed || !this.#disk.owns(this))
      return Promise.reject(new TaskOrgError('aborted', 'the store is closed'));
    try {
      return Promise.resolve(work());
    } catch (error) {
      return Promise.reject(error);
    }
  }
}

/** Refuses what does not join on, as the LevelDB store does. */
function check(image: Image, batch: StoreBatch): void {
  let last = image.lastIndex;
  const applied = Math.max(image.applied, batch.applied ?? 0);
  const refuse = (what: string): never => {
    throw new TaskOrgError('internal', `the store was asked for the impossible: ${what}`);
  };
  for (const op of aboveSnapshot(batch.consensus, image.snapshot.index)) {
    if (op.type === 'truncate') {
      if (op.from <= Math.max(image.snapshot.index, image.applied)) refuse(`truncate from ${op.from}`);
      last = Math.min(last, op.from - 1);
    } else if (op.type === 'append') {
      for (const entry of op.entries) if (entry.index !== ++last) refuse(`append of ${entry.index} after ${last - 1}`);
    } else if (op.type === 'compact' && op.upTo > image.snapshot.index && (op.upTo > last || op.upTo > applied))
      refuse(`compact up to ${op.upTo}`);
  }
}

function applyBatch(image: Image, batch: StoreBatch): void {
  for (const op of aboveSnapshot(batch.consensus, image.snapshot.index)) {
    switch (op.type) {
      case 'hard-state':
        image.hardState = op.hardState;
        if (op.readmitted === true) image.lost = false;
        break;
      case 'truncate':
        for (let i: number = op.from; i <= image.lastIndex; i++) image.log.delete(i);
        image.lastIndex = Math.min(image.lastIndex, op.from - 1);
        break;
      case 'append':
        for (const entry of op.entries) {
          image.log.set(entry.index, entry);
          image.lastIndex = entry.index;
        }
        break;
      case 'compact':
        if (op.upTo < image.snapshot.index) break;
        for (let i = image.snapshot.index + 1; i <= op.upTo; i++) image.log.delete(i);
        image.snapshot = { index: op.upTo, term: op.term, membership: op.membership };
        image.lastIndex = Math.max(image.lastIndex, op.upTo);
        break;
      default:
        assertNever(op, 'persist operation');
    }
  }
  const overtaken = batch.applied !== null && batch.applied < image.applied;
  for (const { key, value } of overtaken ? [] : batch.state) {
    if (value === null) image.state.delete(key);
    else image.state.set(key, value);
  }
  if (batch.applied !== null) image.applied = Math.max(image.applied, batch.applied);
  for (const submission of batch.addSubmissions) image.pending.set(submission.id, submission);
  for (const id of batch.removeSubmissions) image.pending.delete(id);
  for (const { key, value } of batch.local) {
    if (value === null) image.local.delete(key);
    else image.local.set(key, value);
  }
}

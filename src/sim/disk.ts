import { aboveSnapshot } from '../core/consensus/persist-ops.ts';
import type { ConsensusRestore, HardState, LogEntry, Membership, PersistOp } from '../core/consensus/types.ts';
import type { StatePut } from '../core/state/types.ts';
import { type LogIndex, logIndex, type TaskId, term } from '../model/ids.ts';
import type { Rng } from '../model/random.ts';
import type { Submission } from '../model/records.ts';
import { InvariantBroken } from './invariants.ts';

// A simulated disk. A batch is written whole or not at all (the store's promise). One that asked for fsync is durable when
// it is answered, and so is all before it; the others stay in a cache that a power cut loses, from some batch on.

export interface Batch {
  ops: PersistOp[];
  puts: StatePut[];
  /** Planted: records written without their index. */
  bare?: StatePut[];
  applied: LogIndex | null;
  add: Submission[];
  remove: TaskId[];
  local: [string, string][];
  sync: boolean;
  persistId: number | null;
  after: (() => void)[];
}

const emptyBatch = (): Batch => ({
  ops: [],
  puts: [],
  applied: null,
  add: [],
  remove: [],
  local: [],
  sync: false,
  persistId: null,
  after: [],
});
const isEmpty = (b: Batch): boolean =>
  b.ops.length + b.puts.length + b.add.length + b.remove.length + b.local.length === 0 && b.applied === null;

export interface Snapshot {
  readonly index: LogIndex;
  readonly term: ConsensusRestore['snapshot']['term'];
  readonly membership: Membership;
  readonly pairs: readonly StatePut[];
}

/** Contents as a restart would read them back. */
export class Disk {
  hardState: HardState = { term: term(0), votedFor: null };
  snapshot: { index: LogIndex; term: ConsensusRestore['snapshot']['term']; membership: Membership };
  entries: LogEntry[] = [];
  applied: LogIndex = logIndex(0);
  state = new Map<string, unknown>();
  pending = new Map<TaskId, Submission>();
  local = new Map<string, string>();
  /** Written, not yet forced out. */
  #cached: Batch[] = [];

  /** Planted: fsync forces nothing out; what does not fit is dropped. */
  readonly #flaws: { readonly lies?: boolean; readonly full?: boolean };

  constructor(voters: Membership['voters'], flaws: { readonly lies?: boolean; readonly full?: boolean } = {}) {
    this.#flaws = flaws;
    this.snapshot = { index: logIndex(0), term: term(0), membership: { voters, outgoing: null } };
  }

  /** Last index of the durable log. */
  get lastIndex(): number {
    return this.entries.at(-1)?.index ?? this.snapshot.index;
  }

  write(batch: Batch): void {
    this.#cached.push(batch);
    if (batch.sync && !this.#flaws.lies) this.flush();
  }
  /** The process ended, the machine goes on: what was written will reach the disk. */
  flush(): void {
    for (const batch of this.#cached.splice(0)) this.#put(batch);
  }
  /** Power cut. `last`: the batch on its way to the disk, of which nobody knows whether it got there. */
  cut(rng: Rng, last: Batch | undefined, flaws: { readonly half?: boolean; readonly tears?: boolean } = {}): void {
    const cached = this.#cached.splice(0);
    if (last) cached.push(last);
    const kept = rng.int(0, cached.length);
    for (const batch of cached.slice(0, kept)) this.#put(batch);
    const torn = cached[kept];
    if (flaws.half && torn && torn.puts.length > 1)
      this.#put({ ...emptyBatch(), puts: torn.puts.slice(0, torn.puts.length >> 1), applied: torn.applied });
    if (flaws.tears && torn) this.#put({ ...emptyBatch(), ops: torn.ops.map(tornOp) });
  }

  #put(batch: Batch): void {
    if (this.#flaws.full && this.lastIndex >= FULL_AT) return;
    for (const op of aboveSnapshot(batch.ops, this.snapshot.index)) {
      if (op.type === 'hard-state') this.hardState = op.hardState;
      else if (op.type === 'append') {
        for (const entry of op.entries) {
          if (entry.index !== this.lastIndex + 1)
            throw new InvariantBroken(
              'the store is used as it may be',
              `append of ${entry.index} after ${this.lastIndex}`,
            );
          this.entries.push(entry);
        }
      } else if (op.type === 'truncate') {
        if (op.from <= Math.max(this.snapshot.index, this.applied))
          throw new InvariantBroken(
            'the store is used as it may be',
            `truncate from ${op.from}, but ${this.applied} is applied`,
          );
        this.entries = this.entries.filter((e) => e.index < op.from);
      } else if (op.upTo > this.snapshot.index) {
        this.entries = this.entries.filter((e) => e.index > op.upTo);
        this.snapshot = { index: op.upTo, term: op.term, membership: op.membership };
      }
    }
    // Records older than those a snapshot brought are of no use; going back would be an error (as in the store).
    if (batch.applied !== null && batch.applied >= this.applied) {
      for (const put of batch.puts) {
        if (put.value === null) this.state.delete(put.key);
        else this.state.set(put.key, put.value);
      }
      this.applied = batch.applied;
    }
    for (const put of batch.bare ?? []) this.state.set(put.key, put.value);
    for (const s of batch.add) this.pending.set(s.id, s);
    for (const id of batch.remove) this.pending.delete(id);
    for (const [key, value] of batch.local) this.local.set(key, value);
  }

  install(s: Snapshot): void {
    this.flush();
    if (s.index < this.applied) return;
    const joins = this.entries.some((e) => e.index === s.index && e.term === s.term);
    this.entries = joins ? this.entries.filter((e) => e.index > s.index) : [];
    this.snapshot = { index: s.index, term: s.term, membership: s.membership };
    this.applied = s.index;
    this.state = new Map(s.pairs.map((p) => [p.key, p.value]));
  }

  restore(): { consensus: ConsensusRestore; state: StatePut[]; pending: Submission[] } {
    this.flush();
    return {
      consensus: {
        hardState: this.hardState,
        snapshot: this.snapshot,
        entries: [...this.entries],
        applied: this.applied,
        mayVote: true,
      },
      state: [...this.state].map(([key, value]) => ({ key, value })),
      pending: [...this.pending.values()],
    };
  }
}

/** Planted: entries that a full disk holds. */
const FULL_AT = 60;
/** Planted: of the last entry, only the first half got there. */
function tornOp(op: PersistOp): PersistOp {
  const last = op.type === 'append' ? op.entries.at(-1) : undefined;
  if (op.type !== 'append' || last?.payload.kind !== 'command') return op;
  const bytes = last.payload.bytes.slice(0, last.payload.bytes.length >> 1);
  return { ...op, entries: [...op.entries.slice(0, -1), { ...last, payload: { kind: 'command', bytes } }] };
}

/** Planted defects of a writer. */
export interface WriterFlaws {
  readonly skipWait: boolean;
  readonly skipState: boolean;
  readonly skipApplied: boolean;
  readonly skipTruncate: boolean;
  readonly skipFsync: boolean;
  readonly skipWritten: boolean;
}

/** Group commit onto a Disk, as driver/persistence.ts does onto a store. */
export class DiskWriter {
  readonly #disk: Disk;
  #pending = emptyBatch();
  #writing: Batch | undefined;
  #lost = false;
  #busy = false;
  readonly #exclusive: (() => void)[] = [];
  readonly #schedule: (sync: boolean, done: () => void) => void;
  readonly #onPersisted: (id: number) => void;
  readonly #onStateWritten: (index: LogIndex) => void;
  /** Planted defects. */
  readonly #flaws: WriterFlaws;

  constructor(
    disk: Disk,
    schedule: (sync: boolean, done: () => void) => void,
    onPersisted: (id: number) => void,
    onStateWritten: (index: LogIndex) => void,
    flaws: WriterFlaws,
  ) {
    this.#disk = disk;
    this.#schedule = schedule;
    this.#onPersisted = onPersisted;
    this.#onStateWritten = onStateWritten;
    this.#flaws = flaws;
  }

  /** The process is gone: nothing that waits is run. Returns the batch on its way to the disk. */
  lose(): Batch | undefined {
    this.#lost = true;
    return this.#writing;
  }

  persist(persistId: number, ops: readonly PersistOp[]): void {
    for (const op of ops) if (op.type !== 'truncate' || !this.#flaws.skipTruncate) this.#pending.ops.push(op);
    this.#pending.persistId = persistId;
    this.#pending.sync = true;
    if (this.#flaws.skipFsync) this.#onPersisted(persistId);
    this.#kick();
  }
  writeState(puts: readonly StatePut[], applied: LogIndex): void {
    if (!this.#flaws.skipState) for (const put of puts) this.#pending.puts.push(put);
    this.#pending.applied = applied;
    this.#kick();
  }
  keep(submission: Submission, then: () => void): void {
    this.#pending.add.push(submission);
    this.#pending.sync = true;
    this.#pending.after.push(then);
    this.#kick();
  }
  drop(ids: readonly TaskId[]): void {
    this.#pending.remove.push(...ids);
    this.#kick();
  }
  local(key: string, value: string): void {
    this.#pending.local.push([key, value]);
    this.#pending.sync = true;
    this.#kick();
  }
  after(send: () => void): void {
    if (this.#flaws.skipWait) send();
    else if (this.#pending.persistId !== null) this.#pending.after.push(send);
    else if (this.#writing !== undefined && this.#writing.persistId !== null) this.#writing.after.push(send);
    else send();
  }
  /** In its turn among the writes, alone. */
  install(snapshot: Snapshot, then: () => void): void {
    this.#exclusive.push(() => {
      this.#busy = true;
      this.#schedule(true, () => {
        this.#busy = false;
        if (this.#lost) return;
        this.#disk.install(snapshot);
        then();
        this.#kick();
      });
    });
    this.#kick();
  }

  #kick(): void {
    if (this.#writing !== undefined || this.#busy || this.#lost) return;
    if (isEmpty(this.#pending)) {
      this.#exclusive.shift()?.();
      return;
    }
    const batch = this.#pending;
    this.#pending = emptyBatch();
    this.#writing = batch;
    this.#schedule(batch.sync, () => {
      if (this.#lost) return;
      this.#disk.write(this.#flaws.skipApplied ? { ...batch, applied: null, puts: [], bare: batch.puts } : batch);
      this.#writing = undefined;
      for (const then of batch.after) then();
      if (batch.persistId !== null) this.#onPersisted(batch.persistId);
      if (batch.applied !== null && !this.#flaws.skipWritten) this.#onStateWritten(batch.applied);
      this.#kick();
    });
  }
}

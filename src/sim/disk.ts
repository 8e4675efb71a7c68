import type { ConsensusRestore, HardState, LogEntry, Membership, PersistOp } from '../core/consensus/types.ts';
import type { StatePut } from '../core/state/types.ts';
import { logIndex, term, type LogIndex, type TaskId } from '../model/ids.ts';
import type { Submission } from '../model/records.ts';

// A simulated disk. What is written stays in the cache until the batch's fsync ends; a power cut loses the cache.

interface Batch {
  ops: PersistOp[];
  puts: StatePut[];
  applied: LogIndex | null;
  add: Submission[];
  remove: TaskId[];
  local: [string, string][];
  persistId: number | null;
  then: (() => void)[];
}

const emptyBatch = (): Batch => ({ ops: [], puts: [], applied: null, add: [], remove: [], local: [], persistId: null, then: [] });

/** Durable contents, as a restart would read them back. */
export class Disk {
  hardState: HardState = { term: term(0), votedFor: null };
  snapshot: { index: LogIndex; term: ConsensusRestore['snapshot']['term']; membership: Membership };
  entries: LogEntry[] = [];
  applied: LogIndex = logIndex(0);
  state = new Map<string, unknown>();
  pending = new Map<TaskId, Submission>();
  local = new Map<string, string>();

  constructor(voters: Membership['voters']) {
    this.snapshot = { index: logIndex(0), term: term(0), membership: { voters, outgoing: null } };
  }

  write(batch: Batch): void {
    for (const op of batch.ops) {
      if (op.type === 'hard-state') this.hardState = op.hardState;
      else if (op.type === 'append') this.entries.push(...op.entries);
      else if (op.type === 'truncate') this.entries = this.entries.filter((e) => e.index < op.from);
      else {
        this.entries = this.entries.filter((e) => e.index > op.upTo);
        this.snapshot = { index: op.upTo, term: op.term, membership: op.membership };
      }
    }
    for (const put of batch.puts) {
      if (put.value === null) this.state.delete(put.key);
      else this.state.set(put.key, put.value);
    }
    if (batch.applied !== null) this.applied = batch.applied;
    for (const s of batch.add) this.pending.set(s.id, s);
    for (const id of batch.remove) this.pending.delete(id);
    for (const [key, value] of batch.local) this.local.set(key, value);
  }

  install(index: LogIndex, atTerm: ConsensusRestore['snapshot']['term'], membership: Membership, pairs: readonly StatePut[]): void {
    this.entries = [];
    this.snapshot = { index, term: atTerm, membership };
    this.applied = index;
    this.state = new Map(pairs.map((p) => [p.key, p.value]));
  }

  restore(): { consensus: ConsensusRestore; state: StatePut[]; pending: Submission[] } {
    return {
      consensus: { hardState: this.hardState, snapshot: this.snapshot, entries: [...this.entries], applied: this.applied, mayVote: true },
      state: [...this.state].map(([key, value]) => ({ key, value })),
      pending: [...this.pending.values()],
    };
  }
}

/** Group commit onto a Disk, as driver/persistence.ts does onto a store. */
export class DiskWriter {
  #disk: Disk;
  #pending = emptyBatch();
  #writing: Batch | undefined;
  #lost = false;
  #schedule: (done: () => void) => void;
  #onPersisted: (id: number) => void;
  #onStateWritten: (index: LogIndex) => void;
  /** fsyncs done. */
  writes = 0;

  constructor(disk: Disk, schedule: (done: () => void) => void, onPersisted: (id: number) => void, onStateWritten: (index: LogIndex) => void) {
    this.#disk = disk;
    this.#schedule = schedule;
    this.#onPersisted = onPersisted;
    this.#onStateWritten = onStateWritten;
  }

  /** Power cut: nothing of the cache reaches the disk, nothing that waits is run. */
  lose(): void {
    this.#lost = true;
  }

  persist(persistId: number, ops: readonly PersistOp[]): void {
    this.#pending.ops.push(...ops);
    this.#pending.persistId = persistId;
    this.#kick();
  }
  writeState(puts: readonly StatePut[], applied: LogIndex): void {
    this.#pending.puts.push(...puts);
    this.#pending.applied = applied;
    this.#kick();
  }
  keep(submission: Submission, then: () => void): void {
    this.#pending.add.push(submission);
    this.#pending.then.push(then);
    this.#kick();
  }
  drop(ids: readonly TaskId[]): void {
    this.#pending.remove.push(...ids);
    this.#kick();
  }
  local(key: string, value: string): void {
    this.#pending.local.push([key, value]);
    this.#kick();
  }
  after(send: () => void): void {
    if (this.#pending.persistId !== null) this.#pending.then.push(send);
    else if (this.#writing !== undefined && this.#writing.persistId !== null) this.#writing.then.push(send);
    else send();
  }

  #kick(): void {
    if (this.#writing !== undefined || this.#lost) return;
    const batch = this.#pending;
    this.#pending = emptyBatch();
    this.#writing = batch;
    this.#schedule(() => {
      if (this.#lost) return;
      this.#disk.write(batch);
      this.writes += 1;
      this.#writing = undefined;
      for (const then of batch.then) then();
      if (batch.persistId !== null) this.#onPersisted(batch.persistId);
      if (batch.applied !== null) this.#onStateWritten(batch.applied);
      const p = this.#pending;
      if (p.ops.length + p.puts.length + p.add.length + p.remove.length + p.local.length > 0 || p.applied !== null) this.#kick();
    });
  }
}

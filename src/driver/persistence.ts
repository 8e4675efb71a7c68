import type { PersistOp } from '../core/consensus/types.ts';
import type { StatePut } from '../core/state/types.ts';
import type { LogIndex, TaskId } from '../model/ids.ts';
import type { Submission } from '../model/records.ts';
import type { Store, StoreBatch } from '../ports/store.ts';

// Group commit: everything asked for while a write is under way goes into the next one, with one fsync. What may only
// leave the machine when it is durable hangs on its batch.

interface Pending {
  ops: PersistOp[];
  puts: StatePut[];
  applied: LogIndex | null;
  add: Submission[];
  remove: TaskId[];
  local: { key: string; value: Uint8Array | null }[];
  /** Consensus ops, submissions or local facts: the batch must be fsynced. */
  sync: boolean;
  persistId: number | null;
  after: (() => void)[];
}

/** Applied state waits this long for a write to go along with. */
const LAZY_MS = 20;

const empty = (): Pending => ({
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

export interface PersistenceCallbacks {
  onPersisted(persistId: number): void;
  onStateWritten(index: LogIndex): void;
  /** The store failed: the peer must stop. */
  onFailure(error: unknown): void;
}

export interface Persistence {
  persist(persistId: number, ops: readonly PersistOp[]): void;
  writeState(puts: readonly StatePut[], applied: LogIndex): void;
  keepSubmission(submission: Submission, then: () => void): void;
  dropSubmissions(ids: readonly TaskId[]): void;
  local(key: string, value: Uint8Array | null, then?: () => void): void;
  /** Runs `send` when every consensus write asked for so far is durable; at once when none is outstanding. */
  afterPersist(send: () => void): void;
  /** Runs work on the store in its turn: after all that was asked for, with every later write held back until it ends. */
  exclusive(work: () => Promise<void>): Promise<void>;
  idle(): Promise<void>;
  readonly batches: number;
}

export function createPersistence(store: Store, callbacks: PersistenceCallbacks): Persistence {
  let pending = empty();
  let writing: Pending | undefined;
  let scheduled = false;
  let failed = false;
  let busy = false;
  const exclusive: (() => Promise<void>)[] = [];
  let batches = 0;
  let idleWaiters: (() => void)[] = [];

  const isEmpty = (p: Pending): boolean =>
    p.ops.length === 0 &&
    p.puts.length === 0 &&
    p.applied === null &&
    p.add.length === 0 &&
    p.remove.length === 0 &&
    p.local.length === 0;

  const settleIdle = (): void => {
    if (writing || busy || !isEmpty(pending)) return;
    const waiters = idleWaiters;
    idleWaiters = [];
    for (const w of waiters) w();
  };

  const runExclusive = (): void => {
    const next = exclusive.shift();
    if (next === undefined) return;
    busy = true;
    void next().finally(() => {
      busy = false;
      flush();
    });
  };

  const flush = (): void => {
    scheduled = false;
    if (writing || failed || busy) return;
    if (isEmpty(pending)) {
      if (exclusive.length > 0) runExclusive();
      return settleIdle();
    }
    const batch = pending;
    pending = empty();
    writing = batch;
    batches += 1;
    const write: StoreBatch = {
      consensus: batch.ops,
      state: batch.puts,
      applied: batch.applied,
      addSubmissions: batch.add,
      removeSubmissions: batch.remove,
      local: batch.local,
      sync: batch.sync,
    };
    store.write(write).then(
      () => {
        writing = undefined;
        for (const then of batch.after) then();
        if (batch.persistId !== null) callbacks.onPersisted(batch.persistId);
        if (batch.applied !== null) callbacks.onStateWritten(batch.applied);
        if (pending.sync || isEmpty(pending) || exclusive.length > 0 || idleWaiters.length > 0) flush();
        else scheduleLazily();
      },
      (error: unknown) => {
        failed = true;
        writing = undefined;
        callbacks.onFailure(error);
      },
    );
  };

  // What the log can give again need not be written at once, and never in the way of what somebody waits for: it goes along
  // with the next write, or after a while by itself.
  let waitsLazily = false;
  const scheduleLazily = (): void => {
    if (waitsLazily || scheduled || writing || busy || failed) return;
    waitsLazily = true;
    setTimeout(() => {
      waitsLazily = false;
      schedule();
    }, LAZY_MS);
  };

  // One turn of the event loop gathers what this turn's messages ask for.
  const schedule = (): void => {
    if (scheduled || writing || busy || failed) return;
    scheduled = true;
    setImmediate(flush);
  };

  return {
    persist: (persistId, ops) => {
      pending.ops.push(...ops);
      pending.persistId = persistId;
      pending.sync = true;
      schedule();
    },
    writeState: (puts, applied) => {
      pending.puts.push(...puts);
      pending.applied = applied;
      scheduleLazily();
    },
    keepSubmission: (submission, then) => {
      pending.add.push(submission);
      pending.sync = true;
      pending.after.push(then);
      schedule();
    },
    dropSubmissions: (ids) => {
      pending.remove.push(...ids);
      scheduleLazily();
    },
    local: (key, value, then) => {
      pending.local.push({ key, value });
      pending.sync = true;
      if (then) pending.after.push(then);
      schedule();
    },
    afterPersist: (send) => {
      if (pending.persistId !== null) pending.after.push(send);
      else if (writing?.persistId != null) writing.after.push(send);
      else send();
    },
    exclusive: (work) =>
      new Promise((resolve, reject) => {
        exclusive.push(() => work().then(resolve, reject));
        schedule();
      }),
    idle: () =>
      new Promise((resolve) => {
        idleWaiters.push(resolve);
        if (!isEmpty(pending)) schedule();
        settleIdle();
      }),
    get batches() {
      return batches;
    },
  };
}

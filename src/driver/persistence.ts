import type { PersistOp } from '../core/consensus/types.ts';
import type { StatePut } from '../core/state/types.ts';
import type { LogIndex, TaskId } from '../model/ids.ts';
import type { Submission } from '../model/records.ts';
import type { Store, StoreBatch } from '../ports/store.ts';

// Group commit: everything asked for while a write is under way goes into the next one, with one fsync. What may only
// leave the machine when it is durable hangs on its batch.

interface Pending {
  ops: PersistOp[];
  add: Submission[];
  remove: TaskId[];
  local: { key: string; value: Uint8Array | null }[];
  /** Consensus ops, submissions or local facts: the batch must be fsynced. */
  sync: boolean;
  persistId: number | null;
  after: (() => void)[];
}

/**
 * Applied state is written this often: the log can give it again, so nobody waits for it, and of a record that changes often
 * only the last form is written.
 */
const LAZY_MS = 200;
/** Or when so many records wait. */
const LAZY_PUTS = 4096;

const empty = (): Pending => ({
  ops: [],
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

  /** The state machine's changes since they were last written. */
  let puts = new Map<string, StatePut>();
  let applied: LogIndex | null = null;
  let stateDue = false;

  const isEmpty = (p: Pending): boolean =>
    p.ops.length === 0 && p.add.length === 0 && p.remove.length === 0 && p.local.length === 0;
  /** Whoever waits for everything, or for its turn, does not wait for LAZY_MS. */
  const takesState = (): boolean => applied !== null && (stateDue || exclusive.length > 0 || idleWaiters.length > 0);

  const settleIdle = (): void => {
    if (writing || busy || applied !== null || !isEmpty(pending)) return;
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
    const withState = takesState();
    if (isEmpty(pending) && !withState) {
      if (exclusive.length > 0) runExclusive();
      return settleIdle();
    }
    const batch = pending;
    pending = empty();
    writing = batch;
    batches += 1;
    const upTo = withState ? applied : null;
    const write: StoreBatch = {
      consensus: batch.ops,
      state: withState ? [...puts.values()] : [],
      applied: upTo,
      addSubmissions: batch.add,
      removeSubmissions: batch.remove,
      local: batch.local,
      sync: batch.sync,
    };
    if (withState) {
      puts = new Map();
      applied = null;
      stateDue = false;
    }
    store.write(write).then(
      () => {
        writing = undefined;
        for (const then of batch.after) then();
        if (batch.persistId !== null) callbacks.onPersisted(batch.persistId);
        if (upTo !== null) callbacks.onStateWritten(upTo);
        if (pending.sync || takesState() || isEmpty(pending) || exclusive.length > 0) flush();
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
    if (waitsLazily || failed) return;
    waitsLazily = true;
    setTimeout(() => {
      waitsLazily = false;
      stateDue = applied !== null;
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
    writeState: (changed, index) => {
      for (const put of changed) puts.set(put.key, put);
      applied = index;
      if (puts.size >= LAZY_PUTS) {
        stateDue = true;
        schedule();
      } else scheduleLazily();
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
        if (applied !== null || !isEmpty(pending)) schedule();
        settleIdle();
      }),
    get batches() {
      return batches;
    },
  };
}

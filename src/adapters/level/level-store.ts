import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { Level } from 'level';
import type { LogEntry, Membership } from '../../core/consensus/types.ts';
import type { StatePut } from '../../core/state/types.ts';
import { TaskOrgError } from '../../model/errors.ts';
import type { LogIndex } from '../../model/ids.ts';
import type { Store, StoreBatch, StoreContents } from '../../ports/store.ts';
import { BatchBuilder, type Op, pairSum } from './batch-builder.ts';
import { isCorruption, storeError } from './errors.ts';
import { decodeEntry, LOG_PREFIX, logKey, logKeyIndex } from './log-codec.ts';
import { type Contents, type Database, readContents } from './read-contents.ts';
import { encode, prefixEnd, statePrefix, type Tail } from './tail.ts';
import { VoteFile, type VoteRecord } from './vote-file.ts';

/** What the store says about itself; a pino logger is one. */
export interface StoreLog {
  info(fields: object, message: string): void;
  warn(fields: object, message: string): void;
}

export interface LevelStoreOptions {
  readonly dataDir: string;
  readonly log?: StoreLog;
}

/** Writes that wait for the one in hand are merged into one batch: at most this many. */
const MERGE_WRITES = 64;
/** Operations in one batch of a snapshot being written beside the state. */
const STAGE_OPS = 500;

const databaseAt = (dataDir: string): Database =>
  new Level(join(dataDir, 'db'), { keyEncoding: 'utf8', valueEncoding: 'view' });

/**
 * Opens (or makes) the store of one peer under `dataDir`: the database `db/` and the vote file `votes`.
 * Throws TaskOrgError data_dir_locked | data_dir_unusable | disk_full | log_lost | store_failed.
 */
export async function openLevelStore(options: LevelStoreOptions): Promise<Store> {
  const { dataDir } = options;
  try {
    await mkdir(dataDir, { recursive: true, mode: 0o700 });
    const db = await openDatabase(dataDir, options.log);
    try {
      return new LevelStore(options, db, await VoteFile.open(join(dataDir, 'votes')));
    } catch (error) {
      await db.close();
      throw error;
    }
  } catch (error) {
    throw storeError(error, dataDir, 'opened');
  }
}

async function openDatabase(dataDir: string, log: StoreLog | undefined): Promise<Database> {
  const db = databaseAt(dataDir);
  try {
    await db.open();
    return db;
  } catch (error) {
    if (!isCorruption(error)) throw error;
    log?.warn({ dataDir, error: String(error) }, 'the database is damaged; what can be read of it is kept');
    return await repair(dataDir, error);
  }
}

/** LevelDB's own repair keeps the tables that can still be read. What they lack shows against the sums and the vote file. */
async function repair(dataDir: string, cause: unknown): Promise<Database> {
  try {
    // `level` hands out classic-level's class on Node, but types only what browsers have too.
    await (Level as unknown as { repair(location: string): Promise<void> }).repair(join(dataDir, 'db'));
    const db = databaseAt(dataDir);
    await db.open();
    return db;
  } catch (error) {
    throw new TaskOrgError('log_lost', `the database in ${join(dataDir, 'db')} is damaged beyond repair`, {
      hint: `move ${join(dataDir, 'db')} away and start again: the peer then comes back as a learner and fetches everything from its neighbours`,
      cause: new AggregateError([cause, error]),
    });
  }
}

interface QueuedWrite {
  /** Adds to the batch, or throws, leaving it as it was. */
  readonly build: (builder: BatchBuilder) => void;
  readonly resolve: () => void;
  readonly reject: (error: unknown) => void;
}

class LevelStore implements Store {
  readonly #options: LevelStoreOptions;
  #db: Database;
  readonly #votes: VoteFile;
  #tail: Tail | undefined;
  #queue: QueuedWrite[] = [];
  #busy = false;
  #draining: Promise<void> = Promise.resolve();
  #votesInFlight: Promise<unknown> = Promise.resolve();
  #failed: TaskOrgError | undefined;
  #closed: Promise<void> | undefined;

  constructor(options: LevelStoreOptions, db: Database, votes: VoteFile) {
    this.#options = options;
    this.#db = db;
    this.#votes = votes;
  }

  async load(): Promise<StoreContents> {
    const contents = await this.#read();
    this.#tail = contents.tail;
    for (const problem of contents.problems) this.#options.log?.warn({ problem }, 'the store has a problem');
    if (contents.repair === 'rewrite') await this.#rewrite(contents);
    const { tail } = contents;
    return {
      consensus: {
        hardState: tail.hardState,
        snapshot: {
          ...tail.snapshot,
          index: tail.snapshot.index as LogIndex,
          term: tail.snapshot.term as LogEntry['term'],
        },
        entries: contents.entries,
        applied: tail.state.applied as LogIndex,
        mayVote: !tail.lost,
      },
      state: contents.state,
      pendingSubmissions: contents.pending,
      local: contents.local,
      problems: contents.problems,
    };
  }

  async #read(): Promise<Contents> {
    const { dataDir } = this.#options;
    try {
      return await readContents(this.#db, this.#votes.found);
    } catch (error) {
      if (!isCorruption(error)) throw storeError(error, dataDir, 'read');
      await this.#db.close();
      this.#db = await repair(dataDir, error);
    }
    try {
      return await readContents(this.#db, this.#votes.found);
    } catch (error) {
      throw storeError(error, dataDir, 'read');
    }
  }

  /** Brings the disk in line with what was found sound, and remembers the loss. */
  async #rewrite(contents: Contents): Promise<void> {
    const stale: Op[] = [];
    const { tail } = contents;
    for (const key of await this.#keys(LOG_PREFIX)) {
      const index = logKeyIndex(key);
      if (!(index > tail.snapshot.index && index <= tail.lastIndex)) stale.push({ type: 'del', key });
    }
    if (contents.state.length === 0) for (const key of await this.#keys('state/')) stale.push({ type: 'del', key });
    await this.#write((builder) => {
      builder.ops.push(...stale);
      builder.setSnapshot(tail.snapshot.index, tail.snapshot.term, tail.snapshot.membership);
      builder.setState(tail.state);
      builder.voteChanged = true;
      builder.sync = true;
    });
  }

  async #keys(prefix: string): Promise<string[]> {
    return await this.#db.keys({ gte: prefix, lt: prefixEnd(prefix) }).all();
  }

  write(batch: StoreBatch): Promise<void> {
    return this.#write((builder) => builder.add(batch));
  }

  #write(build: QueuedWrite['build']): Promise<void> {
    if (this.#failed) return Promise.reject(this.#failed);
    if (this.#closed) return Promise.reject(new TaskOrgError('aborted', 'the store is closed'));
    if (!this.#tail) return Promise.reject(new TaskOrgError('internal', 'the store was written before it was loaded'));
    return new Promise((resolve, reject) => {
      this.#queue.push({ build, resolve, reject });
      if (this.#busy) return;
      this.#busy = true;
      this.#draining = this.#drain();
    });
  }

  /** One batch after the other. The vote file of one is written while the database takes the next. */
  async #drain(): Promise<void> {
    while (this.#queue.length > 0 && !this.#failed) {
      const builder = new BatchBuilder(this.#tail as Tail, (key) => this.#db.getSync(key));
      const taken: QueuedWrite[] = [];
      for (const write of this.#queue.splice(0, MERGE_WRITES)) {
        try {
          write.build(builder);
          taken.push(write);
        } catch (error) {
          write.reject(error);
          if (error instanceof TaskOrgError && error.code === 'store_failed') return this.#fail(error, taken);
        }
      }
      if (taken.length === 0) continue;
      const promise = builder.finish();
      try {
        await this.#db.batch(builder.ops as Op[], { sync: builder.sync });
        this.#tail = builder.tail;
      } catch (error) {
        this.#fail(error, taken);
        break;
      }
      this.#settle(promise, taken);
    }
    this.#busy = false;
  }

  #settle(promise: VoteRecord | undefined, taken: readonly QueuedWrite[]): void {
    if (promise === undefined) {
      for (const write of taken) write.resolve();
      return;
    }
    const written = this.#votes.write(promise).then(
      () => {
        for (const write of taken) write.resolve();
      },
      (error: unknown) => this.#fail(error, taken),
    );
    // Writes of the file end in order: the last one stands for all.
    this.#votesInFlight = written;
  }

  /** After a failed write or fsync nobody knows what is on the disk: nothing more is written, and the peer must stop. */
  #fail(error: unknown, taken: readonly QueuedWrite[]): void {
    this.#failed ??= storeError(error, this.#options.dataDir, 'written');
    for (const write of [...taken, ...this.#queue.splice(0)]) write.reject(this.#failed);
  }

  async entries(from: LogIndex, to: LogIndex): Promise<readonly LogEntry[]> {
    const found: LogEntry[] = [];
    const iterator = this.#db.iterator({ gte: logKey(Math.max(1, from)), lte: logKey(to) });
    try {
      for (let page = await iterator.nextv(1000); page.length > 0; page = await iterator.nextv(1000)) {
        for (const [key, value] of page) {
          const entry = decodeEntry(logKeyIndex(key), value);
          if (entry === undefined) throw new TaskOrgError('store_failed', `log entry ${logKeyIndex(key)} is damaged`);
          found.push(entry);
        }
      }
    } catch (error) {
      throw storeError(error, this.#options.dataDir, 'read');
    } finally {
      await iterator.close();
    }
    return found;
  }

  async installSnapshot(snapshot: {
    readonly index: LogIndex;
    readonly term: number;
    readonly membership: Membership;
    readonly pairs: AsyncIterable<StatePut>;
  }): Promise<void> {
    const side: 0 | 1 = this.#tail?.state.side === 0 ? 1 : 0;
    const prefix = statePrefix(side);
    const stage = (ops: readonly Op[]): Promise<void> => this.#write((builder) => void builder.ops.push(...ops));
    // A snapshot that was cut short may have left pairs on this side.
    await stage((await this.#keys(prefix)).map((key) => ({ type: 'del', key })));
    let ops: Op[] = [];
    let count = 0;
    let sum = 0;
    for await (const { key, value } of snapshot.pairs) {
      const bytes = encode(value);
      ops.push({ type: 'put', key: prefix + key, value: bytes });
      count++;
      sum = (sum + pairSum(key, bytes)) >>> 0;
      if (ops.length >= STAGE_OPS) await stage(ops.splice(0));
    }
    await stage(ops.splice(0));
    const { index, term, membership } = snapshot;
    await this.#write((builder) => {
      const { tail } = builder;
      // One that the state has overtaken meanwhile is of no use; going back would be an error.
      if (index < tail.state.applied) return;
      const at = index > tail.snapshot.index && index <= tail.lastIndex ? builder.entry(index) : undefined;
      const joins = at !== undefined && decodeEntry(index, at)?.term === term;
      const last = joins ? index : tail.lastIndex;
      for (let i = tail.snapshot.index + 1; i <= last; i++) builder.ops.push({ type: 'del', key: logKey(i) });
      if (!joins) tail.lastIndex = 0;
      builder.setSnapshot(index, term, membership);
      builder.setState({ side, applied: index, count, sum });
      builder.voteChanged = true;
      builder.sync = true;
    });
    ops = (await this.#keys(statePrefix(side === 0 ? 1 : 0))).map((key) => ({ type: 'del', key }));
    if (this.#tail?.state.side === side) await stage(ops);
  }

  close(): Promise<void> {
    this.#closed ??= (async () => {
      await this.#draining;
      await this.#votesInFlight;
      await this.#db.close();
      await this.#votes.close();
    })();
    return this.#closed;
  }
}

import { createHash } from 'node:crypto';
import type { Level } from 'level';
import type { LogEntry } from '../../core/consensus/types.ts';
import type { StatePut } from '../../core/state/types.ts';
import { checker, SubmissionSchema } from '../../model/record-schemas.ts';
import type { Submission } from '../../model/records.ts';
import { pairSum } from './batch-builder.ts';
import { decodeEntry, LOG_PREFIX, logKeyIndex } from './log-codec.ts';
import {
  decode,
  emptyTail,
  isSnapshotMeta,
  isStateMeta,
  KEY,
  LOCAL_PREFIX,
  PENDING_PREFIX,
  prefixEnd,
  statePrefix,
  type Tail,
} from './tail.ts';
import { decodeVote, encodeVote, NOTHING_PROMISED, type VoteRecord } from './vote-file.ts';

const isSubmission = checker(SubmissionSchema);

export type Database = Level<string, Uint8Array>;
const PAGE = 1000;

/** What the disk holds, after checking: only what can be proven sound is in it. */
export interface Contents {
  readonly tail: Tail;
  readonly entries: readonly LogEntry[];
  readonly state: readonly StatePut[];
  readonly pending: readonly Submission[];
  readonly local: ReadonlyMap<string, Uint8Array>;
  readonly problems: readonly string[];
  /** Something was dropped, so the disk must be brought in line before anything new is written. */
  readonly repair: 'none' | 'rewrite';
}

/** All pairs under a prefix; bounded by the limits on what is kept there (tasks, log, submissions). */
async function readAll(db: Database, prefix: string): Promise<[string, Uint8Array][]> {
  const iterator = db.iterator({ gte: prefix, lt: prefixEnd(prefix) });
  try {
    const all: [string, Uint8Array][] = [];
    for (let next = await iterator.nextv(PAGE); next.length > 0; next = await iterator.nextv(PAGE)) all.push(...next);
    return all;
  } finally {
    await iterator.close();
  }
}

/**
 * Reads everything and checks it against itself and against the vote file: the log must be unbroken and reach what was
 * promised, every entry must match its checksum, the state must match its sum. Throws only what LevelDB throws.
 */
export async function readContents(db: Database, promised: VoteRecord | undefined): Promise<Contents> {
  const problems: string[] = [];
  const tail = emptyTail();
  const meta = <T>(key: string, fits: (value: unknown) => value is T): T | undefined => {
    const bytes = db.getSync(key);
    if (bytes === undefined) return undefined;
    try {
      const value = decode(bytes);
      if (fits(value)) return value;
    } catch {
      // Said below.
    }
    problems.push(`the record ${key} is damaged`);
    return undefined;
  };
  tail.snapshot = meta(KEY.snapshot, isSnapshotMeta) ?? tail.snapshot;
  tail.state = meta(KEY.state, isStateMeta) ?? tail.state;
  const storedVote = db.getSync(KEY.vote);
  const own = storedVote === undefined ? NOTHING_PROMISED : decodeVote(storedVote);

  const log = await readLog(db, tail, problems);
  let state = await readState(db, tail, problems);
  const pledge = checkPromise(tail, log.entries, own, promised, problems);
  let sound = log.whole && pledge;
  tail.lost = !sound || own?.lost === true || promised?.lost === true;
  let entries = log.entries;
  let rewrite = !log.whole;

  if (state === undefined) {
    // The log can give the state again when it still begins at the beginning; otherwise neighbours must.
    rewrite = true;
    state = [];
    tail.state = { side: tail.state.side, applied: 0, count: 0, sum: 0 };
    if (!log.whole || tail.snapshot.index > 0) {
      sound = false;
      tail.lost = true;
      tail.snapshot = emptyTail().snapshot;
      entries = [];
      setEnd(tail, undefined, undefined);
    }
  } else if (tail.state.applied > tail.lastIndex || tail.state.applied < tail.snapshot.index) {
    problems.push(
      `the state stands at ${tail.state.applied}, the log covers ${tail.snapshot.index} to ${tail.lastIndex}`,
    );
    rewrite = true;
    sound = false;
    tail.lost = true;
    state = [];
    entries = [];
    tail.state = { side: tail.state.side, applied: 0, count: 0, sum: 0 };
    tail.snapshot = emptyTail().snapshot;
    setEnd(tail, undefined, undefined);
  }
  tail.sequence = Math.max(own?.sequence ?? 0, promised?.sequence ?? 0);
  tail.hardState = newerVote(own, promised);
  if (tail.lost && sound) problems.push('the log was lost earlier and this peer has not been admitted again');
  return {
    tail,
    entries,
    state,
    ...(await readRest(db, problems)),
    problems,
    repair: rewrite || !sound ? 'rewrite' : 'none',
  };
}

function setEnd(tail: Tail, entry: LogEntry | undefined, value: Uint8Array | undefined): void {
  tail.lastIndex = entry?.index ?? tail.snapshot.index;
  tail.lastTerm = entry?.term ?? tail.snapshot.term;
  tail.lastValue = value;
}

/** The unbroken, undamaged run of entries after the snapshot. */
async function readLog(db: Database, tail: Tail, problems: string[]): Promise<{ entries: LogEntry[]; whole: boolean }> {
  const entries: LogEntry[] = [];
  let last: Uint8Array | undefined;
  let whole = true;
  for (const [key, value] of await readAll(db, LOG_PREFIX)) {
    const index = logKeyIndex(key);
    // Left behind by a compaction that was cut short; of no use, and harmless.
    if (index <= tail.snapshot.index) continue;
    const expected = tail.snapshot.index + entries.length + 1;
    const entry = index === expected ? decodeEntry(index, value) : undefined;
    if (entry === undefined) {
      problems.push(
        index === expected
          ? `log entry ${index} is damaged`
          : `log entry ${expected} is missing, the next one is ${index}`,
      );
      whole = false;
      break;
    }
    entries.push(entry);
    last = value;
  }
  setEnd(tail, entries.at(-1), last);
  return { entries, whole };
}

/** undefined when pairs are missing or changed. */
async function readState(db: Database, tail: Tail, problems: string[]): Promise<StatePut[] | undefined> {
  const prefix = statePrefix(tail.state.side);
  const state: StatePut[] = [];
  let sum = 0;
  try {
    for (const [stored, bytes] of await readAll(db, prefix)) {
      const key = stored.slice(prefix.length);
      sum = (sum + pairSum(key, bytes)) >>> 0;
      state.push({ key, value: decode(bytes) });
    }
  } catch (error) {
    if (!(error instanceof Error) || 'code' in error) throw error;
    sum = -1;
  }
  if (state.length === tail.state.count && sum === tail.state.sum) return state;
  problems.push(`the state holds ${state.length} records that do not add up to the ${tail.state.count} written`);
  return undefined;
}

/** Does the log hold everything this peer has promised? `own` is the database's word, `promised` the vote file's. */
function checkPromise(
  tail: Tail,
  entries: readonly LogEntry[],
  own: VoteRecord | undefined,
  promised: VoteRecord | undefined,
  problems: string[],
): boolean {
  if (own === undefined) {
    problems.push('the vote record in the database is damaged');
    return false;
  }
  if (promised === undefined && own.sequence > 0) {
    problems.push('the vote file is missing or damaged');
    return false;
  }
  // The file is written after the database, so the database may be ahead after a crash, never behind.
  if (promised !== undefined && promised.sequence > own.sequence && (promised.term > 0 || promised.lastIndex > 0)) {
    problems.push(
      `the log ends at ${tail.lastIndex}, but entries up to ${promised.lastIndex} were promised (vote ${promised.sequence}, found ${own.sequence})`,
    );
    return false;
  }
  if (promised?.sequence === own.sequence && !encodeVote(promised).equals(encodeVote(own))) {
    problems.push('the vote file and the database disagree about what was promised');
    return false;
  }
  if (tail.lastIndex < own.lastIndex) {
    problems.push(`the log ends at ${tail.lastIndex}, but entries up to ${own.lastIndex} were promised`);
    return false;
  }
  const end = own.lastIndex > tail.snapshot.index ? entries[own.lastIndex - tail.snapshot.index - 1] : undefined;
  const same =
    end === undefined ? own.lastIndex <= tail.snapshot.index : end.term === own.lastTerm && sameHash(tail, own);
  if (!same || tail.lastIndex > Math.max(own.lastIndex, tail.snapshot.index)) {
    problems.push(`log entry ${own.lastIndex} is not the one that was promised`);
    return false;
  }
  return true;
}

function sameHash(tail: Tail, own: VoteRecord): boolean {
  if (tail.lastIndex !== own.lastIndex || tail.lastValue === undefined) return false;
  return createHash('sha256').update(tail.lastValue).digest().equals(own.lastHash);
}

/** Later terms win; within one term a vote that was given is never taken back. */
function newerVote(a: VoteRecord | undefined, b: VoteRecord | undefined): Tail['hardState'] {
  const [x, y] = [a ?? NOTHING_PROMISED, b ?? NOTHING_PROMISED];
  const newer = x.term !== y.term ? (x.term > y.term ? x : y) : x.votedFor !== null ? x : y;
  return { term: newer.term as Tail['hardState']['term'], votedFor: newer.votedFor };
}

async function readRest(
  db: Database,
  problems: string[],
): Promise<{ pending: Submission[]; local: Map<string, Uint8Array> }> {
  const pending: Submission[] = [];
  for (const [key, bytes] of await readAll(db, PENDING_PREFIX)) {
    try {
      const checked = isSubmission(decode(bytes));
      if (!checked.ok) throw new Error(checked.error);
      pending.push(checked.value as Submission);
    } catch {
      problems.push(`the pending submission ${key.slice(PENDING_PREFIX.length)} is damaged`);
    }
  }
  const local = new Map(
    (await readAll(db, LOCAL_PREFIX)).map(([key, value]) => [key.slice(LOCAL_PREFIX.length), value] as const),
  );
  return { pending, local };
}

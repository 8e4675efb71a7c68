import type { ConsensusRestore, LogEntry, Membership, PersistOp } from '../core/consensus/types.ts';
import type { StatePut } from '../core/state/types.ts';
import type { LogIndex, TaskId } from '../model/ids.ts';
import type { Submission } from '../model/records.ts';

/**
 * The peer's durable store (LevelDB, plus the two-slot vote file). Opened by one process. Adapters: level, memory (with
 * faults, for the simulator); both pass test/contract/store-contract.ts.
 */
export interface Store {
  /** Everything a starting peer needs. Throws data_dir_locked | data_dir_unusable | log_lost (never silently empty). */
  load(): Promise<StoreContents>;
  /** One fsynced batch, all or nothing. An error means the peer must stop. */
  write(batch: StoreBatch): Promise<void>;
  /** Log entries [from, to] still kept, for neighbours' range requests. */
  entries(from: LogIndex, to: LogIndex): Promise<readonly LogEntry[]>;
  /** Replaces the whole state by a snapshot, atomically. */
  installSnapshot(snapshot: {
    readonly index: LogIndex;
    readonly term: number;
    readonly membership: Membership;
    readonly pairs: AsyncIterable<StatePut>;
  }): Promise<void>;
  close(): Promise<void>;
}

export interface StoreContents {
  readonly consensus: ConsensusRestore;
  readonly state: readonly StatePut[];
  readonly pendingSubmissions: readonly Submission[];
  readonly local: ReadonlyMap<string, Uint8Array>;
  /** What was found damaged or missing, in plain words for logs and `doctor`. Empty when all is well. */
  readonly problems: readonly string[];
}

export interface StoreBatch {
  readonly consensus: readonly PersistOp[];
  /** State machine changes up to `applied`, in the same batch as the index itself. Ignored when the state stands further. */
  readonly state: readonly StatePut[];
  readonly applied: LogIndex | null;
  readonly addSubmissions: readonly Submission[];
  readonly removeSubmissions: readonly TaskId[];
  /** This machine's own durable facts (incarnation, known addresses, secret's version...). */
  readonly local: readonly { readonly key: string; readonly value: Uint8Array | null }[];
  /** False for batches whose loss is harmless (applied state, which the log can give again). */
  readonly sync: boolean;
}

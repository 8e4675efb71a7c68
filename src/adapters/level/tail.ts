import * as dagCbor from '@ipld/dag-cbor';
import type { HardState, Membership } from '../../core/consensus/types.ts';
import type { Term } from '../../model/ids.ts';
import { isMembership } from './log-codec.ts';

/** Keys of the database. Values are dag-cbor, but for log entries and the vote record, which carry their own checksum. */
export const KEY = {
  vote: 'meta/vote',
  snapshot: 'meta/snapshot',
  state: 'meta/state',
} as const;
export const PENDING_PREFIX = 'pending/';
export const LOCAL_PREFIX = 'local/';
/** State stands under one of two prefixes, so that a snapshot can be written beside it and taken over by one small batch. */
export const statePrefix = (side: 0 | 1): string => `state/${side}/`;
/** The first key after all keys that begin with `prefix`. */
export const prefixEnd = (prefix: string): string =>
  prefix.slice(0, -1) + String.fromCharCode(prefix.charCodeAt(prefix.length - 1) + 1);

export interface SnapshotMeta {
  readonly index: number;
  readonly term: number;
  readonly membership: Membership;
}

/** The replicated state as it stands on disk: where, how far, and a sum over it that shows when some of it is missing. */
export interface StateMeta {
  readonly side: 0 | 1;
  readonly applied: number;
  readonly count: number;
  /** Sum modulo 2^32 of CRC-32(key, value) over all pairs: changes with every put at no cost of reading the rest. */
  readonly sum: number;
}

/** Where the durable log and state end: what the next batch builds on. */
export interface Tail {
  sequence: number;
  lost: boolean;
  hardState: HardState;
  snapshot: SnapshotMeta;
  lastIndex: number;
  lastTerm: number;
  /** The last entry as stored; undefined when it is in the snapshot. */
  lastValue: Uint8Array | undefined;
  state: StateMeta;
}

export const NO_MEMBERSHIP: Membership = { voters: [], outgoing: null };

export function emptyTail(): Tail {
  return {
    sequence: 0,
    lost: false,
    hardState: { term: 0 as Term, votedFor: null },
    snapshot: { index: 0, term: 0, membership: NO_MEMBERSHIP },
    lastIndex: 0,
    lastTerm: 0,
    lastValue: undefined,
    state: { side: 0, applied: 0, count: 0, sum: 0 },
  };
}

export const encode = (value: unknown): Uint8Array => dagCbor.encode(value);
export const decode = (bytes: Uint8Array): unknown => dagCbor.decode(bytes);

export const plainMembership = (m: Membership): Membership => ({
  voters: [...m.voters],
  outgoing: m.outgoing && [...m.outgoing],
});

const isCount = (v: unknown): v is number => Number.isSafeInteger(v) && (v as number) >= 0;

export const isSnapshotMeta = (v: unknown): v is SnapshotMeta =>
  typeof v === 'object' &&
  v !== null &&
  'index' in v &&
  isCount(v.index) &&
  'term' in v &&
  isCount(v.term) &&
  'membership' in v &&
  isMembership(v.membership);

export function isStateMeta(v: unknown): v is StateMeta {
  if (typeof v !== 'object' || v === null) return false;
  const { side, applied, count, sum } = v as Partial<StateMeta>;
  return (side === 0 || side === 1) && isCount(applied) && isCount(count) && isCount(sum);
}

import type { ErrorCode } from './errors.ts';

// Wire v1: what two peers must agree on, byte for byte. Raising WIRE_VERSION makes peers of different versions refuse
// each other with `wrong_version` instead of misreading each other.

export const WIRE_VERSION = 1;

/**
 * Which records and orders a peer knows, as its facts say (`wireVersion`). Peers of neighbouring versions work together: what
 * the oldest of them does not know is not used until it is gone. 1: 0.1.0. 2: provisional copies and epochs.
 */
export const RECORDS_VERSION = 2;
/** First version that knows provisional copies (slot.drop, adoption) and epochs (cluster.recover). */
export const KNOWS_PROVISIONAL = 2;

/** Label of the key derivation for admission (HKDF-SHA256 info). */
export const ADMISSION_LABEL = 'task-org admission v1';

/** Channels of the framed stream by their number on the wire. Append only. */
export const WIRE_CHANNELS = ['membership', 'raft', 'lease', 'facts', 'control'] as const;

/** Gossip topics, each named `task-org/<clusterId>/<topic>`. */
export const WIRE_TOPICS = ['tasks', 'members', 'log'] as const;

/** Kinds of RPC frame: `u32 length | u8 kind | u32 id | u8 text length | text | payload`, big endian. */
export const RPC_KIND = {
  hello: 0,
  message: 1,
  request: 2,
  response: 3,
  error: 4,
  cancel: 5,
  ping: 6,
  pong: 7,
} as const;
/** Bytes after the length and before the text. */
export const RPC_HEADER_BYTES = 6;
/** Room a frame may take beyond its payload. */
export const RPC_OVERHEAD_BYTES = 512;

/** Kinds of bulk frame: `u8 kind | u32 length or amount`, big endian, then `length` bytes (none for credit and end). */
export const BULK_KIND = { open: 0, data: 1, credit: 2, end: 3, error: 4 } as const;
/** Bytes a bulk sender may be ahead of its reader. */
export const BULK_WINDOW_BYTES = 1024 * 1024;
/** Largest data frame of a bulk stream: one noise message, nearly. */
export const BULK_CHUNK_BYTES = 64 * 1024;

const CODES: Readonly<Record<ErrorCode, true>> = {
  invalid_input: true,
  not_found: true,
  name_in_use: true,
  already_exists: true,
  refused: true,
  busy: true,
  no_master: true,
  not_master: true,
  no_quorum: true,
  timeout: true,
  unreachable: true,
  not_admitted: true,
  token_expired: true,
  token_invalid: true,
  token_other_cluster: true,
  data_dir_locked: true,
  data_dir_unusable: true,
  disk_full: true,
  log_lost: true,
  store_failed: true,
  port_in_use: true,
  no_runtime: true,
  runtime_failed: true,
  image_missing: true,
  too_large: true,
  wrong_version: true,
  aborted: true,
  internal: true,
};

/** A code read from the wire; unknown ones become `internal`. */
export function errorCode(value: unknown): ErrorCode {
  return typeof value === 'string' && Object.hasOwn(CODES, value) ? (value as ErrorCode) : 'internal';
}

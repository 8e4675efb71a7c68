import { decode, encode } from '@ipld/dag-cbor';
import { base64url } from 'multiformats/bases/base64';
import { TaskOrgError } from './errors.ts';
import { type ClusterId, clusterId, type WallMs, wallMs } from './ids.ts';

// A join token: `torg1_` + base64url(dag-cbor {c, i, k, e, a} + CRC-32 of it). The checksum tells a token cut short by a
// copy from one that was never ours. It carries the invitation key, never the cluster's secret.

const PREFIX = 'torg1_';
const KEY_BYTES = 32;
const MAX_TOKEN_CHARS = 16 * 1024;
const MAX_ADDRESSES = 64;

export interface JoinToken {
  readonly clusterId: ClusterId;
  readonly invitationId: string;
  /** 32 bytes. */
  readonly key: Uint8Array;
  /** The caller compares it with its clock: `token_expired`. */
  readonly expiresAt: WallMs;
  /** Multiaddrs of peers that may be asked. */
  readonly addresses: readonly string[];
}

export function encodeToken(token: JoinToken): string {
  const body = encode({
    c: token.clusterId,
    i: token.invitationId,
    k: token.key,
    e: token.expiresAt,
    a: [...token.addresses],
  });
  const bytes = new Uint8Array(body.length + 4);
  bytes.set(body);
  new DataView(bytes.buffer).setUint32(body.length, crc32(body));
  return PREFIX + base64url.baseEncode(bytes);
}

/** Inverse of encodeToken; blanks and line breaks from a copy are ignored. Throws token_invalid. */
export function decodeToken(text: string): JoinToken {
  const compact = text.replaceAll(/\s+/g, '');
  if (compact.length > MAX_TOKEN_CHARS) throw invalid('it is too long to be a join token');
  if (!compact.startsWith(PREFIX)) throw invalid(`it does not start with ${PREFIX}`);
  let bytes: Uint8Array;
  try {
    bytes = base64url.baseDecode(compact.slice(PREFIX.length));
  } catch (cause) {
    throw invalid('it holds characters that no token has', cause);
  }
  if (bytes.length < 5) throw invalid('it is cut short');
  const body = bytes.subarray(0, bytes.length - 4);
  const sum = new DataView(bytes.buffer, bytes.byteOffset + body.length, 4).getUint32(0);
  if (sum !== crc32(body)) throw invalid('it is cut short or mistyped');
  let fields: unknown;
  try {
    fields = decode(body);
  } catch (cause) {
    throw invalid('its content cannot be read', cause);
  }
  return checkFields(fields);
}

function checkFields(fields: unknown): JoinToken {
  if (typeof fields !== 'object' || fields === null) throw invalid('its content is of another kind');
  const { c, i, k, e, a } = fields as Record<string, unknown>;
  if (typeof c !== 'string' || c === '' || typeof i !== 'string' || i === '') throw invalid('a field is missing');
  if (!(k instanceof Uint8Array) || k.length !== KEY_BYTES) throw invalid('its key has a wrong length');
  if (typeof e !== 'number' || !Number.isSafeInteger(e)) throw invalid('its expiry is not a time');
  if (!Array.isArray(a) || a.length > MAX_ADDRESSES || !a.every((x) => typeof x === 'string')) {
    throw invalid('its addresses cannot be read');
  }
  return { clusterId: clusterId(c), invitationId: i, key: k, expiresAt: wallMs(e), addresses: a };
}

function invalid(why: string, cause?: unknown): TaskOrgError {
  return new TaskOrgError('token_invalid', `not a valid join token: ${why}`, {
    hint: 'Copy the whole token again, or make a new one with `task-org token create` on a peer of the cluster.',
    cause,
  });
}

/** CRC-32 (IEEE 802.3), bitwise: tokens are short and the model stays free of Node. */
function crc32(bytes: Uint8Array): number {
  let crc = ~0;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ 0xedb88320 : crc >>> 1;
  }
  return ~crc >>> 0;
}

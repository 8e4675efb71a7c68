import { crc32 } from 'node:zlib';
import * as dagCbor from '@ipld/dag-cbor';
import type { LogEntry, Membership } from '../../core/consensus/types.ts';
import type { LogIndex, NodeId, Term } from '../../model/ids.ts';

// Log entries on disk: 4 bytes CRC-32 (little endian) of the rest, then dag-cbor `[term, kind, payload]`. The two common
// kinds are written and read by hand (the bytes are the same as the library's): a group commit holds many of them.

const KIND = { noop: 0, command: 1, membership: 2 } as const;
const INDEX_DIGITS = 16;

export const LOG_PREFIX = 'log/';
export const logKey = (index: number): string => LOG_PREFIX + String(index).padStart(INDEX_DIGITS, '0');
/** The index a log key stands for; NaN for a key that is none. */
export const logKeyIndex = (key: string): number => Number(key.slice(LOG_PREFIX.length));

export function encodeEntry(entry: LogEntry): Buffer {
  const { payload } = entry;
  let out: Buffer;
  if (payload.kind === 'command') {
    out = Buffer.allocUnsafe(4 + 1 + 9 + 1 + 9 + payload.bytes.length);
    let at = header(out, entry.term, KIND.command);
    at = writeHead(out, at, 0x40, payload.bytes.length);
    out.set(payload.bytes, at);
    out = out.subarray(0, at + payload.bytes.length);
  } else if (payload.kind === 'noop') {
    out = Buffer.allocUnsafe(16);
    const at = header(out, entry.term, KIND.noop);
    out[at] = 0xf6;
    out = out.subarray(0, at + 1);
  } else {
    const { voters, outgoing } = payload.membership;
    const body = dagCbor.encode([
      entry.term,
      KIND.membership,
      { voters: [...voters], outgoing: outgoing && [...outgoing] },
    ]);
    out = Buffer.concat([Buffer.alloc(4), body]);
  }
  out.writeUInt32LE(crc32(out.subarray(4)), 0);
  return out;
}

/** undefined when the bytes are not what encodeEntry wrote (rot, truncation). The payload shares memory with `value`. */
export function decodeEntry(index: number, value: Uint8Array): LogEntry | undefined {
  const bytes = Buffer.from(value.buffer, value.byteOffset, value.byteLength);
  if (bytes.length < 8 || bytes.readUInt32LE(0) !== crc32(bytes.subarray(4)) || bytes[4] !== 0x83) return undefined;
  try {
    return readBody(index, bytes);
  } catch {
    return undefined;
  }
}

function readBody(index: number, bytes: Buffer): LogEntry | undefined {
  const [term, afterTerm] = readHead(bytes, 5);
  if (!Number.isSafeInteger(term)) return undefined;
  const kind = bytes[afterTerm];
  const base = { index: index as LogIndex, term: term as Term };
  if (kind === KIND.noop) return { ...base, payload: { kind: 'noop' } };
  if (kind === KIND.command) {
    const [length, start] = readHead(bytes, afterTerm + 1);
    // Never beyond this value: the memory around it belongs to others.
    if (start + length !== bytes.length) return undefined;
    return {
      ...base,
      payload: { kind: 'command', bytes: new Uint8Array(bytes.buffer, bytes.byteOffset + start, length) },
    };
  }
  const membership = (dagCbor.decode(bytes.subarray(4)) as unknown[])[2];
  return isMembership(membership) ? { ...base, payload: { kind: 'membership', membership } } : undefined;
}

const isNames = (v: unknown): v is NodeId[] => Array.isArray(v) && v.every((name) => typeof name === 'string');

export const isMembership = (v: unknown): v is Membership =>
  typeof v === 'object' &&
  v !== null &&
  'voters' in v &&
  isNames(v.voters) &&
  'outgoing' in v &&
  (v.outgoing === null || isNames(v.outgoing));

function header(out: Buffer, term: number, kind: number): number {
  out[4] = 0x83;
  const at = writeHead(out, 5, 0x00, term);
  out[at] = kind;
  return at + 1;
}

/** CBOR's head: major type in the upper three bits, shortest form of `value` (canonical, as dag-cbor demands). */
function writeHead(out: Buffer, at: number, major: number, value: number): number {
  if (value < 24) out[at] = major | value;
  else if (value < 0x100) return out.writeUInt8(value, out.writeUInt8(major | 24, at));
  else if (value < 0x1_0000) return out.writeUInt16BE(value, out.writeUInt8(major | 25, at));
  else if (value < 0x1_0000_0000) return out.writeUInt32BE(value, out.writeUInt8(major | 26, at));
  else return out.writeBigUInt64BE(BigInt(value), out.writeUInt8(major | 27, at));
  return at + 1;
}

function readHead(bytes: Buffer, at: number): [value: number, next: number] {
  const short = bytes.readUInt8(at) & 0x1f;
  if (short < 24) return [short, at + 1];
  if (short === 24) return [bytes.readUInt8(at + 1), at + 2];
  if (short === 25) return [bytes.readUInt16BE(at + 1), at + 3];
  if (short === 26) return [bytes.readUInt32BE(at + 1), at + 5];
  return [Number(bytes.readBigUInt64BE(at + 1)), at + 9];
}

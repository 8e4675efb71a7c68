import { encode } from '@ipld/dag-cbor';
import { type Static, Type } from 'typebox';
import type { Membership } from '../core/consensus/types.ts';
import type { StatePut } from '../core/state/types.ts';
import { decodeCbor } from '../model/cbor.ts';
import { TaskOrgError } from '../model/errors.ts';
import { type LogIndex, logIndex, type Term } from '../model/ids.ts';
import { LIMITS } from '../model/limits.ts';
import { checker, EpochStamp, IndexSchema, NodeIdSchema, Null, TermSchema } from '../model/record-schemas.ts';
import { checkStatePair } from '../model/state-schemas.ts';

// A snapshot on its stream: parts of dag-cbor, each `u32 length | bytes`. First {h: header}, then {p: [[key, value], ...]}.
// All of it is checked before any of it is kept.

/** State pairs in one part. */
const PAIRS_PER_PART = 64;
const MAX_PART_BYTES = LIMITS.rpcFrameBytes * 8;

export interface SnapshotHeader {
  readonly index: LogIndex;
  readonly term: Term;
  readonly membership: Membership;
  /** Of a recovered cluster. */
  readonly epoch?: string;
}
export interface ReceivedSnapshot extends SnapshotHeader {
  readonly pairs: StatePut[];
}

const Voters = Type.Array(NodeIdSchema, { maxItems: 64 });
const Header = Type.Object({
  index: IndexSchema,
  term: TermSchema,
  membership: Type.Object({ voters: Voters, outgoing: Null(Voters) }),
  epoch: EpochStamp,
});
const checkHeader = checker(Header);

export function* encodeSnapshot(header: SnapshotHeader, pairs: readonly StatePut[]): Generator<Uint8Array> {
  const { voters, outgoing } = header.membership;
  const membership = { voters: [...voters], outgoing: outgoing && [...outgoing] };
  yield part(encode({ h: { ...header, membership } }));
  for (let i = 0; i < pairs.length; i += PAIRS_PER_PART)
    yield part(encode({ p: pairs.slice(i, i + PAIRS_PER_PART).map((p) => [p.key, p.value]) }));
}

/** Throws refused | too_large: cut short, malformed, or holding what no peer keeps. */
export async function decodeSnapshot(source: AsyncIterable<Uint8Array>): Promise<ReceivedSnapshot> {
  let header: Static<typeof Header> | undefined;
  const pairs: StatePut[] = [];
  for await (const bytes of parts(source)) {
    const decoded = decodeCbor(bytes, MAX_PART_BYTES);
    if (!decoded.ok) throw refused(decoded.error);
    const { h, p } = (typeof decoded.value === 'object' ? (decoded.value ?? {}) : {}) as { h?: unknown; p?: unknown };
    if (header === undefined) {
      const checked = checkHeader(h, bytes.length);
      if (!checked.ok) throw refused(`its header: ${checked.error}`);
      header = checked.value;
    } else if (!Array.isArray(p)) throw refused('a part holds no records');
    else for (const pair of p) pairs.push(checkedPair(pair));
  }
  if (header === undefined) throw refused('it is empty');
  return { ...header, index: logIndex(header.index), pairs };
}

function checkedPair(pair: unknown): StatePut {
  const [key, value] = Array.isArray(pair) ? (pair as unknown[]) : [];
  const checked = checkStatePair(key, value);
  if (!checked.ok) throw refused(checked.error);
  return checked.value;
}

const refused = (why: string): TaskOrgError =>
  new TaskOrgError('refused', `the snapshot offered cannot be used: ${why}`, { retryable: true });

function part(body: Uint8Array): Uint8Array {
  const out = new Uint8Array(4 + body.length);
  new DataView(out.buffer).setUint32(0, body.length);
  out.set(body, 4);
  return out;
}

/** Every byte is copied once, in however small pieces it comes. */
async function* parts(source: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  let buffer = new Uint8Array(64 * 1024);
  let filled = 0;
  for await (const chunk of source) {
    if (filled + chunk.length > buffer.length) {
      const larger = new Uint8Array(Math.max(buffer.length * 2, filled + chunk.length));
      larger.set(buffer.subarray(0, filled));
      buffer = larger;
    }
    buffer.set(chunk, filled);
    filled += chunk.length;
    let at = 0;
    while (filled - at >= 4) {
      const length = new DataView(buffer.buffer, at).getUint32(0);
      if (length > MAX_PART_BYTES) throw new TaskOrgError('too_large', 'a part of a snapshot exceeds its limit');
      if (filled - at < 4 + length) break;
      yield buffer.slice(at + 4, at + 4 + length);
      at += 4 + length;
    }
    if (at === 0) continue;
    buffer.copyWithin(0, at, filled);
    filled -= at;
  }
  if (filled > 0) throw refused('the stream was cut short');
}

import { createHash } from 'node:crypto';
import { crc32 } from 'node:zlib';
import { decode, encode } from '@ipld/dag-cbor';
import type { ClusterCredentials } from '../../adapters/data-dir/data-dir.ts';
import { decodeEntry, encodeEntry, logKey } from '../../adapters/level/log-codec.ts';
import { type Database, readContents } from '../../adapters/level/read-contents.ts';
import { pairSum } from '../../adapters/level/batch-builder.ts';
import { KEY, LOCAL_PREFIX, PENDING_PREFIX, statePrefix } from '../../adapters/level/tail.ts';
import { decodeVote, encodeVote, NO_HASH, type VoteRecord } from '../../adapters/level/vote-file.ts';
import { restoredPeer } from '../../agent/restore.ts';
import { createPeer } from '../../core/peer/peer.ts';
import { apply, createState, dumpState, restoreState } from '../../core/state/state.ts';
import { decodeSnapshot, encodeSnapshot } from '../../driver/snapshot-stream.ts';
import { resolveConfig } from '../../model/config.ts';
import { logIndex, monoMs, term, wallMs } from '../../model/ids.ts';
import { LIMITS } from '../../model/limits.ts';
import * as samples from '../samples.ts';
import { FuzzFailure, type FuzzTarget, LIMIT_MS } from '../target.ts';
import { pieces } from './streams.ts';

// What a peer reads back from its own disk, and a snapshot of another's.

const voters = { voters: [...samples.NODES], outgoing: null };

const logEntry: FuzzTarget = {
  name: 'log-entry',
  grammar: 'bytes',
  seeds: samples.committed().entries.map((entry) => Uint8Array.from(encodeEntry(entry).subarray(4))),
  seal: {
    wrap: (body) => {
      const out = Buffer.alloc(4 + body.length);
      out.set(body, 4);
      out.writeUInt32LE(crc32(body), 0);
      return out;
    },
    open: (sealed) => sealed.slice(4),
  },
  weight: 6,
  maxBytes: LIMITS.gossipFrameBytes,
  limitMs: LIMIT_MS,
  decode: (bytes) => {
    const entry = decodeEntry(9, bytes);
    if (entry === undefined) return 'refused';
    const again = decodeEntry(9, encodeEntry(entry));
    if (again === undefined) throw new FuzzFailure('an entry that was read cannot be written and read again');
    return 'accepted';
  },
};

const promised: VoteRecord = {
  sequence: 4,
  lost: false,
  term: 2,
  votedFor: samples.NODES[1] ?? null,
  lastIndex: 9,
  lastTerm: 2,
  lastHash: NO_HASH,
};
const vote = encodeVote(promised);
const voteFile: FuzzTarget = {
  name: 'vote-record',
  grammar: 'bytes',
  seeds: [Uint8Array.from(vote.subarray(0, -4))],
  seal: {
    wrap: (body) => {
      const out = Buffer.alloc(body.length + 4);
      out.set(body);
      out.writeUInt32LE(crc32(body), body.length);
      return out;
    },
    open: (sealed) => sealed.slice(0, -4),
  },
  weight: 3,
  maxBytes: 4096,
  limitMs: LIMIT_MS,
  decode: (bytes) => (decodeVote(bytes) === undefined ? 'refused' : 'accepted'),
};

// ---- the store -------------------------------------------------------------------------------------------------------

function soundState() {
  const state = createState();
  let index = 0;
  for (const command of samples.commands()) apply(state, logIndex(++index), command);
  return state;
}

/** The pairs of a sound store: a snapshot at 5, three entries, records, a submission, what is local. */
function soundStore(): [string, Uint8Array][] {
  const state = soundState();
  const records = [...dumpState(state)].map(({ key, value }) => [key, encode(value)] as const);
  const sum = records.reduce((all, [key, value]) => (all + pairSum(key, value)) >>> 0, 0);
  const entries = samples.committed().entries.map((entry, i) => ({ ...entry, index: logIndex(i + 6) }));
  const last = entries.at(-1) as (typeof entries)[number];
  return [
    [
      KEY.vote,
      encodeVote({
        ...promised,
        lastIndex: last.index,
        lastHash: createHash('sha256').update(encodeEntry(last)).digest(),
      }),
    ],
    [KEY.snapshot, encode({ index: 5, term: 2, membership: voters })],
    [KEY.state, encode({ side: 0, applied: 6, count: records.length, sum })],
    ...entries.map((e): [string, Uint8Array] => [logKey(e.index), Uint8Array.from(encodeEntry(e))]),
    ...records.map(([key, value]): [string, Uint8Array] => [statePrefix(0) + key, value]),
    [`${PENDING_PREFIX}t-web`, encode(samples.submission(samples.specs()[0] as never))],
    [`${LOCAL_PREFIX}incarnation`, Buffer.from('7')],
    [`${LOCAL_PREFIX}peers`, Buffer.from(JSON.stringify([{ id: samples.NODES[1], addresses: ['/sim/1'] }]))],
  ];
}

/** As much of a LevelDB as reading takes. */
function database(pairs: readonly (readonly [string, Uint8Array])[]): Database {
  const all = new Map(pairs);
  const keys = [...all.keys()].sort();
  return {
    getSync: (key: string) => all.get(key),
    iterator: ({ gte, lt }: { gte: string; lt: string }) => {
      let left = keys.filter((key) => key >= gte && key < lt).map((key) => [key, all.get(key)]);
      return {
        nextv: async () => {
          const page = left;
          left = [];
          return page;
        },
        close: async () => {},
      };
    },
  } as unknown as Database;
}

/** The vote file's word, which is sound. */
const SOUND_VOTE = decodeVote(soundStore()[0]?.[1] as Uint8Array);
const credentials = { seeds: [] } as unknown as ClusterCredentials;
const settings = (() => {
  const resolved = resolveConfig({});
  if (!resolved.ok) throw new Error('the defaults are no sound settings');
  return resolved.config;
})();

/** Whatever stands in the store, reading ends in contents that a peer can start from, or in said problems. */
const store: FuzzTarget = {
  name: 'store',
  grammar: 'cbor',
  seeds: [encode(soundStore())],
  weight: 1,
  maxBytes: LIMITS.gossipFrameBytes,
  limitMs: LIMIT_MS,
  decode: async (bytes) => {
    let pairs: [string, Uint8Array][];
    try {
      pairs = (decode(bytes) as unknown[]).filter(
        (p): p is [string, Uint8Array] => Array.isArray(p) && typeof p[0] === 'string' && p[1] instanceof Uint8Array,
      );
    } catch {
      return 'refused';
    }
    const read = await readContents(database(pairs), SOUND_VOTE);
    const { tail, entries, state } = read;
    const options = restoredPeer({
      self: samples.NODES[0] as never,
      settings,
      contents: {
        consensus: {
          hardState: tail.hardState,
          snapshot: {
            index: logIndex(tail.snapshot.index),
            term: term(tail.snapshot.term),
            membership: tail.snapshot.membership,
          },
          entries,
          applied: logIndex(tail.state.applied),
          mayVote: !tail.lost,
        },
        state,
        pendingSubmissions: read.pending,
        local: read.local,
      } as never,
      credentials,
      registered: new Map(),
      seed: 's',
      wall: wallMs(1),
      epoch: undefined,
      enforcesLeases: true,
    });
    createPeer(options, monoMs(0)).step({ type: 'tick', lateMs: 0 }, monoMs(1), wallMs(1));
    return read.problems.length === 0 ? 'accepted' : 'refused';
  },
};

// ---- snapshots from other peers --------------------------------------------------------------------------------------

/** What is accepted can be taken for one's own records. A value: the list of the stream's parts. */
const snapshot: FuzzTarget = {
  name: 'snapshot-stream',
  grammar: 'cbor',
  seeds: (() => {
    const parts = [
      ...encodeSnapshot({ index: logIndex(9), term: term(2), membership: voters }, [...dumpState(soundState())]),
    ];
    return [encode(parts.map((part) => decode(part.subarray(4))))];
  })(),
  weight: 1,
  maxBytes: LIMITS.rpcFrameBytes,
  limitMs: LIMIT_MS,
  decode: async (bytes) => {
    let parts: Uint8Array[];
    try {
      parts = (decode(bytes) as unknown[]).map((part) => {
        const body = encode(part);
        const head = Buffer.alloc(4);
        head.writeUInt32BE(body.length);
        return Buffer.concat([head, body]);
      });
    } catch {
      return 'refused';
    }
    const received = await decodeSnapshot(
      (async function* () {
        for (const part of parts) yield* pieces(part);
      })(),
    );
    const state = restoreState(received.pairs, received.index);
    // The next commands find the records as they expect them.
    let index = received.index as number;
    for (const command of samples.commands()) apply(state, logIndex(++index), command);
    return 'accepted';
  },
};

export const diskTargets = (): FuzzTarget[] => [logEntry, voteFile, store, snapshot];

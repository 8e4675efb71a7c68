import type { Stream } from '@libp2p/interface';
import { encode } from '@ipld/dag-cbor';
import {
  type AdmissionKey,
  proofMac,
  proveAsDialler,
  proveAsListener,
  readMessage,
  secretKey,
} from '../../adapters/libp2p/admission.ts';
import { BulkStream } from '../../adapters/libp2p/bulk.ts';
import { Counters } from '../../adapters/libp2p/counters.ts';
import { FrameChannel } from '../../adapters/libp2p/frame-channel.ts';
import { FrameError, frame } from '../../adapters/libp2p/frame-reader.ts';
import { decodeError, encodeError, FramedStream } from '../../adapters/libp2p/framed-stream.ts';
import { decodeGrant, decodeJoinRequest, encodeGrant, encodeJoinRequest } from '../../adapters/libp2p/join-messages.ts';
import { TaskOrgError } from '../../model/errors.ts';
import { clusterId, nodeId } from '../../model/ids.ts';
import { LIMITS } from '../../model/limits.ts';
import { encodeMessage } from '../../model/message-schemas.ts';
import { BULK_KIND, BULK_WINDOW_BYTES, RPC_KIND, WIRE_VERSION } from '../../model/wire.ts';
import { decodeFrames, encodeFrame, FRAME, encodeError as streamError } from '../../services/remote/stream-frames.ts';
import { join } from '../mutate-bytes.ts';
import * as samples from '../samples.ts';
import { FuzzFailure, type FuzzTarget, LIMIT_MS, type Verdict } from '../target.ts';

// Frames on the streams between peers, cut into pieces at places that the input itself decides.

type Listener = (event: { readonly data?: Uint8Array; readonly error?: Error }) => void;

/** A libp2p stream as the code under test uses it: what is pushed arrives, what is sent is counted. */
class FakeStream {
  readonly #listeners = new Map<string, Set<Listener>>();
  status = 'open';
  writableNeedsDrain = false;
  writeBufferLength = 0;
  sentBytes = 0;
  addEventListener(type: string, listener: Listener): void {
    const set = this.#listeners.get(type) ?? new Set();
    this.#listeners.set(type, set.add(listener));
  }
  removeEventListener(type: string, listener: Listener): void {
    this.#listeners.get(type)?.delete(listener);
  }
  /** Unlike an event target's, what a listener throws comes out here. */
  emit(type: string, event: Parameters<Listener>[0] = {}): void {
    for (const listener of [...(this.#listeners.get(type) ?? [])]) listener(event);
  }
  send(bytes: Uint8Array): boolean {
    this.sentBytes += bytes.length;
    return true;
  }
  abort(): void {
    this.status = 'aborted';
  }
  async close(): Promise<void> {
    this.status = 'closed';
  }
}

/** Pieces of 1 byte up to all of it, told by the bytes: the same input is always cut alike. */
export function* pieces(bytes: Uint8Array): Generator<Uint8Array> {
  let turn = bytes.length;
  for (let at = 0; at < bytes.length; ) {
    turn = (Math.imul(turn, 1_103_515_245) + 12_345 + (bytes[at] ?? 0)) >>> 0;
    const most = 1 << ((turn >>> 8) % 16);
    const end = Math.min(bytes.length, at + 1 + ((turn >>> 16) % most));
    yield bytes.subarray(at, end);
    at = end;
  }
}

const u32 = (value: number): Uint8Array => {
  const out = Buffer.alloc(4);
  out.writeUInt32BE(value >>> 0);
  return out;
};
const rpcFrame = (kind: number, id: number, text: string, payload: Uint8Array): Uint8Array =>
  frame(join(Uint8Array.of(kind), u32(id), Uint8Array.of(text.length), Buffer.from(text), payload));
const HELLO = rpcFrame(RPC_KIND.hello, 0, '', encode({ v: WIRE_VERSION, a: ['/ip4/10.0.0.1/tcp/7420'] }));
const NOTHING = new Uint8Array(0);
const ping = encodeMessage('membership', samples.membershipMessages()[0] as object);

const rpc: FuzzTarget = {
  name: 'rpc-stream',
  grammar: 'bytes',
  seeds: [
    HELLO,
    join(HELLO, rpcFrame(RPC_KIND.message, 0, '', ping), rpcFrame(RPC_KIND.ping, 7, '', NOTHING)),
    join(
      HELLO,
      rpcFrame(RPC_KIND.request, 1, 'log.entries', encode({ from: 1, to: 9 })),
      rpcFrame(RPC_KIND.cancel, 1, '', NOTHING),
    ),
    join(HELLO, rpcFrame(RPC_KIND.response, 1, '', encode([1])), rpcFrame(RPC_KIND.pong, 7, '', NOTHING)),
    join(HELLO, rpcFrame(RPC_KIND.error, 1, '', encodeError(new TaskOrgError('busy', 'later', { hint: 'wait' })))),
  ],
  weight: 8,
  maxBytes: LIMITS.rpcFrameBytes,
  limitMs: LIMIT_MS,
  decode: async (bytes) => {
    const stream = new FakeStream();
    let broken: FrameError | null | undefined;
    let messages = 0;
    const rpcStream = new FramedStream(
      stream as unknown as Stream,
      LIMITS,
      {
        onHello: () => {},
        onMessage: () => void (messages += 1),
        onRequest: async (_method, payload) => payload,
        onClosed: (reason) => {
          if (broken !== undefined) throw new FuzzFailure('a stream closes twice');
          broken = reason;
        },
      },
      new Counters(),
    );
    const asked = rpcStream.request('members.view', NOTHING, { timeoutMs: 60_000 }).catch(() => NOTHING);
    for (const data of pieces(bytes)) {
      if (rpcStream.closed) break;
      stream.emit('message', { data });
    }
    stream.emit('close');
    if (!rpcStream.closed) throw new FuzzFailure('a stream outlives its end');
    await asked;
    return broken === null ? 'accepted' : 'refused';
  },
};

const bulkFrame = (kind: number, body: Uint8Array): Uint8Array => join(Uint8Array.of(kind), u32(body.length), body);
const OPEN = bulkFrame(BULK_KIND.open, encode({ m: 'state.snapshot', p: encode({ index: 9 }) }));
const END = Uint8Array.of(BULK_KIND.end, 0, 0, 0, 0);

const bulk: FuzzTarget = {
  name: 'bulk-stream',
  grammar: 'bytes',
  seeds: [
    join(OPEN, bulkFrame(BULK_KIND.data, new Uint8Array(300)), END),
    join(OPEN, Uint8Array.of(BULK_KIND.credit), u32(4096), END),
    join(OPEN, bulkFrame(BULK_KIND.error, encodeError(new TaskOrgError('aborted', 'given up')))),
    // Data in frames of a byte each.
    join(OPEN, ...Array.from({ length: 400 }, () => bulkFrame(BULK_KIND.data, Uint8Array.of(1)))),
  ],
  weight: 6,
  maxBytes: 6 * BULK_WINDOW_BYTES,
  limitMs: LIMIT_MS,
  decode: async (bytes) => {
    const stream = new FakeStream();
    const bulkStream = new BulkStream(stream as unknown as Stream, 'server', LIMITS, new Counters(), () => {});
    let opened: boolean = false;
    const opening = bulkStream.opened.then(() => (opened = true)).catch(() => {});
    let arrived = 0;
    for (const data of pieces(bytes)) {
      if (stream.status !== 'open') break;
      stream.emit('message', { data });
    }
    stream.emit('remoteCloseWrite');
    await opening;
    try {
      for await (const chunk of bulkStream.source) arrived += chunk.length;
    } catch (error) {
      if (!(error instanceof FrameError)) throw error;
    }
    if (arrived > BULK_WINDOW_BYTES)
      throw new FuzzFailure(`${arrived} bytes arrived on a credit of ${BULK_WINDOW_BYTES}`);
    return opened ? 'accepted' : 'refused';
  },
};

// ---- logs and exec ---------------------------------------------------------------------------------------------------

async function* source(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  yield* pieces(bytes);
}

const copyStream: FuzzTarget = {
  name: 'log-exec-frames',
  grammar: 'bytes',
  seeds: [
    join(
      encodeFrame(FRAME.stdout, 'hello\n'),
      encodeFrame(FRAME.stderr, 'oh\n'),
      encodeFrame(FRAME.exit, '{"exitCode":0}'),
    ),
    join(
      encodeFrame(FRAME.stdin, 'ls\n'),
      encodeFrame(FRAME.resize, '{"columns":80,"rows":24}'),
      encodeFrame(FRAME.endOfInput),
    ),
    streamError(new TaskOrgError('not_found', 'no copy')),
  ],
  weight: 5,
  maxBytes: LIMITS.rpcFrameBytes,
  limitMs: LIMIT_MS,
  decode: async (bytes) => {
    for await (const _frame of decodeFrames(source(bytes)));
    return 'accepted' as Verdict;
  },
};

const wireError: FuzzTarget = {
  name: 'rpc-error',
  grammar: 'cbor',
  seeds: [encodeError(new TaskOrgError('busy', 'later', { retryable: true, hint: 'wait' }))],
  weight: 3,
  maxBytes: LIMITS.rpcFrameBytes,
  limitMs: LIMIT_MS,
  decode: (bytes) => (decodeError(bytes).message.endsWith('cannot be read') ? 'refused' : 'accepted'),
};

// ---- admission and joining -------------------------------------------------------------------------------------------

const PARTIES = { clusterId: clusterId('c1'), dialler: nodeId('12D3Sim000'), listener: nodeId('12D3Sim001') };
const KEY: AdmissionKey = secretKey(new Uint8Array(32).fill(3), PARTIES.clusterId, true);
const NONCE = new Uint8Array(32).fill(5);
const MAC = proofMac(KEY.key, 'dialler', {
  ...PARTIES,
  mode: 'member',
  keyId: KEY.id,
  diallerNonce: NONCE,
  listenerNonce: NONCE,
});

/** Both sides of the dialogue hear the same frames; nobody is admitted, for the nonces of the other side are new each time. */
const admission: FuzzTarget = {
  name: 'admission-frames',
  grammar: 'cbor',
  seeds: [
    encode({ t: 'hello', m: 'member', n: NONCE, k: [KEY.id, 'ffff'] }),
    encode({ t: 'hello', m: 'join', n: NONCE, k: ['inv-1'] }),
    encode({ t: 'challenge', k: KEY.id, n: NONCE, p: MAC }),
    encode({ t: 'proof', p: MAC }),
    encode({ t: 'refused', c: 'not_admitted', r: 'not in the allow-list', x: true }),
  ],
  weight: 4,
  maxBytes: 64 * 1024,
  limitMs: LIMIT_MS,
  refusal: (error) =>
    error instanceof FrameError || (error instanceof Error && error.message === 'the peer closed the stream'),
  decode: async (bytes) => {
    const outcome = async (prove: (channel: FrameChannel) => Promise<unknown>): Promise<void> => {
      const stream = new FakeStream();
      const proving = prove(new FrameChannel(stream as unknown as Stream, 64 * 1024));
      proving.catch(() => {});
      for (const data of pieces(frame(bytes))) stream.emit('message', { data });
      for (const data of pieces(frame(bytes))) stream.emit('message', { data });
      stream.emit('close');
      await proving;
      throw new FuzzFailure('somebody without the key is admitted');
    };
    let last: unknown;
    for (const prove of [
      (channel: FrameChannel) => proveAsDialler(channel, 'member', [KEY], PARTIES),
      (channel: FrameChannel) =>
        proveAsListener(
          channel,
          (_mode, ids) => (ids.length > 0 ? KEY : new TaskOrgError('not_admitted', 'no key')),
          PARTIES,
        ),
    ])
      await outcome(prove).catch((error: unknown) => {
        if (error instanceof FuzzFailure || !(error instanceof Error)) throw error;
        last = error;
      });
    throw last;
  },
};

const malformed = (error: unknown): boolean => error instanceof FrameError;

const joinRequest: FuzzTarget = {
  name: 'join-request',
  grammar: 'cbor',
  seeds: [
    encodeJoinRequest({
      name: 'node4',
      addresses: ['/ip4/10.0.0.4/tcp/7420'],
      labels: { zone: 'attic' },
      priority: 3,
      witness: false,
    }),
    encodeJoinRequest({ name: '', addresses: [], labels: {}, priority: -1, witness: true }),
  ],
  weight: 4,
  maxBytes: 64 * 1024,
  limitMs: LIMIT_MS,
  refusal: malformed,
  decode: (bytes): Verdict => {
    const request = decodeJoinRequest(bytes, PARTIES.dialler, 'inv-1');
    encodeJoinRequest(request);
    return 'accepted';
  },
};

const grant: FuzzTarget = {
  name: 'join-grant',
  grammar: 'cbor',
  seeds: [
    encodeGrant({
      clusterId: 'c1',
      secret: new Uint8Array(32),
      dataKeys: [new Uint8Array(32)],
      peers: [{ id: PARTIES.listener, addresses: ['/ip4/10.0.0.1/tcp/7420'] }],
    }),
    encodeGrant({ clusterId: 'c1', secret: new Uint8Array(32), dataKeys: [], peers: [] }),
  ],
  weight: 4,
  maxBytes: LIMITS.rpcFrameBytes,
  limitMs: LIMIT_MS,
  refusal: malformed,
  decode: (bytes): Verdict => {
    encodeGrant(decodeGrant(readMessage(bytes)));
    return 'accepted';
  },
};

export const streamTargets = (): FuzzTarget[] => [rpc, bulk, copyStream, wireError, admission, joinRequest, grant];

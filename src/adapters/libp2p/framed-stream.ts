import { decode, encode } from '@ipld/dag-cbor';
import type { Stream } from '@libp2p/interface';
import { TaskOrgError, toTaskOrgError } from '../../model/errors.ts';
import {
  errorCode,
  RPC_HEADER_BYTES,
  RPC_KIND,
  RPC_OVERHEAD_BYTES,
  WIRE_CHANNELS,
  WIRE_VERSION,
} from '../../model/wire.ts';
import type { Channel } from '../../ports/transport.ts';
import type { Counters } from './counters.ts';
import { deadline } from './deadline.ts';
import { FrameError, FrameReader, readUint32, type StreamData } from './frame-reader.ts';
import { lazyWindow } from './lazy-window.ts';

// The one long-lived stream between two peers: messages by channel, requests with ids, any number in flight. Frames of
// one turn of the event loop leave in one write. Two lanes: membership and lease messages (deadlines of some 100 ms) pass
// everything else that waits; within a lane the order is kept.

const BATCH_BYTES = 64 * 1024;
const MAX_TEXT_BYTES = 255;
const URGENT: ReadonlySet<Channel> = new Set<Channel>(['membership', 'lease']);

export interface FramedStreamLimits {
  readonly rpcFrameBytes: number;
  readonly rpcQueueBytes: number;
  readonly rpcInFlight: number;
}

export interface FramedStreamEvents {
  /** The other end's first frame: the stream is open both ways. `addresses` are its own, unchecked. */
  onHello(addresses: readonly string[]): void;
  onMessage(channel: Channel, payload: Uint8Array): void;
  onRequest(method: string, payload: Uint8Array, signal: AbortSignal): Promise<Uint8Array>;
  /** Once. `reason` is null for a plain close. */
  onClosed(reason: FrameError | null): void;
}

interface Outgoing {
  readonly kind: number;
  readonly id: number;
  readonly text: string;
  readonly payload: Uint8Array;
}

interface Pending {
  readonly resolve: (payload: Uint8Array) => void;
  readonly reject: (error: Error) => void;
}

const EMPTY = new Uint8Array(0);

export class FramedStream {
  readonly #stream: Stream;
  readonly #limits: FramedStreamLimits;
  readonly #events: FramedStreamEvents;
  readonly #counters: Counters;
  readonly #reader: FrameReader;
  readonly #urgent: Outgoing[] = [];
  readonly #normal: Outgoing[] = [];
  readonly #pending = new Map<number, Pending>();
  readonly #serving = new Map<number, AbortController>();
  readonly #pings = new Map<number, () => void>();
  #queuedBytes = 0;
  #nextId = 1;
  #blocked = false;
  #flushing = false;
  #helloSeen = false;
  #closed = false;

  constructor(stream: Stream, limits: FramedStreamLimits, events: FramedStreamEvents, counters: Counters) {
    this.#stream = stream;
    this.#limits = limits;
    this.#events = events;
    this.#counters = counters;
    this.#reader = new FrameReader(limits.rpcFrameBytes + RPC_OVERHEAD_BYTES, (frame) => this.#onFrame(frame));
    lazyWindow(stream);
    stream.addEventListener('drain', this.#onDrain);
    stream.addEventListener('close', this.#onClose);
    stream.addEventListener('remoteCloseWrite', this.#onClose);
    stream.addEventListener('message', this.#onData);
    if (stream.status !== 'open') queueMicrotask(this.#onClose);
  }

  get closed(): boolean {
    return this.#closed;
  }

  hello(addresses: readonly string[]): void {
    this.#enqueue(RPC_KIND.hello, 0, '', encode({ v: WIRE_VERSION, a: [...addresses] }), true);
  }

  /** False when dropped (counted): closed, too large, or the queue is full. */
  send(channel: Channel, payload: Uint8Array): boolean {
    if (payload.length > this.#limits.rpcFrameBytes) return this.#drop('send_too_large');
    if (this.#closed) return this.#drop('send_closed');
    if (this.#queuedBytes + payload.length > this.#limits.rpcQueueBytes) return this.#drop('send_queue_full');
    this.#enqueue(RPC_KIND.message, WIRE_CHANNELS.indexOf(channel), '', payload, URGENT.has(channel));
    return true;
  }

  request(
    method: string,
    payload: Uint8Array,
    options: { readonly timeoutMs: number; readonly signal?: AbortSignal },
  ): Promise<Uint8Array> {
    if (payload.length > this.#limits.rpcFrameBytes || Buffer.byteLength(method) > MAX_TEXT_BYTES) {
      return Promise.reject(
        new TaskOrgError('too_large', `request ${method} is over ${this.#limits.rpcFrameBytes} bytes`),
      );
    }
    if (this.#closed) return Promise.reject(unreachable());
    if (
      this.#pending.size >= this.#limits.rpcInFlight ||
      this.#queuedBytes + payload.length > this.#limits.rpcQueueBytes
    ) {
      this.#counters.add('requests_busy');
      return Promise.reject(new TaskOrgError('busy', 'too many requests in flight to this peer', { retryable: true }));
    }
    const { signal } = options;
    if (signal?.aborted) return Promise.reject(new TaskOrgError('aborted', `request ${method} was given up`));
    const id = this.#nextId;
    this.#nextId = id === 0xffffffff ? 1 : id + 1;
    return new Promise((resolve, reject) => {
      const settle = (): void => {
        clearTimeout(timer);
        signal?.removeEventListener('abort', onAbort);
        this.#pending.delete(id);
      };
      const giveUp = (error: TaskOrgError): void => {
        settle();
        if (!this.#closed) this.#enqueue(RPC_KIND.cancel, id, '', EMPTY, false);
        reject(error);
      };
      const onAbort = (): void => giveUp(new TaskOrgError('aborted', `request ${method} was given up`));
      const timer = setTimeout(() => {
        this.#counters.add('requests_timeout');
        giveUp(
          new TaskOrgError('timeout', `no answer to ${method} within ${options.timeoutMs} ms`, { retryable: true }),
        );
      }, options.timeoutMs);
      signal?.addEventListener('abort', onAbort, { once: true });
      this.#pending.set(id, {
        resolve: (answer) => {
          settle();
          resolve(answer);
        },
        reject: (error) => {
          settle();
          reject(error);
        },
      });
      this.#enqueue(RPC_KIND.request, id, method, payload, false);
    });
  }

  /** True when the other end answers in time: tells a live stream from one whose machine is gone. */
  ping(timeoutMs: number): Promise<boolean> {
    if (this.#closed || this.#pings.size >= 8) return Promise.resolve(false);
    const id = this.#nextId++;
    return new Promise((resolve) => {
      const done = (alive: boolean): void => {
        cancel();
        this.#pings.delete(id);
        resolve(alive);
      };
      const cancel = deadline(timeoutMs, () => done(false));
      this.#pings.set(id, () => done(!this.#closed));
      this.#enqueue(RPC_KIND.ping, id, '', EMPTY, true);
    });
  }

  /** Closes for good; what waits is lost, pending requests reject with `unreachable`. */
  close(reason: FrameError | null = null): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#stream.removeEventListener('message', this.#onData);
    this.#stream.removeEventListener('drain', this.#onDrain);
    this.#urgent.length = 0;
    this.#normal.length = 0;
    this.#queuedBytes = 0;
    for (const pending of [...this.#pending.values()]) pending.reject(unreachable());
    for (const serving of this.#serving.values()) serving.abort();
    this.#serving.clear();
    for (const ping of [...this.#pings.values()]) ping();
    this.#stream.abort(reason ?? new Error('closed'));
    this.#events.onClosed(reason);
  }

  readonly #onClose = (): void => {
    this.close(this.#reader.pendingBytes > 0 ? new FrameError('truncated', 'the stream ended within a frame') : null);
  };

  readonly #onDrain = (): void => {
    this.#blocked = false;
    this.#schedule();
  };

  readonly #onData = (event: { readonly data: StreamData & { readonly byteLength: number } }): void => {
    this.#counters.add('rpc_bytes_in', event.data.byteLength);
    try {
      this.#reader.push(event.data);
    } catch (cause) {
      this.close(cause instanceof FrameError ? cause : new FrameError('malformed', String(cause)));
    }
  };

  #drop(counter: string): false {
    this.#counters.add(counter);
    return false;
  }

  #enqueue(kind: number, id: number, text: string, payload: Uint8Array, urgent: boolean): void {
    if (this.#closed) return;
    if (this.#queuedBytes > 2 * this.#limits.rpcQueueBytes) {
      // It asks and asks and never reads: answers, errors and pongs are bounded like everything else.
      this.#counters.add('send_queue_full');
      this.close(new FrameError('unexpected', 'the peer does not read'));
      return;
    }
    (urgent ? this.#urgent : this.#normal).push({ kind, id, text, payload });
    this.#queuedBytes += payload.length + RPC_HEADER_BYTES + 4;
    // Should a drain event ever be missed, the next frame finds the stream writable and goes on.
    if (this.#blocked && !this.#stream.writableNeedsDrain && this.#stream.writeBufferLength === 0)
      this.#blocked = false;
    this.#schedule();
  }

  #schedule(): void {
    if (this.#flushing || this.#blocked || this.#closed) return;
    this.#flushing = true;
    setImmediate(this.#flush);
  }

  readonly #flush = (): void => {
    this.#flushing = false;
    while (!this.#closed && !this.#blocked && this.#urgent.length + this.#normal.length > 0) {
      if (this.#stream.writableNeedsDrain) {
        this.#blocked = true;
        return;
      }
      const batch = this.#takeBatch();
      this.#counters.add('rpc_bytes_out', batch.length);
      try {
        if (!this.#stream.send(batch)) this.#blocked = true;
      } catch {
        this.close();
      }
    }
  };

  /** Whole frames, urgent first, up to BATCH_BYTES (at least one), in one buffer. */
  #takeBatch(): Buffer {
    let bytes = 0;
    let urgent = 0;
    let normal = 0;
    const fits = (next: Outgoing | undefined): next is Outgoing =>
      next !== undefined && (bytes === 0 || bytes + next.payload.length < BATCH_BYTES);
    for (let next = this.#urgent[0]; fits(next); next = this.#urgent[urgent]) {
      bytes += frameBytes(next);
      urgent++;
    }
    if (urgent === this.#urgent.length) {
      for (let next = this.#normal[0]; fits(next); next = this.#normal[normal]) {
        bytes += frameBytes(next);
        normal++;
      }
    }
    const batch = Buffer.allocUnsafe(bytes);
    let at = 0;
    for (const item of this.#urgent.splice(0, urgent)) at = this.#write(batch, at, item);
    for (const item of this.#normal.splice(0, normal)) at = this.#write(batch, at, item);
    this.#counters.add('rpc_frames_out', urgent + normal);
    return batch;
  }

  #write(batch: Buffer, start: number, item: Outgoing): number {
    const textBytes = item.text === '' ? 0 : batch.write(item.text, start + 10, 'utf8');
    const total = RPC_HEADER_BYTES + textBytes + item.payload.length;
    batch.writeUInt32BE(total, start);
    batch[start + 4] = item.kind;
    batch.writeUInt32BE(item.id, start + 5);
    batch[start + 9] = textBytes;
    batch.set(item.payload, start + 10 + textBytes);
    this.#queuedBytes -= item.payload.length + RPC_HEADER_BYTES + 4;
    return start + 4 + total;
  }

  #onFrame(frame: Uint8Array): void {
    if (this.#closed) return;
    const textBytes = frame[5] ?? 0;
    if (frame.length < RPC_HEADER_BYTES + textBytes) throw new FrameError('malformed', 'frame shorter than its header');
    this.#counters.add('rpc_frames_in');
    const kind = frame[0];
    const id = readUint32(frame, 1);
    const payload = frame.subarray(RPC_HEADER_BYTES + textBytes);
    if (!this.#helloSeen && kind !== RPC_KIND.hello)
      throw new FrameError('unexpected', 'the first frame must be a hello');
    switch (kind) {
      case RPC_KIND.hello:
        this.#onHello(payload);
        return;
      case RPC_KIND.message: {
        const channel = WIRE_CHANNELS[id];
        if (channel === undefined) throw new FrameError('malformed', `no channel ${id}`);
        this.#events.onMessage(channel, payload);
        return;
      }
      case RPC_KIND.request:
        this.#serve(
          id,
          Buffer.from(frame.buffer, frame.byteOffset + RPC_HEADER_BYTES, textBytes).toString('utf8'),
          payload,
        );
        return;
      case RPC_KIND.response:
        this.#pending.get(id)?.resolve(payload);
        return;
      case RPC_KIND.error:
        this.#pending.get(id)?.reject(decodeError(payload));
        return;
      case RPC_KIND.cancel:
        this.#serving.get(id)?.abort();
        return;
      case RPC_KIND.ping:
        this.#enqueue(RPC_KIND.pong, id, '', EMPTY, true);
        return;
      case RPC_KIND.pong:
        this.#pings.get(id)?.();
        return;
      default:
        throw new FrameError('malformed', `no frame kind ${kind}`);
    }
  }

  #onHello(payload: Uint8Array): void {
    if (this.#helloSeen) throw new FrameError('unexpected', 'a second hello');
    const hello = decode(payload) as { v?: unknown; a?: unknown } | null;
    if (hello?.v !== WIRE_VERSION) throw new FrameError('wrong_version', `wire version ${String(hello?.v)}`);
    this.#helloSeen = true;
    const addresses = Array.isArray(hello.a)
      ? hello.a.filter((a): a is string => typeof a === 'string' && a.length <= 256)
      : [];
    this.#events.onHello(addresses.slice(0, 16));
  }

  #serve(id: number, method: string, payload: Uint8Array): void {
    if (this.#serving.has(id)) throw new FrameError('unexpected', 'a request id is used twice');
    if (this.#serving.size >= this.#limits.rpcInFlight) {
      this.#counters.add('requests_refused_busy');
      this.#reply(id, new TaskOrgError('busy', 'too many requests in flight', { retryable: true }));
      return;
    }
    const controller = new AbortController();
    this.#serving.set(id, controller);
    const finish = (answer: Uint8Array | TaskOrgError): void => {
      // A cancelled or closed request is answered by nobody.
      if (this.#serving.get(id) !== controller) return;
      this.#serving.delete(id);
      if (!controller.signal.aborted) this.#reply(id, answer);
    };
    this.#events.onRequest(method, payload, controller.signal).then(finish, (cause) => finish(toTaskOrgError(cause)));
  }

  #reply(id: number, answer: Uint8Array | TaskOrgError): void {
    if (answer instanceof Error) this.#enqueue(RPC_KIND.error, id, '', encodeError(answer), false);
    else if (this.#queuedBytes + answer.length > this.#limits.rpcQueueBytes) {
      this.#reply(id, new TaskOrgError('busy', 'too many answers wait to be read', { retryable: true }));
    } else if (answer.length <= this.#limits.rpcFrameBytes) this.#enqueue(RPC_KIND.response, id, '', answer, false);
    else this.#reply(id, new TaskOrgError('too_large', `the answer is over ${this.#limits.rpcFrameBytes} bytes`));
  }
}

/** An error as it crosses the wire: code, message, hint, retryable. Stack and cause stay at home. */
export function encodeError(error: TaskOrgError): Uint8Array {
  return encode({
    code: error.code,
    message: error.message.slice(0, 1024),
    hint: error.hint?.slice(0, 1024) ?? null,
    retryable: error.retryable,
  });
}

export function decodeError(payload: Uint8Array): TaskOrgError {
  try {
    const { code, message, hint, retryable } = decode(payload) as Record<string, unknown>;
    return new TaskOrgError(errorCode(code), typeof message === 'string' ? message : 'the peer gave no reason', {
      retryable: retryable === true,
      ...(typeof hint === 'string' ? { hint } : {}),
    });
  } catch (cause) {
    return new TaskOrgError('internal', 'the peer answered with an error that cannot be read', { cause });
  }
}

const frameBytes = (item: Outgoing): number =>
  4 + RPC_HEADER_BYTES + (item.text === '' ? 0 : Buffer.byteLength(item.text)) + item.payload.length;
const unreachable = (): TaskOrgError =>
  new TaskOrgError('unreachable', 'no connection to the peer', { retryable: true });

import { decode, encode } from '@ipld/dag-cbor';
import type { Stream } from '@libp2p/interface';
import { TaskOrgError, toTaskOrgError } from '../../model/errors.ts';
import { BULK_CHUNK_BYTES, BULK_KIND, BULK_WINDOW_BYTES, RPC_OVERHEAD_BYTES } from '../../model/wire.ts';
import type { ByteStream } from '../../ports/transport.ts';
import { ChunkQueue } from './chunk-queue.ts';
import type { Counters } from './counters.ts';
import { chunksOf, FrameError, readUint32, type StreamData } from './frame-reader.ts';
import { decodeError, encodeError } from './framed-stream.ts';

// A transfer on a stream of its own, pull-based: the reader grants credit as it consumes, so a writer is never more than
// BULK_WINDOW_BYTES ahead. libp2p streams have no backpressure on receipt and cut off a reader 4 MiB behind.

const HEADER_BYTES = 5;
const CREDIT_STEP_BYTES = BULK_WINDOW_BYTES / 4;
const MAX_ERROR_BYTES = 8 * 1024;

interface Opening {
  readonly method: string;
  readonly payload: Uint8Array;
}

/** Both ends of a bulk stream. Chunk borders are not kept. A reader that leaves its `source` early aborts the stream. */
export class BulkStream implements ByteStream {
  readonly source: AsyncIterable<Uint8Array>;
  /** Resolves once, with the first frame, on the serving side. */
  readonly opened: Promise<Opening>;
  readonly #stream: Stream;
  readonly #counters: Counters;
  readonly #opening = Promise.withResolvers<Opening>();
  readonly #maxOpenBytes: number;
  readonly #onEnded: () => void;
  // Reading.
  #header = new Uint8Array(HEADER_BYTES);
  #headerFilled = 0;
  readonly #body = new ChunkQueue();
  #bodyLeft = 0;
  readonly #arrived = new ChunkQueue();
  #consumed = 0;
  #receivedEnd = false;
  #reader: (() => void) | null = null;
  // Writing.
  #credit = BULK_WINDOW_BYTES;
  #sentEnd = false;
  #writers: (() => void)[] = [];
  #tail: Promise<void> = Promise.resolve();
  #failure: Error | null = null;
  #awaitsOpen: boolean;

  constructor(
    stream: Stream,
    role: 'opener' | 'server',
    limits: { readonly rpcFrameBytes: number },
    counters: Counters,
    onEnded: () => void,
  ) {
    this.#stream = stream;
    this.#counters = counters;
    this.#onEnded = onEnded;
    this.#maxOpenBytes = limits.rpcFrameBytes + RPC_OVERHEAD_BYTES;
    this.#awaitsOpen = role === 'server';
    this.opened = this.#opening.promise;
    this.opened.catch(() => {});
    this.source = { [Symbol.asyncIterator]: () => this.#iterator() };
    stream.addEventListener('drain', () => this.#wakeWriters());
    stream.addEventListener('close', (event) => this.#onStreamEnd(event.error));
    stream.addEventListener('remoteCloseWrite', () => this.#onStreamEnd(undefined));
    stream.addEventListener('message', (event: { readonly data: StreamData & { readonly byteLength: number } }) => {
      counters.add('bulk_bytes_in', event.data.byteLength);
      try {
        for (const chunk of chunksOf(event.data)) this.#parse(chunk);
      } catch (cause) {
        this.#break(cause instanceof FrameError ? cause : new FrameError('malformed', String(cause)));
      }
    });
  }

  open(method: string, payload: Uint8Array): void {
    this.#send(BULK_KIND.open, encode({ m: method, p: payload }));
  }

  write(chunk: Uint8Array): Promise<void> {
    const result = this.#tail.then(() => this.#writeNow(chunk));
    this.#tail = result.catch(() => {});
    return result;
  }

  async end(): Promise<void> {
    await this.#tail;
    if (this.#sentEnd || this.#failure) return;
    this.#sentEnd = true;
    this.#send(BULK_KIND.end, null);
    this.#maybeFinish();
  }

  /** Tells the other end why (by code), then cuts the stream. */
  abort(error: Error): void {
    if (this.#failure || (this.#sentEnd && this.#receivedEnd)) return;
    try {
      this.#sendFrame(BULK_KIND.error, encodeError(toTaskOrgError(error)));
    } catch {
      // The stream is gone already.
    }
    this.#fail(error);
    // A reset would overtake the error frame; the other end resets once it has read it.
    this.#stream.close({ signal: AbortSignal.timeout(1_000) }).then(
      () => this.#stream.abort(error),
      () => this.#stream.abort(error),
    );
  }

  async #writeNow(chunk: Uint8Array): Promise<void> {
    for (let at = 0; at < chunk.length; ) {
      while (!this.#failure && (this.#credit === 0 || this.#stream.writableNeedsDrain)) {
        await new Promise<void>((resolve) => this.#writers.push(resolve));
      }
      if (this.#failure) throw this.#failure;
      if (this.#sentEnd) throw new TaskOrgError('internal', 'write after end');
      const part = chunk.subarray(at, at + Math.min(BULK_CHUNK_BYTES, this.#credit));
      this.#credit -= part.length;
      at += part.length;
      this.#send(BULK_KIND.data, part);
    }
    if (this.#failure) throw this.#failure;
  }

  #send(kind: number, body: Uint8Array | null, amount = body?.length ?? 0): void {
    try {
      this.#sendFrame(kind, body, amount);
    } catch (cause) {
      this.#fail(lost(cause));
    }
  }

  #sendFrame(kind: number, body: Uint8Array | null, amount = body?.length ?? 0): void {
    const bytes = Buffer.allocUnsafe(HEADER_BYTES + (body?.length ?? 0));
    bytes[0] = kind;
    bytes.writeUInt32BE(amount, 1);
    if (body) bytes.set(body, HEADER_BYTES);
    this.#counters.add('bulk_bytes_out', bytes.length);
    this.#stream.send(bytes);
  }

  #wakeWriters(): void {
    const writers = this.#writers;
    this.#writers = [];
    // After libp2p's own drain listener has refilled the muxer.
    for (const wake of writers) setImmediate(wake);
  }

  #parse(chunk: Uint8Array): void {
    let at = 0;
    while (at < chunk.length && !this.#failure) {
      if (this.#headerFilled < HEADER_BYTES) {
        const part = chunk.subarray(at, at + HEADER_BYTES - this.#headerFilled);
        this.#header.set(part, this.#headerFilled);
        this.#headerFilled += part.length;
        at += part.length;
        if (this.#headerFilled === HEADER_BYTES) this.#onHeader();
        continue;
      }
      const part = chunk.subarray(at, at + this.#bodyLeft);
      at += part.length;
      this.#bodyLeft -= part.length;
      if (this.#header[0] === BULK_KIND.data) this.#arrive(part);
      else this.#body.push(part);
      if (this.#bodyLeft === 0) this.#onBody();
    }
  }

  #onHeader(): void {
    const kind = this.#header[0];
    const length = readUint32(this.#header, 1);
    if (this.#awaitsOpen !== (kind === BULK_KIND.open))
      throw new FrameError('unexpected', 'a transfer opens once, first');
    switch (kind) {
      case BULK_KIND.credit:
        this.#credit += length;
        if (this.#credit > BULK_WINDOW_BYTES) throw new FrameError('unexpected', 'credit over the window');
        this.#wakeWriters();
        this.#headerFilled = 0;
        return;
      case BULK_KIND.end:
        this.#receivedEnd = true;
        this.#headerFilled = 0;
        this.#wakeReader();
        this.#maybeFinish();
        return;
      case BULK_KIND.data:
        if (this.#receivedEnd) throw new FrameError('unexpected', 'data after the end');
        if (this.#arrived.bytes + this.#consumed + length > BULK_WINDOW_BYTES)
          throw new FrameError('oversized', 'data beyond the credit');
        break;
      case BULK_KIND.open:
      case BULK_KIND.error:
        if (length > (kind === BULK_KIND.open ? this.#maxOpenBytes : MAX_ERROR_BYTES))
          throw new FrameError('oversized', 'bulk frame');
        break;
      default:
        throw new FrameError('malformed', `no bulk frame kind ${kind}`);
    }
    this.#bodyLeft = length;
    if (length === 0) this.#onBody();
  }

  #onBody(): void {
    const kind = this.#header[0];
    this.#headerFilled = 0;
    if (kind === BULK_KIND.data) return;
    const body = this.#body.bytes === 0 ? new Uint8Array(0) : this.#body.take(this.#body.bytes);
    if (kind === BULK_KIND.error) {
      this.#fail(decodeError(body));
      this.#stream.abort(new Error('the other end gave up'));
      return;
    }
    const opening = decode(body) as { m?: unknown; p?: unknown } | null;
    if (typeof opening?.m !== 'string' || !(opening.p instanceof Uint8Array))
      throw new FrameError('malformed', 'opening of a transfer');
    this.#awaitsOpen = false;
    this.#opening.resolve({ method: opening.m, payload: opening.p });
  }

  #arrive(part: Uint8Array): void {
    this.#arrived.push(part);
    this.#wakeReader();
  }

  #wakeReader(): void {
    this.#reader?.();
    this.#reader = null;
  }

  #iterator(): AsyncIterator<Uint8Array> {
    return {
      next: async () => {
        for (;;) {
          const chunk = this.#arrived.shift();
          if (chunk) {
            this.#consumed += chunk.length;
            if (this.#consumed >= CREDIT_STEP_BYTES && !this.#receivedEnd) {
              this.#send(BULK_KIND.credit, null, this.#consumed);
              this.#consumed = 0;
            }
            return { done: false, value: chunk };
          }
          if (this.#receivedEnd) return { done: true, value: undefined };
          if (this.#failure) throw this.#failure;
          await new Promise<void>((resolve) => {
            this.#reader = resolve;
          });
        }
      },
      return: async () => {
        if (!this.#receivedEnd) this.abort(new TaskOrgError('aborted', 'the reader left'));
        return { done: true, value: undefined };
      },
    };
  }

  #onStreamEnd(error: Error | undefined): void {
    if (this.#sentEnd && this.#receivedEnd) return;
    if (this.#headerFilled > 0) this.#counters.add('bulk_truncated');
    this.#fail(lost(error));
    this.#stream.abort(new Error('closed before its end'));
  }

  #break(error: FrameError): void {
    this.#counters.add(`bulk_${error.reason}`);
    this.#fail(error);
    this.#stream.abort(error);
  }

  #maybeFinish(): void {
    if (!this.#sentEnd || !this.#receivedEnd) return;
    this.#stream.close({ signal: AbortSignal.timeout(5_000) }).catch((cause) => this.#stream.abort(cause));
    this.#onEnded();
  }

  #fail(error: Error): void {
    if (this.#failure || (this.#sentEnd && this.#receivedEnd)) return;
    this.#failure = error;
    this.#opening.reject(error);
    this.#wakeReader();
    this.#wakeWriters();
    this.#onEnded();
  }
}

function lost(cause: unknown): TaskOrgError {
  return new TaskOrgError('unreachable', 'the transfer was cut off', { retryable: true, cause });
}

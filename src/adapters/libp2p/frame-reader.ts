import { ChunkQueue } from './chunk-queue.ts';

/** A peer broke the wire format. `reason` is the counter's name: frames are data, never asserted on. */
export class FrameError extends Error {
  readonly reason: 'oversized' | 'malformed' | 'truncated' | 'unexpected' | 'wrong_version';
  constructor(reason: FrameError['reason'], message: string) {
    super(message);
    this.name = 'FrameError';
    this.reason = reason;
  }
}

/** What a libp2p stream hands over: one buffer, or a list of them. */
export type StreamData = Uint8Array | Iterable<Uint8Array>;

export function chunksOf(data: StreamData): Iterable<Uint8Array> {
  return data instanceof Uint8Array ? [data] : data;
}

/** Cuts a byte stream into `u32 length | bytes` frames. Holds at most one frame and one chunk. */
export class FrameReader {
  readonly #maxBytes: number;
  readonly #onFrame: (frame: Uint8Array) => void;
  readonly #queue = new ChunkQueue();
  /** Length of the frame being read; -1 while the prefix is not complete. */
  #expected = -1;

  constructor(maxBytes: number, onFrame: (frame: Uint8Array) => void) {
    this.#maxBytes = maxBytes;
    this.#onFrame = onFrame;
  }

  /** Bytes of an unfinished frame: not zero at the end of a stream means that it was truncated. */
  get pendingBytes(): number {
    return this.#queue.bytes + (this.#expected >= 0 ? 4 : 0);
  }

  /** Throws FrameError('oversized' | 'malformed'); the reader is of no use after that. */
  push(data: StreamData): void {
    for (const chunk of chunksOf(data)) {
      if (chunk.length === 0) continue;
      this.#queue.push(chunk);
      this.#drain();
    }
  }

  #drain(): void {
    for (;;) {
      if (this.#expected < 0) {
        if (this.#queue.bytes < 4) return;
        const prefix = this.#queue.take(4);
        const length = readUint32(prefix, 0);
        if (length === 0) throw new FrameError('malformed', 'empty frame');
        if (length > this.#maxBytes) throw new FrameError('oversized', `frame over ${this.#maxBytes} bytes`);
        this.#expected = length;
      }
      if (this.#queue.bytes < this.#expected) return;
      const frame = this.#queue.take(this.#expected);
      this.#expected = -1;
      this.#onFrame(frame);
    }
  }
}

/** Big endian, unsigned. Missing bytes read as zero. */
export function readUint32(bytes: Uint8Array, at: number): number {
  return (
    (((bytes[at] ?? 0) << 24) | ((bytes[at + 1] ?? 0) << 16) | ((bytes[at + 2] ?? 0) << 8) | (bytes[at + 3] ?? 0)) >>> 0
  );
}

/** One frame with its prefix. */
export function frame(payload: Uint8Array): Uint8Array {
  const out = Buffer.allocUnsafe(4 + payload.length);
  out.writeUInt32BE(payload.length, 0);
  out.set(payload, 4);
  return out;
}

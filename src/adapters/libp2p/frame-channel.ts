import type { Stream } from '@libp2p/interface';
import { FrameError, FrameReader, frame, type StreamData } from './frame-reader.ts';

const MAX_WAITING = 16;

/** Frames one by one, asked for: for short dialogues such as admission. At most MAX_WAITING unread frames are kept. */
export class FrameChannel {
  readonly #stream: Stream;
  readonly #frames: Uint8Array[] = [];
  #waiting: { resolve: (frame: Uint8Array) => void; reject: (error: Error) => void } | null = null;
  #failure: Error | null = null;

  constructor(stream: Stream, maxFrameBytes: number) {
    this.#stream = stream;
    const reader = new FrameReader(maxFrameBytes, (next) => this.#onFrame(next));
    const ended = (): void =>
      this.#fail(
        reader.pendingBytes > 0
          ? new FrameError('truncated', 'the stream ended within a frame')
          : new Error('the peer closed the stream'),
      );
    stream.addEventListener('remoteCloseWrite', ended);
    stream.addEventListener('close', ended);
    stream.addEventListener('message', (event: { readonly data: StreamData }) => {
      if (this.#failure) return;
      try {
        reader.push(event.data);
      } catch (cause) {
        this.#fail(cause instanceof Error ? cause : new Error(String(cause)));
      }
    });
    if (stream.status !== 'open') ended();
  }

  /** Rejects with FrameError for broken frames, or when the stream or the connection has ended. */
  read(): Promise<Uint8Array> {
    const next = this.#frames.shift();
    if (next) return Promise.resolve(next);
    if (this.#failure) return Promise.reject(this.#failure);
    if (this.#waiting) return Promise.reject(new Error('one read at a time'));
    return new Promise((resolve, reject) => {
      this.#waiting = { resolve, reject };
    });
  }

  write(payload: Uint8Array): void {
    this.#stream.send(frame(payload));
  }

  async close(): Promise<void> {
    await this.#stream.close({ signal: AbortSignal.timeout(500) });
  }

  abort(error: Error): void {
    this.#fail(error);
    this.#stream.abort(error);
  }

  #onFrame(next: Uint8Array): void {
    const waiting = this.#waiting;
    if (waiting) {
      this.#waiting = null;
      waiting.resolve(next);
    } else if (this.#frames.push(next) > MAX_WAITING) {
      throw new FrameError('unexpected', 'more frames than the dialogue has');
    }
  }

  #fail(error: Error): void {
    this.#failure ??= error;
    this.#waiting?.reject(this.#failure);
    this.#waiting = null;
  }
}

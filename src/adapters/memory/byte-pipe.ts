import { TaskOrgError } from '../../model/errors.ts';
import { BULK_WINDOW_BYTES } from '../../model/wire.ts';
import type { ByteStream } from '../../ports/transport.ts';

/** Two ends of a byte stream in memory, each at most BULK_WINDOW_BYTES ahead of its reader. `onEnded`: both ended, or aborted. */
export function bytePipe(onEnded: () => void): [ByteStream, ByteStream] {
  const there = new HalfPipe();
  const back = new HalfPipe();
  let ended = false;
  const settle = (): void => {
    if (ended || !(there.finished && back.finished)) return;
    ended = true;
    onEnded();
  };
  const end = (out: HalfPipe, incoming: HalfPipe): ByteStream => {
    const abort = (error: Error): void => {
      if (there.finished && back.finished) return;
      out.fail(error);
      incoming.fail(error);
      settle();
    };
    return {
      source: incoming.read(() => abort(new TaskOrgError('aborted', 'the reader left'))),
      write: (chunk) => out.write(chunk),
      end: async () => {
        out.end();
        settle();
      },
      abort,
    };
  };
  return [end(there, back), end(back, there)];
}

class HalfPipe {
  readonly #chunks: Uint8Array[] = [];
  #bytes = 0;
  #ended = false;
  #failure: Error | null = null;
  #wake: PromiseWithResolvers<void> = Promise.withResolvers();

  get finished(): boolean {
    return this.#ended || this.#failure !== null;
  }

  async write(chunk: Uint8Array): Promise<void> {
    while (!this.#failure && this.#bytes >= BULK_WINDOW_BYTES) await this.#wake.promise;
    if (this.#failure) throw this.#failure;
    if (this.#ended) throw new TaskOrgError('internal', 'write after end');
    this.#chunks.push(chunk.slice());
    this.#bytes += chunk.length;
    this.#changed();
  }

  end(): void {
    this.#ended = true;
    this.#changed();
  }

  fail(error: Error): void {
    if (this.#ended && this.#chunks.length === 0) return;
    this.#failure ??= error;
    this.#changed();
  }

  read(onLeft: () => void): AsyncIterable<Uint8Array> {
    return {
      [Symbol.asyncIterator]: () => ({
        next: async () => {
          for (;;) {
            const chunk = this.#chunks.shift();
            if (chunk) {
              this.#bytes -= chunk.length;
              this.#changed();
              return { done: false as const, value: chunk };
            }
            if (this.#failure) throw this.#failure;
            if (this.#ended) return { done: true as const, value: undefined };
            await this.#wake.promise;
          }
        },
        return: async () => {
          if (!this.#ended) onLeft();
          return { done: true as const, value: undefined };
        },
      }),
    };
  }

  #changed(): void {
    const wake = this.#wake;
    this.#wake = Promise.withResolvers();
    wake.resolve();
  }
}

/** Shorter chunks are copied together: a view of one byte takes a hundred times its size. */
const SMALL_BYTES = 1024;
const BLOCK_BYTES = 16 * 1024;
/** So many are kept as they came, without a copy: all there ever are on a stream in order. */
const FEW_CHUNKS = 16;
/** Taken chunks are let go of in one go, once there are so many. */
const COMPACT_AT = 1024;

/** Bytes that came in chunks, to be taken in order. A stream that comes byte by byte costs as much as one that comes whole. */
export class ChunkQueue {
  #chunks: (Uint8Array | undefined)[] = [];
  #head = 0;
  #bytes = 0;
  /** The last chunk, when it is a block of ours that has room behind it. */
  #block: Uint8Array | undefined;
  #blockFilled = 0;

  get bytes(): number {
    return this.#bytes;
  }

  push(chunk: Uint8Array): void {
    if (chunk.length === 0) return;
    this.#bytes += chunk.length;
    if (chunk.length >= SMALL_BYTES) {
      this.#block = undefined;
      this.#chunks.push(chunk);
      return;
    }
    if (this.#block !== undefined && this.#blockFilled + chunk.length <= BLOCK_BYTES) {
      this.#block.set(chunk, this.#blockFilled);
      this.#blockFilled += chunk.length;
      const last = this.#chunks.length - 1;
      this.#chunks[last] = this.#block.subarray((this.#chunks[last] as Uint8Array).byteOffset, this.#blockFilled);
      return;
    }
    if (this.#chunks.length - this.#head < FEW_CHUNKS) {
      this.#chunks.push(chunk);
      return;
    }
    this.#block = new Uint8Array(BLOCK_BYTES);
    this.#block.set(chunk);
    this.#blockFilled = chunk.length;
    this.#chunks.push(this.#block.subarray(0, chunk.length));
  }

  /** The next chunk, whatever its length; undefined when there is none. */
  shift(): Uint8Array | undefined {
    const chunk = this.#chunks[this.#head];
    if (chunk === undefined) return undefined;
    this.#bytes -= chunk.length;
    this.#drop();
    return chunk;
  }

  /** The next `count` bytes, of which there must be so many; a view when one chunk holds them. */
  take(count: number): Uint8Array {
    const first = this.#chunks[this.#head] as Uint8Array;
    if (first.length > count) {
      this.#chunks[this.#head] = first.subarray(count);
      this.#bytes -= count;
      return first.subarray(0, count);
    }
    if (first.length === count) return this.shift() as Uint8Array;
    const out = new Uint8Array(count);
    for (let filled = 0; filled < count; ) {
      const chunk = this.#chunks[this.#head] as Uint8Array;
      const part = chunk.subarray(0, count - filled);
      out.set(part, filled);
      filled += part.length;
      if (part.length === chunk.length) this.#drop();
      else this.#chunks[this.#head] = chunk.subarray(part.length);
    }
    this.#bytes -= count;
    return out;
  }

  #drop(): void {
    this.#chunks[this.#head++] = undefined;
    if (this.#head === this.#chunks.length) {
      this.#chunks = [];
      this.#head = 0;
      this.#block = undefined;
    } else if (this.#head >= COMPACT_AT && this.#head * 2 >= this.#chunks.length) {
      this.#chunks = this.#chunks.slice(this.#head);
      this.#head = 0;
    }
  }
}

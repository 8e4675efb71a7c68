import type { LogChunk } from '../../ports/runtime.ts';

/** Larger frames do not come from an engine: the stream is not what it should be. */
const FRAME_LIMIT_BYTES = 64 * 1024 * 1024;
const HEADER_BYTES = 8;

/**
 * Splits the engine's multiplexed output: frames of one byte stream number (1 = stdout, 2 = stderr), three of zero, four of
 * length (big endian), then the bytes. Docker Engine API, "Attach to a container". Throws on anything else.
 */
export async function* demultiplex(source: AsyncIterable<Uint8Array>): AsyncGenerator<LogChunk> {
  let held: Buffer = Buffer.alloc(0);
  for await (const chunk of source) {
    held =
      held.length === 0 ? Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength) : Buffer.concat([held, chunk]);
    while (held.length >= HEADER_BYTES) {
      const length = held.readUInt32BE(4);
      const kind = held[0] ?? 255;
      if (kind > 2 || length > FRAME_LIMIT_BYTES) throw new Error('unexpected frame in the output of a container');
      if (held.length < HEADER_BYTES + length) break;
      const data = held.subarray(HEADER_BYTES, HEADER_BYTES + length);
      held = held.subarray(HEADER_BYTES + length);
      if (data.length > 0) yield { stream: kind === 2 ? 'stderr' : 'stdout', data };
    }
  }
}

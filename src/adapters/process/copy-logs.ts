import { type FSWatcher, watch } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';
import { LIMITS } from '../../model/limits.ts';
import type { LogChunk } from '../../ports/runtime.ts';
import { fileOf, readTimes, STREAMS, type Stream, sizeOf, timeAt, timesOf } from './log-files.ts';

// Reads what a process copy wrote. The time of a line is that of the sample (one a second) at which it was first seen;
// followed lines have the time they were read.

const BLOCK = 64 * 1024;
/** A follower looks again after this long even if no file event came (they can be lost on overflow). */
const FOLLOW_LOOK_MS = 1000;
const NEWLINE = 10;

export interface ReadLogsOptions {
  readonly follow: boolean;
  /** Lines of each stream; negative or infinite = all. */
  readonly tail: number;
  readonly timestamps: boolean;
}

/**
 * What the copy wrote, stdout first, then stderr; with `follow` on and on, in the order written as far as two files tell,
 * until `ended` resolves or `signal` aborts.
 */
export async function* readCopyLogs(
  dir: string,
  options: ReadLogsOptions,
  ended: Promise<void>,
  signal: AbortSignal,
): AsyncGenerator<LogChunk> {
  const tail =
    options.tail < 0 || options.tail > LIMITS.logsTailLines ? LIMITS.logsTailLines : Math.floor(options.tail);
  const wake = createWake(dir, options.follow);
  const stop = (): void => wake.ring();
  signal.addEventListener('abort', stop, { once: true });
  let over = false;
  void ended.then(() => {
    over = true;
    wake.ring();
  });
  try {
    const at = new Map<Stream, number>();
    for (const stream of STREAMS) {
      const path = fileOf(dir, stream);
      at.set(stream, sizeOf(path));
      yield* history(dir, stream, at.get(stream) ?? 0, tail, options.timestamps);
    }
    const stamps = new Map<Stream, LineStamper>();
    if (options.timestamps) for (const stream of STREAMS) stamps.set(stream, new LineStamper());
    while (options.follow && !signal.aborted) {
      // Asked before reading: what was written before the end is then certainly read.
      const last = over;
      for (const stream of STREAMS) {
        for await (const data of readOn(fileOf(dir, stream), at, stream)) {
          const stamp = stamps.get(stream);
          yield { stream, data: stamp ? stamp.stamp(data, () => new Date()) : data };
        }
      }
      if (last) break;
      await wake.wait(signal);
    }
  } finally {
    signal.removeEventListener('abort', stop);
    wake.close();
  }
}

/** The last `tail` lines of a stream up to `size`, from both of its files. */
async function* history(
  dir: string,
  stream: Stream,
  size: number,
  tail: number,
  timestamps: boolean,
): AsyncGenerator<LogChunk> {
  if (tail === 0) return;
  const path = fileOf(dir, stream);
  const now = await tailStart(path, size, tail);
  const oldSize = sizeOf(`${path}.1`);
  const old = now.lines < tail ? await tailStart(`${path}.1`, oldSize, tail - now.lines) : { start: oldSize, lines: 0 };
  for (const part of [
    { path: `${path}.1`, times: `${timesOf(dir, stream)}.1`, start: old.start, end: oldSize },
    { path, times: timesOf(dir, stream), start: now.start, end: size },
  ]) {
    const when = timestamps ? readTimes(part.times) : undefined;
    const stamper = new LineStamper();
    let offset = part.start;
    for await (const data of readRange(part.path, part.start, part.end)) {
      const base = offset;
      offset += data.length;
      yield { stream, data: when ? stamper.stamp(data, (i) => timeAt(when, base + i)) : data };
    }
  }
}

/** New bytes since the last look; a file that became shorter was rotated, so its rest stands in `.1`. */
async function* readOn(path: string, at: Map<Stream, number>, stream: Stream): AsyncGenerator<Uint8Array> {
  let from = at.get(stream) ?? 0;
  let size = sizeOf(path);
  if (size < from) {
    yield* readRange(`${path}.1`, from, sizeOf(`${path}.1`));
    from = 0;
    size = sizeOf(path);
  }
  at.set(stream, size);
  yield* readRange(path, from, size);
}

async function* readRange(path: string, start: number, end: number): AsyncGenerator<Uint8Array> {
  if (end <= start) return;
  const file = await open(path, 'r').catch(() => undefined);
  if (!file) return;
  try {
    for (let at = start; at < end; ) {
      const data = await readBlock(file, at, Math.min(BLOCK, end - at));
      if (data.length === 0) return;
      at += data.length;
      yield data;
    }
  } finally {
    await file.close();
  }
}

async function readBlock(file: FileHandle, position: number, length: number): Promise<Uint8Array> {
  const buffer = new Uint8Array(length);
  const { bytesRead } = await file.read(buffer, 0, length, position);
  return buffer.subarray(0, bytesRead);
}

/** Where the last `count` lines of the first `size` bytes begin, read backwards, and how many lines that is. */
async function tailStart(path: string, size: number, count: number): Promise<{ start: number; lines: number }> {
  const file = size > 0 ? await open(path, 'r').catch(() => undefined) : undefined;
  if (!file) return { start: 0, lines: 0 };
  try {
    let newlines = 0;
    for (let end = size; end > 0; end -= BLOCK) {
      const start = Math.max(0, end - BLOCK);
      const block = await readBlock(file, start, end - start);
      for (let i = block.length - 1; i >= 0; i--) {
        // A newline at the very end closes the last line; it does not begin another.
        if (block[i] !== NEWLINE || start + i === size - 1) continue;
        if (++newlines === count) return { start: start + i + 1, lines: count };
      }
    }
    return { start: 0, lines: newlines + 1 };
  } finally {
    await file.close();
  }
}

/** Puts a time before each line; keeps in mind whether the last chunk ended within a line. */
class LineStamper {
  #inLine = false;

  stamp(data: Uint8Array, when: (index: number) => Date): Uint8Array {
    const parts: Buffer[] = [];
    for (let i = 0; i < data.length; ) {
      const newline = data.indexOf(NEWLINE, i);
      const end = newline < 0 ? data.length : newline + 1;
      if (!this.#inLine) parts.push(Buffer.from(`${when(i).toISOString()} `));
      parts.push(Buffer.from(data.subarray(i, end)));
      this.#inLine = newline < 0;
      i = end;
    }
    return Buffer.concat(parts);
  }
}

interface Wake {
  ring(): void;
  wait(signal: AbortSignal): Promise<void>;
  close(): void;
}

function createWake(dir: string, watching: boolean): Wake {
  let rung = false;
  let resume: (() => void) | undefined;
  const ring = (): void => {
    rung = true;
    resume?.();
  };
  let watcher: FSWatcher | undefined;
  try {
    watcher = watching ? watch(dir, { persistent: false }, ring) : undefined;
    watcher?.on('error', ring);
  } catch {
    // too many watches, or the directory is gone: looking once a second still works
  }
  return {
    ring,
    wait: async (signal) => {
      const again = new AbortController();
      if (!rung && !signal.aborted)
        await Promise.race([
          new Promise<void>((resolve) => {
            resume = resolve;
          }),
          delay(FOLLOW_LOOK_MS, undefined, { ref: false, signal: again.signal }).catch(() => {}),
        ]);
      again.abort();
      rung = false;
    },
    close: () => watcher?.close(),
  };
}

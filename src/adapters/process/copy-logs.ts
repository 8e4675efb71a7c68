import { type FSWatcher, watch } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';
import { LIMITS } from '../../model/limits.ts';
import type { LogChunk } from '../../ports/runtime.ts';
import { changedMs, fileOf, readTimes, STREAMS, type Stream, sizeOf, timeAt, timesOf } from './log-files.ts';

// Reads what a process copy wrote. The time of a line is that of the sample (one a second) at which it was first seen;
// followed lines have the time they were read.

const BLOCK = 64 * 1024;
/** A follower looks again after this long even if no file event came (they can be lost on overflow). */
const FOLLOW_LOOK_MS = 1000;
const NEWLINE = 10;

export interface ReadLogsOptions {
  readonly follow: boolean;
  /** Lines, of both streams together, the latest; negative or infinite = all. */
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
    const at = new Map<Stream, number>(STREAMS.map((stream) => [stream, sizeOf(fileOf(dir, stream))]));
    const lines = await shares(dir, at, tail);
    for (const stream of STREAMS)
      yield* history(dir, stream, at.get(stream) ?? 0, lines.get(stream) ?? 0, options.timestamps);
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

/** How many of the last `tail` lines are of which stream, as far as times tell. */
async function shares(dir: string, sizes: ReadonlyMap<Stream, number>, tail: number): Promise<Map<Stream, number>> {
  if (tail === LIMITS.logsTailLines) return new Map(STREAMS.map((stream) => [stream, tail]));
  const times = new Map<Stream, number[]>();
  for (const stream of STREAMS) times.set(stream, await lineTimes(dir, stream, sizes.get(stream) ?? 0, tail));
  const counts = new Map<Stream, number>(STREAMS.map((stream) => [stream, 0]));
  for (let i = 0; i < tail; i++) {
    let latest: Stream | undefined;
    for (const stream of STREAMS)
      if ((times.get(stream)?.at(-1) ?? -1) > (latest === undefined ? -1 : (times.get(latest)?.at(-1) ?? -1)))
        latest = stream;
    if (latest === undefined) break;
    times.get(latest)?.pop();
    counts.set(latest, (counts.get(latest) ?? 0) + 1);
  }
  return counts;
}

/** When the last lines of a stream were written, ms; of those no sample or only the last one has seen: the file's mtime. */
async function lineTimes(dir: string, stream: Stream, size: number, tail: number): Promise<number[]> {
  const path = fileOf(dir, stream);
  const found: number[] = [];
  for (const [file, times, end] of [
    [path, timesOf(dir, stream), size],
    [`${path}.1`, `${timesOf(dir, stream)}.1`, sizeOf(`${path}.1`)],
  ] as const) {
    const samples = readTimes(times);
    const settled = samples.at(-2)?.size ?? 0;
    const offsets = await lastLines(file, end, tail - found.length);
    const changed = offsets.length > 0 ? changedMs(file) : 0;
    found.unshift(...offsets.map((at) => (at < settled ? timeAt(samples, at).getTime() : changed)));
  }
  return found;
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
  const now = await lastLines(path, size, tail);
  const oldSize = sizeOf(`${path}.1`);
  const old = await lastLines(`${path}.1`, oldSize, tail - now.length);
  for (const part of [
    { path: `${path}.1`, times: `${timesOf(dir, stream)}.1`, start: old[0] ?? oldSize, end: oldSize },
    { path, times: timesOf(dir, stream), start: now[0] ?? size, end: size },
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

/** Where the last `count` lines of the first `size` bytes begin, in order; read backwards. */
async function lastLines(path: string, size: number, count: number): Promise<number[]> {
  const file = size > 0 && count > 0 ? await open(path, 'r').catch(() => undefined) : undefined;
  if (!file) return [];
  const starts: number[] = [];
  try {
    for (let end = size; end > 0; end -= BLOCK) {
      const start = Math.max(0, end - BLOCK);
      const block = await readBlock(file, start, end - start);
      for (let i = block.lastIndexOf(NEWLINE); i >= 0; i = i === 0 ? -1 : block.lastIndexOf(NEWLINE, i - 1)) {
        // A newline at the very end closes the last line; it does not begin another.
        if (start + i === size - 1) continue;
        if (starts.push(start + i + 1) === count) return starts.reverse();
      }
    }
    starts.push(0);
    return starts.reverse();
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

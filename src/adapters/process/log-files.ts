import {
  appendFileSync,
  closeSync,
  openSync,
  readFileSync,
  readSync,
  renameSync,
  statSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { open, rm } from 'node:fs/promises';
import { join } from 'node:path';

// A process copy writes its output to plain files, so that it needs no agent. A file that has grown to LOG_FILE_BYTES is
// copied to `.1` and emptied in place (the writer appends to an open file, which cannot be taken away from it): what is
// written in the microseconds between the copy and the cut is lost. Without an agent nothing rotates until one is back.
// `*.times` holds `MS SIZE` lines: when the file had which size, by samples of a second.

export const LOG_FILE_BYTES = 10 * 1024 * 1024;
export const STREAMS = ['stdout', 'stderr'] as const;
export type Stream = (typeof STREAMS)[number];

/** A file so many times too large (no agent for long, or a flood) is not copied whole: the last LOG_FILE_BYTES are kept. */
const FLOOD = 4;
const BLOCK = 256 * 1024;
/** What may be left to copy while nothing else runs. */
const LAST_COPY_BYTES = 1024 * 1024;
/** Above this every second line of the times goes: the times become coarser, not fewer files. */
const TIMES_FILE_BYTES = 256 * 1024;

export interface TimeSample {
  readonly ms: number;
  readonly size: number;
}

export const fileOf = (dir: string, stream: Stream): string => join(dir, `${stream}.log`);
export const timesOf = (dir: string, stream: Stream): string => join(dir, `${stream}.times`);

/** 0 when there is none. */
export function sizeOf(path: string): number {
  try {
    return statSync(path).size;
  } catch {
    return 0;
  }
}

/** When the file was last written to, ms; 0 when there is none. */
export function changedMs(path: string): number {
  try {
    return statSync(path).mtimeMs;
  } catch {
    return 0;
  }
}

/** Notes times and rotates. To be called about once a second while the copy runs. */
export class LogSampler {
  readonly #dir: string;
  readonly #limitBytes: number;
  readonly #seen = new Map<Stream, number>();
  #rotating = false;

  constructor(dir: string, limitBytes = LOG_FILE_BYTES) {
    this.#dir = dir;
    this.#limitBytes = limitBytes;
    for (const stream of STREAMS) this.#seen.set(stream, lastSize(timesOf(dir, stream)));
  }

  sample(nowMs: number): void {
    for (const stream of STREAMS) {
      const size = sizeOf(fileOf(this.#dir, stream));
      if (size === this.#seen.get(stream)) continue;
      this.#seen.set(stream, size);
      const times = timesOf(this.#dir, stream);
      appendFileSync(times, `${nowMs} ${size}\n`, { mode: 0o600 });
      if (sizeOf(times) > TIMES_FILE_BYTES) thin(times);
    }
  }

  async rotate(): Promise<void> {
    if (this.#rotating) return;
    this.#rotating = true;
    try {
      for (const stream of STREAMS) {
        const path = fileOf(this.#dir, stream);
        if (sizeOf(path) < this.#limitBytes) continue;
        await rotateFile(path, this.#limitBytes);
        renameSync(timesOf(this.#dir, stream), `${timesOf(this.#dir, stream)}.1`);
        this.#seen.set(stream, 0);
      }
    } finally {
      this.#rotating = false;
    }
  }
}

/** Copies beside the event loop's back; only the last piece, with the cut, in one turn: the gap is as short as can be. */
async function rotateFile(path: string, keepBytes: number): Promise<void> {
  const temporary = `${path}.tmp`;
  try {
    const size = sizeOf(path);
    let at = size > FLOOD * keepBytes ? size - keepBytes : 0;
    const from = await open(path, 'r');
    const to = await open(temporary, 'w', 0o600);
    try {
      const block = new Uint8Array(BLOCK);
      const until = at + FLOOD * keepBytes;
      while (at < until && sizeOf(path) - at > LAST_COPY_BYTES) {
        const { bytesRead } = await from.read(block, 0, BLOCK, at);
        await to.write(block, 0, bytesRead);
        at += bytesRead;
      }
    } finally {
      await from.close();
      await to.close();
    }
    copyRest(path, temporary, at);
    renameSync(temporary, `${path}.1`);
    truncateSync(path, 0);
  } finally {
    await rm(temporary, { force: true });
  }
}

function copyRest(path: string, temporary: string, at: number): void {
  const from = openSync(path, 'r');
  const to = openSync(temporary, 'a');
  try {
    const rest = new Uint8Array(LAST_COPY_BYTES);
    writeSync(to, rest, 0, readSync(from, rest, 0, rest.length, at));
  } finally {
    closeSync(from);
    closeSync(to);
  }
}

export function readTimes(path: string): TimeSample[] {
  try {
    return readFileSync(path, 'latin1')
      .trim()
      .split('\n')
      .map((line) => ({ ms: Number(line.split(' ')[0]), size: Number(line.split(' ')[1]) }))
      .filter((t) => Number.isSafeInteger(t.ms) && Number.isSafeInteger(t.size));
  } catch {
    return [];
  }
}

/** The first sample that had seen the byte at `offset`; now, when none has. */
export function timeAt(times: readonly TimeSample[], offset: number): Date {
  let low = 0;
  let high = times.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if ((times[middle]?.size ?? 0) > offset) high = middle;
    else low = middle + 1;
  }
  const sample = times[low];
  return sample ? new Date(sample.ms) : new Date();
}

function lastSize(times: string): number {
  return readTimes(times).at(-1)?.size ?? 0;
}

function thin(times: string): void {
  const lines = readFileSync(times, 'latin1').trim().split('\n');
  // The last one stays, whichever it is.
  const kept = lines.filter((_, i) => (lines.length - 1 - i) % 2 === 0);
  writeFileSync(times, `${kept.join('\n')}\n`, { mode: 0o600 });
}

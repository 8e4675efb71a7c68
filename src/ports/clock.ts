import type { MonoMs, WallMs } from '../model/ids.ts';

/** The only door to time. `mono` counts suspend (boot time), never steps; `wall` is for people. */
export interface Clock {
  mono(): MonoMs;
  wall(): WallMs;
  /** Calls back once, at or after `at`. Returns a cancel function. */
  at(at: MonoMs, callback: (lateMs: number) => void): () => void;
}

export interface RandomSource {
  bytes(length: number): Uint8Array;
  /** Seed text for a core's own deterministic generator. */
  seed(): string;
}

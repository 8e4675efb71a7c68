import { isDeepStrictEqual } from 'node:util';
import { TaskOrgError } from '../model/errors.ts';

// What is fuzzed: one decoder each, with what a sound input looks like and how long the decoder may take.

/** How a target's inputs are built, and so how they are broken. */
export type Grammar =
  /** dag-cbor, one value. */
  | 'cbor'
  | 'json'
  /** Lines of text with the words given (`words`). */
  | 'text'
  /** Bytes of a format of its own. */
  | 'bytes';

/** 'refused': by a value or a named error, as the decoder's contract has it. */
export type Verdict = 'accepted' | 'refused';

export interface FuzzTarget {
  readonly name: string;
  readonly grammar: Grammar;
  /** Sound inputs, made by the project's own encoders; bodies, where there is a seal. */
  readonly seeds: readonly Uint8Array[];
  /** Words that mean something to the decoder, for the grammar 'text'. */
  readonly words?: readonly string[];
  /** A checksum or the like around a body: bodies are mutated and sealed again, so that what lies behind it is reached too. */
  readonly seal?: { wrap(body: Uint8Array): Uint8Array; open(sealed: Uint8Array): Uint8Array };
  /** Share of a run's inputs relative to the other targets: slow decoders get fewer. */
  readonly weight: number;
  /** Longest input, bytes: the limit of the frame or file that carries it. */
  readonly maxBytes: number;
  /** Longest time for one input of that many bytes, ms of CPU. */
  readonly limitMs: (bytes: number) => number;
  /**
   * Decodes. Throws TaskOrgError (or what `refusal` names) to refuse, FuzzFailure when a property does not hold; anything
   * else thrown is a failure too. What it starts is over when it returns.
   */
  decode(bytes: Uint8Array): Verdict | Promise<Verdict>;
  /** Errors besides TaskOrgError that are this decoder's way to refuse. */
  readonly refusal?: (error: unknown) => boolean;
}

/** A property that does not hold: what was accepted means something else the second time, or grows without bound. */
export class FuzzFailure extends Error {
  constructor(message: string) {
    super(message);
    this.name = 'FuzzFailure';
  }
}

/**
 * 50 ms, and 200 ms more for a whole frame of 1 MiB: a million empty lists take dag-cbor 150 ms, and the machine that fuzzes
 * has other things to do.
 */
export const LIMIT_MS = (bytes: number): number => 50 + (200 * bytes) / (1024 * 1024);

export const isRefusal = (target: FuzzTarget, error: unknown): boolean =>
  error instanceof TaskOrgError || target.refusal?.(error) === true;

const text = new TextEncoder();
const fromText = new TextDecoder();
export const bytesOf = (value: string): Uint8Array => text.encode(value);
export const textOf = (bytes: Uint8Array): string => fromText.decode(bytes);

/** Equal in every part. -0 is 0: dag-cbor writes both alike, and nothing here tells them apart. */
export const sameValue = (a: unknown, b: unknown): boolean =>
  isDeepStrictEqual(a, b) || isDeepStrictEqual(withoutMinusZero(a), withoutMinusZero(b));

function withoutMinusZero(value: unknown): unknown {
  if (value === 0) return 0;
  if (Array.isArray(value)) return value.map(withoutMinusZero);
  if (typeof value !== 'object' || value === null || value instanceof Uint8Array) return value;
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, withoutMinusZero(item)]));
}

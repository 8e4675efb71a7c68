import { createRng } from '../model/random.ts';
import { inputMaker } from './make-input.ts';
import { shrink } from './shrink.ts';
import { FuzzFailure, type FuzzTarget, isRefusal, type Verdict } from './target.ts';

// Runs inputs through a target. A chunk of inputs is the unit that a seed gives again.

export interface Chunk {
  readonly seed: string;
  readonly index: number;
  readonly inputs: number;
}

export interface Tally {
  inputs: number;
  accepted: number;
  refused: number;
  /** Longest decoding of one input, ms of CPU. */
  slowestMs: number;
  /** Time of it all, with the making of the inputs. */
  totalMs: number;
}
export const noTally = (): Tally => ({ inputs: 0, accepted: 0, refused: 0, slowestMs: 0, totalMs: 0 });

export interface Failure {
  readonly target: string;
  readonly reason: string;
  /** The smallest input found that fails in the same way. */
  readonly hex: string;
  readonly bytes: number;
  readonly seed: string;
}

/** Below this the clock is believed; above it CPU time decides, since others work on this machine too. */
const SUSPICIOUS_MS = 2;

/** Throws what the target's contract forbids. */
export async function judge(target: FuzzTarget, bytes: Uint8Array): Promise<Verdict> {
  try {
    const verdict = target.decode(bytes);
    return typeof verdict === 'string' ? verdict : await verdict;
  } catch (error) {
    if (isRefusal(target, error)) return 'refused';
    throw error;
  }
}

/** CPU time of one decoding, ms: the least of three, for a collection may fall into one of them. */
export async function cpuMsOf(target: FuzzTarget, bytes: Uint8Array): Promise<number> {
  let least = Number.POSITIVE_INFINITY;
  for (let i = 0; i < 3; i++) {
    const before = process.threadCpuUsage();
    await judge(target, bytes);
    const { user, system } = process.threadCpuUsage(before);
    least = Math.min(least, (user + system) / 1000);
  }
  return least;
}

/** What is wrong with this input, or undefined. `kind` stays the same while it is made smaller. */
export async function failureOf(
  target: FuzzTarget,
  bytes: Uint8Array,
): Promise<{ readonly kind: string; readonly reason: string } | undefined> {
  try {
    const ms = await cpuMsOf(target, bytes);
    const limitMs = target.limitMs(bytes.length);
    if (ms <= limitMs) return undefined;
    return {
      kind: 'slow',
      reason: `takes ${ms.toFixed(1)} ms of CPU for ${bytes.length} bytes, may take ${limitMs.toFixed(0)}`,
    };
  } catch (error) {
    const named = error instanceof Error ? error : new Error(String(error));
    const where = named instanceof FuzzFailure ? '' : (named.stack?.split('\n')[1]?.trim() ?? '');
    return {
      kind: `${named.name} ${where}`,
      reason: `${named.name}: ${named.message}${where === '' ? '' : ` ${where}`}`,
    };
  }
}

/** Runs one chunk; ends at the first input that fails, made small. `before`: told of each input, should it end the process. */
export async function runChunk(
  target: FuzzTarget,
  chunk: Chunk,
  tally: Tally,
  before?: (bytes: Uint8Array) => void,
): Promise<Failure | undefined> {
  const rng = createRng(`${chunk.seed}/${target.name}/${chunk.index}`);
  const make = inputMaker(target);
  const startedAt = performance.now();
  let failing: Uint8Array | undefined;
  for (let i = 0; i < chunk.inputs && failing === undefined; i++) {
    const bytes = make(rng);
    before?.(bytes);
    const from = performance.now();
    try {
      // A target that answers at once is not waited for: a turn of the microtask queue costs as much as a short decoding.
      const verdict = target.decode(bytes);
      tally[typeof verdict === 'string' ? verdict : await verdict] += 1;
    } catch (error) {
      if (isRefusal(target, error)) tally.refused += 1;
      else failing = bytes;
    }
    const ms = performance.now() - from;
    tally.inputs += 1;
    if (failing !== undefined || ms <= tally.slowestMs) continue;
    const real = ms > SUSPICIOUS_MS ? await cpuMsOf(target, bytes) : ms;
    tally.slowestMs = Math.max(tally.slowestMs, Math.min(ms, real));
    if (real > target.limitMs(bytes.length)) failing = bytes;
  }
  tally.totalMs += performance.now() - startedAt;
  if (failing === undefined) return undefined;
  const found = await failureOf(target, failing);
  if (found === undefined) {
    // It fails in company only: the seed still gives it again.
    return describe(target, chunk, failing, 'failed once, and not when tried again by itself');
  }
  const small = await shrink(target, failing, async (bytes) => (await failureOf(target, bytes))?.kind === found.kind);
  return describe(target, chunk, small, (await failureOf(target, small))?.reason ?? found.reason);
}

function describe(target: FuzzTarget, chunk: Chunk, bytes: Uint8Array, reason: string): Failure {
  return {
    target: target.name,
    reason,
    hex: Buffer.from(bytes).toString('hex'),
    bytes: bytes.length,
    seed: `${chunk.seed} chunk ${chunk.index}`,
  };
}

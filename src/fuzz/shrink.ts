import { join } from './mutate-bytes.ts';
import type { FuzzTarget } from './target.ts';

const MAX_TRIES = 4000;
const PATIENCE_MS = 15_000;

/**
 * The smallest input found for which `fails` still holds: pieces are cut out, from halves down to single bytes (delta
 * debugging, Zeller & Hildebrandt 2002, without its second half), then bytes are made plain. Under a seal the body is shrunk.
 */
export async function shrink(
  target: FuzzTarget,
  bytes: Uint8Array,
  fails: (bytes: Uint8Array) => Promise<boolean>,
): Promise<Uint8Array> {
  const sealed = target.seal && sameBytes(reseal(target.seal, bytes), bytes) ? target.seal : undefined;
  const close = (body: Uint8Array): Uint8Array => (sealed ? sealed.wrap(body) : body);
  let best = sealed ? sealed.open(bytes) : bytes;
  let tries = 0;
  const until = performance.now() + PATIENCE_MS;
  const better = async (candidate: Uint8Array): Promise<boolean> => {
    tries += 1;
    if (!(await fails(close(candidate)))) return false;
    best = candidate;
    return true;
  };
  const patient = (): boolean => tries < MAX_TRIES && performance.now() < until;
  for (let size = Math.ceil(best.length / 2); size >= 1 && patient(); size = size === 1 ? 0 : Math.ceil(size / 2)) {
    for (let at = 0; at < best.length && patient(); ) {
      if (!(await better(join(best.subarray(0, at), best.subarray(at + size))))) at += size;
    }
  }
  for (let at = 0; at < best.length && patient(); at++) {
    if (best[at] === 0x61 || best[at] === 0) continue;
    for (const plain of [0, 0x61]) {
      const candidate = Uint8Array.from(best);
      candidate[at] = plain;
      if (await better(candidate)) break;
    }
  }
  return close(best);
}

function reseal(seal: NonNullable<FuzzTarget['seal']>, bytes: Uint8Array): Uint8Array {
  try {
    return seal.wrap(seal.open(bytes));
  } catch {
    return new Uint8Array(0);
  }
}

const sameBytes = (a: Uint8Array, b: Uint8Array): boolean =>
  a.length === b.length && a.every((byte, i) => byte === b[i]);

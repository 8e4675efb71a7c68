import { decode } from '@ipld/dag-cbor';
import type { Rng } from '../model/random.ts';
import { mutateBytes } from './mutate-bytes.ts';
import { mutateText } from './mutate-text.ts';
import { mutateTree } from './mutate-tree.ts';
import { bytesOf, type FuzzTarget, textOf } from './target.ts';
import { type Tree, toTree, writeCbor, writeJson } from './tree.ts';

/** One input in this many is blown up towards the target's limit. */
const HUGE_ONE_IN = 3000;
/** One in this many is broken as bytes, whatever its grammar. */
const BYTES_ONE_IN = 5;

export type InputMaker = (rng: Rng) => Uint8Array;

/** The inputs of a target: the same generator gives the same ones. */
export function inputMaker(target: FuzzTarget): InputMaker {
  const structured = target.grammar === 'cbor' || target.grammar === 'json';
  const trees: Tree[] = structured
    ? target.seeds.map((seed) => toTree(target.grammar === 'cbor' ? decode(seed) : JSON.parse(textOf(seed))))
    : [];
  const texts = target.grammar === 'text' ? target.seeds.map(textOf) : [];
  const write = (tree: Tree): Uint8Array => (target.grammar === 'cbor' ? writeCbor(tree) : bytesOf(writeJson(tree)));
  const body = (rng: Rng): Uint8Array => {
    const at = rng.int(0, target.seeds.length - 1);
    const other = rng.int(0, target.seeds.length - 1);
    const hugeBytes = rng.next() * HUGE_ONE_IN < 1 ? hugeSize(rng, target.maxBytes) : 0;
    if (target.grammar === 'bytes' || (hugeBytes === 0 && rng.next() * BYTES_ONE_IN < 1))
      return mutateBytes(target.seeds[at] as Uint8Array, rng, target.seeds[other] as Uint8Array, hugeBytes);
    if (target.grammar === 'text')
      return bytesOf(mutateText(texts[at] as string, rng, texts[other] as string, target.words ?? [], hugeBytes));
    return write(mutateTree(trees[at] as Tree, rng, { hugeBytes, donor: trees[other] as Tree }));
  };
  return (rng) => {
    const made = body(rng);
    // Every fourth sealed one is left with a seal that is broken.
    const whole = target.seal !== undefined && rng.next() < 0.75 ? target.seal.wrap(made) : made;
    return whole.length > target.maxBytes ? whole.slice(0, target.maxBytes) : whole;
  };
}

/** Every order of magnitude as likely as another. */
const hugeSize = (rng: Rng, maxBytes: number): number => Math.floor(256 * (maxBytes / 256) ** rng.next());

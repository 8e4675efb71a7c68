import type { Rng } from '../model/random.ts';
import { copyTree, Pairs, Raw, type Tree } from './tree.ts';

// Breaks a value at random nodes. Small changes come most often, so that many inputs still fit their schema and what lies
// behind it is reached; now and then something is made huge, deep or of another kind.

/** Names that reach into JavaScript's own objects, and names that decoders look at. */
export const NASTY_KEYS = [
  '__proto__',
  'constructor',
  'prototype',
  'toString',
  'hasOwnProperty',
  'then',
  'toJSON',
  'length',
  'type',
  'v',
  '',
  '/',
  '\u0000',
  'x'.repeat(300),
];
const NASTY_NUMBERS: readonly Tree[] = [
  0,
  -0,
  1,
  -1,
  2,
  255,
  65_535,
  65_536,
  2 ** 31 - 1,
  2 ** 31,
  2 ** 32,
  Number.MAX_SAFE_INTEGER - 1,
  Number.MAX_SAFE_INTEGER,
  2n ** 53n,
  2n ** 64n - 1n,
  -(2n ** 63n),
  0.5,
  1e-7,
  1e300,
  Number.NaN,
  Number.POSITIVE_INFINITY,
];
const NASTY_TEXTS = [
  '',
  '__proto__',
  'constructor',
  '../../etc/passwd',
  '\u0000',
  'a/b',
  '.',
  '..',
  '\ud800',
  'İ\u0307ß\u{1f4a9}\u202e',
  '0',
  '-1',
  '1e309',
  'true',
  '~',
  '%s%n',
  '$(x)',
  'a'.repeat(129),
  'a'.repeat(5000),
  '\n',
];

const nest = (depth: number): Raw =>
  new Raw(new Uint8Array(depth + 1).fill(0x81, 0, depth).fill(0xf6, depth), `${'['.repeat(depth)}${']'.repeat(depth)}`);
const nestMaps = (depth: number): Raw => {
  const cbor = new Uint8Array(depth * 3 + 1);
  for (let i = 0; i < depth; i++) cbor.set([0xa1, 0x61, 0x61], i * 3);
  cbor[depth * 3] = 0xf6;
  return new Raw(cbor, `${'{"a":'.repeat(depth)}null${'}'.repeat(depth)}`);
};
const ODD: readonly (() => Tree)[] = [
  () => null,
  () => true,
  () => [],
  () => new Pairs([]),
  () => new Uint8Array(0),
  () => new Uint8Array(64),
  () => [null],
  () => new Pairs([['__proto__', new Pairs([['type', 'ping']])]]),
  () => nest(40),
  () => nestMaps(40),
  // undefined; a tag that dag-cbor has not; a CID; a half float; a list without end; a number that is longer than it must be.
  () => new Raw([0xf7], 'undefined'),
  () => new Raw([0xc1, 0x00], '1.'),
  () => new Raw([0xd8, 0x2a, 0x45, 0, 1, 0x55, 0, 0], '"bafkqaaa"'),
  () => new Raw([0xf9, 0x3c, 0x00], '01'),
  () => new Raw([0x9f, 0x01, 0xff], '[1,]'),
  () => new Raw([0x18, 0x01], '0x1'),
  () => new Raw([0x5b, 0, 0, 0, 1, 0, 0, 0, 0], '"'),
  () => new Raw([0x9a, 0xff, 0xff, 0xff, 0xff], '['),
  () => new Raw([0xbb, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], '{'),
];

interface Place {
  readonly parent: Tree[] | Pairs;
  readonly at: number;
}

/** One node, each as likely as another. */
function pickPlace(root: Tree, rng: Rng): Place | undefined {
  let chosen: Place | undefined;
  let seen = 0;
  const walk = (tree: Tree): void => {
    if (!Array.isArray(tree) && !(tree instanceof Pairs)) return;
    const count = Array.isArray(tree) ? tree.length : tree.entries.length;
    for (let at = 0; at < count; at++) {
      seen += 1;
      if (rng.next() * seen < 1) chosen = { parent: tree, at };
      walk((Array.isArray(tree) ? tree[at] : tree.entries[at]?.[1]) as Tree);
    }
  };
  walk(root);
  return chosen;
}

const valueAt = ({ parent, at }: Place): Tree => (Array.isArray(parent) ? parent[at] : parent.entries[at]?.[1]) as Tree;

function setAt({ parent, at }: Place, value: Tree): void {
  if (Array.isArray(parent)) parent[at] = value;
  else (parent.entries[at] as [string, Tree])[1] = value;
}

export interface TreeMutation {
  /** Bytes that one thing may be blown up to; 0 = none is. */
  readonly hugeBytes: number;
  /** Another sound value, to take parts from. */
  readonly donor: Tree;
}

export function mutateTree(original: Tree, rng: Rng, options: TreeMutation): Tree {
  // The root in a list of its own: it is a node as any other.
  const root: Tree[] = [copyTree(original)];
  if (options.hugeBytes > 0) blowUp(root, rng, options.hugeBytes);
  const times = rng.next() < 0.6 ? 1 : rng.int(2, 6);
  for (let i = 0; i < times; i++) {
    const place = pickPlace(root, rng);
    if (place) mutateAt(place, root, rng, options.donor);
  }
  return root[0] ?? null;
}

function mutateAt(place: Place, root: Tree, rng: Rng, donor: Tree): void {
  const { parent, at } = place;
  const value = valueAt(place);
  const roll = rng.next();
  if (roll < 0.45) return setAt(place, tweak(value, rng));
  if (roll < 0.58) return setAt(place, (rng.pick(ODD) as () => Tree)());
  if (roll < 0.66) {
    // Something that stands elsewhere in this value.
    const other = pickPlace(root, rng);
    if (other) setAt(place, copyTree(valueAt(other)));
    return;
  }
  if (roll < 0.74) {
    const other = pickPlace([donor], rng);
    if (other) setAt(place, copyTree(valueAt(other)));
    return;
  }
  if (Array.isArray(parent)) {
    if (roll < 0.84) parent.splice(at, 1);
    else if (roll < 0.94) parent.splice(at, 0, copyTree(value));
    else parent.splice(at, 0, (rng.pick(ODD) as () => Tree)());
    return;
  }
  const { entries } = parent;
  const entry = entries[at] as [string, Tree];
  if (roll < 0.82) entries.splice(at, 1);
  else if (roll < 0.88) entries.push([entry[0], copyTree(entry[1])]);
  else if (roll < 0.94) entry[0] = rng.pick(NASTY_KEYS) as string;
  else entries.push([rng.pick(NASTY_KEYS) as string, copyTree(value)]);
}

/** A near relative of the same kind. */
export function tweak(value: Tree, rng: Rng): Tree {
  if (typeof value === 'boolean') return !value;
  if (typeof value === 'number') {
    const roll = rng.next();
    if (roll < 0.4) return value + rng.int(-2, 2);
    if (roll < 0.5) return value * 2;
    if (roll < 0.6) return rng.int(0, 1000);
    return rng.pick(NASTY_NUMBERS) as Tree;
  }
  if (typeof value === 'string') {
    const roll = rng.next();
    if (roll < 0.35) return rng.pick(NASTY_TEXTS) as string;
    const at = rng.int(0, value.length);
    if (roll < 0.55) return value.slice(0, at) + String.fromCharCode(rng.int(32, 126)) + value.slice(at);
    if (roll < 0.75) return value.slice(0, at) + value.slice(at + 1);
    if (roll < 0.9) return value.slice(0, at) + String.fromCharCode(rng.int(32, 126)) + value.slice(at + 1);
    return value + value;
  }
  if (value instanceof Uint8Array) {
    const bytes = Uint8Array.from(value);
    if (bytes.length > 0) bytes[rng.int(0, bytes.length - 1)] = rng.int(0, 255);
    return rng.next() < 0.5 ? bytes : bytes.subarray(0, rng.int(0, bytes.length));
  }
  if (value === null) return rng.pick([0, '', false, []] as readonly Tree[]) as Tree;
  return rng.pick(NASTY_NUMBERS) as Tree;
}

/** One node many times over, one very long text, very many fields, or very deep. */
function blowUp(root: Tree[], rng: Rng, bytes: number): void {
  const place = pickPlace(root, rng);
  if (!place) return;
  const value = valueAt(place);
  const each = Math.max(1, roughBytes(value));
  switch (rng.int(0, 5)) {
    case 0:
      return setAt(place, 'ab/.'.repeat(Math.floor(bytes / 4)));
    case 1:
      return setAt(place, nest(bytes));
    case 2:
      return setAt(place, nestMaps(Math.floor(bytes / 3)));
    case 3: {
      const into = value instanceof Pairs ? value.entries : [];
      const more = Array.from({ length: Math.floor(bytes / 10) }, (_, i): [string, Tree] => [`k${i}`, i % 24]);
      return setAt(place, new Pairs([...into, ...more]));
    }
    default: {
      const list = Array.isArray(value) ? value : [value];
      const one = list.length > 0 ? list : [null];
      const times = Math.max(1, Math.floor(bytes / each));
      return setAt(
        place,
        Array.from({ length: times }, (_, i) => one[i % one.length] as Tree),
      );
    }
  }
}

function roughBytes(tree: Tree): number {
  if (typeof tree === 'string' || tree instanceof Uint8Array) return tree.length + 2;
  if (Array.isArray(tree)) return tree.reduce<number>((sum, item) => sum + roughBytes(item), 2);
  if (tree instanceof Pairs) return tree.entries.reduce((sum, [k, v]) => sum + k.length + 2 + roughBytes(v), 2);
  return tree instanceof Raw ? tree.cbor.length : 3;
}

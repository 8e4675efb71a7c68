// A value as a tree that can be broken in ways no honest encoder writes: keys twice, numbers beyond their range, raw bytes in
// the place of a value. Written as dag-cbor or as JSON.

/** A map with its entries in order; a key may stand twice. */
export class Pairs {
  readonly entries: [string, Tree][];
  constructor(entries: [string, Tree][]) {
    this.entries = entries;
  }
}
/** Bytes (or text) put in as they are. */
export class Raw {
  readonly cbor: Uint8Array;
  readonly json: string;
  constructor(cbor: readonly number[] | Uint8Array, json: string) {
    this.cbor = Uint8Array.from(cbor);
    this.json = json;
  }
}
export type Tree = null | boolean | number | bigint | string | Uint8Array | Tree[] | Pairs | Raw;

export function toTree(value: unknown): Tree {
  if (Array.isArray(value)) return value.map(toTree);
  if (value === null || value === undefined) return null;
  if (value instanceof Uint8Array) return value;
  if (typeof value === 'object') return new Pairs(Object.entries(value).map(([k, v]) => [k, toTree(v)]));
  return value as Tree;
}

export function copyTree(tree: Tree): Tree {
  if (Array.isArray(tree)) return tree.map(copyTree);
  if (tree instanceof Pairs) return new Pairs(tree.entries.map(([k, v]) => [k, copyTree(v)]));
  return tree;
}

// ---- dag-cbor --------------------------------------------------------------------------------------------------------

const encoder = new TextEncoder();

/** Grows as it is written; one is used again and again. */
class Writer {
  #bytes = new Uint8Array(4096);
  #at = 0;
  reset(): void {
    this.#at = 0;
  }
  #room(count: number): void {
    if (this.#at + count <= this.#bytes.length) return;
    const larger = new Uint8Array(Math.max(this.#bytes.length * 2, this.#at + count));
    larger.set(this.#bytes.subarray(0, this.#at));
    this.#bytes = larger;
  }
  put(bytes: Uint8Array): void {
    this.#room(bytes.length);
    this.#bytes.set(bytes, this.#at);
    this.#at += bytes.length;
  }
  head(major: number, value: number | bigint): void {
    this.#room(9);
    const b = this.#bytes;
    const n = Number(value);
    if (n < 24) b[this.#at++] = major | n;
    else if (n < 0x1_0000_0000) {
      const [kind, width] = n < 0x100 ? [24, 1] : n < 0x1_0000 ? [25, 2] : [26, 4];
      b[this.#at++] = major | kind;
      for (let shift = 8 * (width - 1); shift >= 0; shift -= 8) b[this.#at++] = (n >>> shift) & 0xff;
    } else {
      b[this.#at++] = major | 27;
      new DataView(b.buffer).setBigUint64(this.#at, BigInt.asUintN(64, BigInt(value)));
      this.#at += 8;
    }
  }
  byte(value: number): void {
    this.#room(1);
    this.#bytes[this.#at++] = value;
  }
  float(value: number): void {
    this.#room(9);
    this.#bytes[this.#at++] = 0xfb;
    new DataView(this.#bytes.buffer).setFloat64(this.#at, value);
    this.#at += 8;
  }
  text(value: string): void {
    if (value.length < 24 && this.#ascii(value)) return;
    const bytes = encoder.encode(value);
    this.head(0x60, bytes.length);
    this.put(bytes);
  }
  /** Short words are most of what is written, and an encoder costs more than they do. */
  #ascii(value: string): boolean {
    this.#room(value.length + 1);
    const start = this.#at;
    this.#bytes[this.#at++] = 0x60 | value.length;
    for (let i = 0; i < value.length; i++) {
      const code = value.charCodeAt(i);
      if (code > 0x7f) {
        this.#at = start;
        return false;
      }
      this.#bytes[this.#at++] = code;
    }
    return true;
  }
  take(): Uint8Array {
    return this.#bytes.slice(0, this.#at);
  }
}

const writer = new Writer();

export function writeCbor(tree: Tree): Uint8Array {
  writer.reset();
  cborInto(writer, tree);
  return writer.take();
}

function cborInto(w: Writer, tree: Tree): void {
  if (tree === null) w.byte(0xf6);
  else if (typeof tree === 'boolean') w.byte(tree ? 0xf5 : 0xf4);
  else if (typeof tree === 'string') w.text(tree);
  else if (typeof tree === 'bigint') w.head(tree < 0n ? 0x20 : 0, tree < 0n ? -1n - tree : tree);
  else if (typeof tree === 'number') {
    if (!Number.isInteger(tree) || Math.abs(tree) > 2 ** 64) w.float(tree);
    else if (tree < 0) w.head(0x20, -1 - tree);
    else w.head(0, tree);
  } else if (tree instanceof Uint8Array) {
    w.head(0x40, tree.length);
    w.put(tree);
  } else if (Array.isArray(tree)) {
    w.head(0x80, tree.length);
    for (const item of tree) cborInto(w, item);
  } else if (tree instanceof Raw) w.put(tree.cbor);
  else {
    w.head(0xa0, tree.entries.length);
    // In the order that dag-cbor demands, so that no map is refused for its order alone; byte mutations break that too.
    for (const [key, value] of [...tree.entries].sort(
      ([a], [b]) => a.length - b.length || (a < b ? -1 : a > b ? 1 : 0),
    )) {
      w.text(key);
      cborInto(w, value);
    }
  }
}

// ---- JSON ------------------------------------------------------------------------------------------------------------

export function writeJson(tree: Tree): string {
  if (tree instanceof Raw) return tree.json;
  if (typeof tree === 'bigint') return String(tree);
  if (typeof tree === 'number') return Number.isFinite(tree) ? String(tree) : '1e999';
  if (tree instanceof Uint8Array) return JSON.stringify(Buffer.from(tree).toString('base64'));
  if (Array.isArray(tree)) return `[${tree.map(writeJson).join(',')}]`;
  if (tree instanceof Pairs)
    return `{${tree.entries.map(([k, v]) => `${JSON.stringify(k)}:${writeJson(v)}`).join(',')}}`;
  return JSON.stringify(tree);
}

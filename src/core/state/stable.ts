// Values compared and hashed by what they hold, whatever the order in which their keys were set.

/** JSON with keys sorted; undefined fields left out. */
export function stableText(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(stableText).join(',')}]`;
  if (typeof value !== 'object' || value === null) return JSON.stringify(value) ?? 'null';
  const record = value as Record<string, unknown>;
  const parts = Object.keys(record)
    .filter((k) => record[k] !== undefined)
    .sort()
    .map((k) => `${JSON.stringify(k)}:${stableText(record[k])}`);
  return `{${parts.join(',')}}`;
}

export const sameValue = (a: unknown, b: unknown): boolean => a === b || stableText(a) === stableText(b);

export interface Hash {
  add(text: string): void;
  /** 32 hex digits. */
  digest(): string;
}

/** Four lanes of murmur3-style mixing. For telling states apart, not for secrets. */
export function createHash(): Hash {
  const lanes = [0x9e3779b9, 0x85ebca6b, 0xc2b2ae35, 0x27d4eb2f];
  const factors = [0xcc9e2d51, 0x1b873593, 0xe6546b64, 0x2c1b3c6d];
  let [a, b, c, d] = lanes as [number, number, number, number];
  const [fa, fb, fc, fd] = factors as [number, number, number, number];
  const mix = (word: number): void => {
    a = rotate(a ^ Math.imul(word, fa), 13) + b;
    b = rotate(b ^ Math.imul(word, fb), 17) + c;
    c = rotate(c ^ Math.imul(word, fc), 19) + d;
    d = rotate(d ^ Math.imul(word, fd), 23) + a;
  };
  return {
    add(text) {
      mix(text.length);
      for (let i = 0; i < text.length; i++) mix(text.charCodeAt(i));
    },
    digest() {
      for (let i = 0; i < 8; i++) mix(i);
      return [a, b, c, d].map((n) => (n >>> 0).toString(16).padStart(8, '0')).join('');
    },
  };
}

const rotate = (n: number, by: number): number => (n << by) | (n >>> (32 - by)) | 0;

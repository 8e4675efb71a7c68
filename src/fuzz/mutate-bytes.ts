import type { Rng } from '../model/random.ts';

// Breaks bytes without knowing what they mean: what a bad disk, a bad cable or a bad program would make of them.

const LENGTHS = [0, 1, 0x7f, 0x80, 0xff, 0x7fff, 0xffff, 0x10000, 0x100000, 0x7fffffff, 0x80000000, 0xffffffff];

export function mutateBytes(original: Uint8Array, rng: Rng, donor: Uint8Array, hugeBytes = 0): Uint8Array {
  let bytes = Uint8Array.from(original);
  if (hugeBytes > 0 && bytes.length > 0) bytes = repeated(bytes, rng, hugeBytes);
  const times = rng.next() < 0.6 ? 1 : rng.int(2, 6);
  for (let i = 0; i < times; i++) bytes = once(bytes, rng, donor);
  return bytes;
}

function once(bytes: Uint8Array<ArrayBuffer>, rng: Rng, donor: Uint8Array): Uint8Array<ArrayBuffer> {
  const at = rng.int(0, Math.max(0, bytes.length - 1));
  switch (rng.int(0, 8)) {
    case 0:
      if (bytes.length > 0) bytes[at] = (bytes[at] as number) ^ (1 << rng.int(0, 7));
      return bytes;
    case 1:
      if (bytes.length > 0) bytes[at] = rng.int(0, 255);
      return bytes;
    case 2:
      return join(bytes.subarray(0, at), random(rng, rng.int(1, 8)), bytes.subarray(at));
    case 3:
      return join(bytes.subarray(0, at), bytes.subarray(at + rng.int(1, 8)));
    case 4:
      return bytes.slice(0, at);
    case 5:
      return join(bytes.subarray(0, at), donor.subarray(rng.int(0, donor.length)));
    case 6: {
      // What may be a length, in either order.
      if (bytes.length < 4) return bytes;
      const place = rng.int(0, bytes.length - 4);
      new DataView(bytes.buffer).setUint32(place, rng.pick(LENGTHS) as number, rng.next() < 0.3);
      return bytes;
    }
    case 7: {
      const end = rng.int(at, Math.min(bytes.length, at + 32));
      return join(bytes.subarray(0, end), bytes.subarray(at, end), bytes.subarray(end));
    }
    default:
      return join(bytes, random(rng, rng.int(1, 16)));
  }
}

/** Some stretch of it, often its end, many times over. */
function repeated(bytes: Uint8Array<ArrayBuffer>, rng: Rng, hugeBytes: number): Uint8Array<ArrayBuffer> {
  const from = rng.int(0, bytes.length - 1);
  const part = bytes.subarray(from, rng.next() < 0.5 ? bytes.length : rng.int(from + 1, bytes.length));
  const out = new Uint8Array(bytes.length + Math.floor(hugeBytes / part.length) * part.length);
  out.set(bytes);
  for (let at = bytes.length; at < out.length; at += part.length) out.set(part, at);
  return out;
}

export function random(rng: Rng, length: number): Uint8Array {
  return Uint8Array.from({ length }, () => rng.int(0, 255));
}

export function join(...parts: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  const out = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    out.set(part, at);
    at += part.length;
  }
  return out;
}

import { decode, encode } from '@ipld/dag-cbor';

// dag-cbor as this project uses it: canonical (the same value gives the same bytes), bounded, and never throwing on what
// others wrote.

/** Fields that are undefined are left out and numbers that are not finite become 0, where dag-cbor alone would throw. */
export function encodeCbor(value: unknown): Uint8Array {
  try {
    return encode(value);
  } catch {
    return encode(clean(value));
  }
}

/** The value, or why it cannot be read. */
export function decodeCbor(
  bytes: Uint8Array,
  maxBytes: number,
): { readonly ok: true; readonly value: unknown } | { readonly ok: false; readonly error: string } {
  if (bytes.length > maxBytes) return { ok: false, error: `${bytes.length} bytes, more than ${maxBytes}` };
  try {
    return { ok: true, value: decode(bytes) };
  } catch (error) {
    return { ok: false, error: error instanceof Error ? error.message : String(error) };
  }
}

function clean(value: unknown): unknown {
  if (typeof value === 'number') return Number.isFinite(value) ? value : 0;
  if (Array.isArray(value)) return value.map((v) => (v === undefined ? null : clean(v)));
  if (typeof value !== 'object' || value === null || value instanceof Uint8Array) return value;
  return Object.fromEntries(
    Object.entries(value)
      .filter(([, v]) => v !== undefined)
      .map(([k, v]) => [k, clean(v)]),
  );
}

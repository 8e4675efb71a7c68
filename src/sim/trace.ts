// A running hash over all that happens: every event with its machine and time, every effect. Two runs of one seed are the
// same run only if these agree.

type Plain = { readonly type?: unknown; readonly [key: string]: unknown };

export interface Trace {
  event(at: number, machine: number, event: Plain): void;
  effect(effect: Plain): void;
  /** 16 hex digits of everything so far. */
  digest(): string;
}

export function createTrace(): Trace {
  let a = 0x9e3779b9 | 0;
  let b = 0x85ebca6b | 0;
  const float = new Float64Array(1);
  const words = new Int32Array(float.buffer);
  const codes = new Map<string, number>();

  const mix = (word: number): void => {
    a = Math.imul(a ^ word, 0x2c1b3c6d);
    a ^= a >>> 15;
    b = (Math.imul(b, 31) + a) | 0;
  };
  const number = (n: number): void => {
    if (n === (n | 0)) return mix(n);
    float[0] = n;
    mix(words[0] as number);
    mix(words[1] as number);
  };
  /** Names are few, so each is hashed once. */
  const name = (text: string): void => {
    let code = codes.get(text);
    if (code === undefined) {
      code = text.length;
      for (let i = 0; i < text.length; i++) code = Math.imul(code ^ text.charCodeAt(i), 0x01000193);
      if (codes.size < 10_000) codes.set(text, code);
    }
    mix(code);
  };
  /** Type, channel and all plain fields; nested messages one level down; of lists the length. */
  const fields = (o: Plain, depth: number): void => {
    for (const key in o) {
      const value = o[key];
      if (typeof value === 'number') number(value);
      else if (typeof value === 'string') name(value);
      else if (typeof value === 'boolean') mix(value ? 1 : 2);
      else if (Array.isArray(value)) mix(value.length);
      else if (depth > 0 && typeof value === 'object' && value !== null && !(value instanceof Uint8Array))
        fields(value as Plain, depth - 1);
    }
  };

  return {
    event: (at, machine, event) => {
      number(at);
      mix(machine);
      fields(event, 1);
    },
    effect: (effect) => fields(effect, 1),
    digest: () => [a, b].map((n) => (n >>> 0).toString(16).padStart(8, '0')).join(''),
  };
}

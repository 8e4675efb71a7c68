import { type ErrorCode, TaskOrgError, toTaskOrgError } from '../../model/errors.ts';

// Frames of logs and exec streams, the same between peers and between client and peer:
// one byte of kind, four bytes of length (big endian), the body.

export const FRAME = { stdin: 0, stdout: 1, stderr: 2, exit: 3, resize: 4, endOfInput: 5, error: 6 } as const;
export type FrameKind = (typeof FRAME)[keyof typeof FRAME];

/** Largest body of one frame, bytes. */
export const MAX_FRAME_BODY = 1024 * 1024;
const HEADER = 5;

export interface StreamFrame {
  readonly kind: FrameKind;
  readonly body: Uint8Array;
}

export function encodeFrame(kind: FrameKind, body: Uint8Array | string = new Uint8Array(0)): Uint8Array {
  const bytes = typeof body === 'string' ? new TextEncoder().encode(body) : body;
  const out = new Uint8Array(HEADER + bytes.length);
  out[0] = kind;
  new DataView(out.buffer).setUint32(1, bytes.length);
  out.set(bytes, HEADER);
  return out;
}

/** The last frame of a stream that failed: JSON `{code, message, hint?}`. */
export function encodeError(cause: unknown): Uint8Array {
  const { code, message, hint } = toTaskOrgError(cause);
  return encodeFrame(FRAME.error, JSON.stringify({ code, message, ...(hint === undefined ? {} : { hint }) }));
}

/** The error of an error frame; whatever else stands in it is taken as its message. */
export function errorOfFrame(body: Uint8Array): TaskOrgError {
  const text = new TextDecoder().decode(body);
  try {
    const e = JSON.parse(text) as { code?: unknown; message?: unknown; hint?: unknown };
    if (typeof e.code === 'string' && typeof e.message === 'string')
      return new TaskOrgError(e.code as ErrorCode, e.message, typeof e.hint === 'string' ? { hint: e.hint } : {});
  } catch {
    // Falls through to the text itself.
  }
  return new TaskOrgError('runtime_failed', text.slice(0, 4096));
}

/** Splits a byte stream into frames. Throws too_large or refused (cut short, unknown kind). */
export async function* decodeFrames(source: AsyncIterable<Uint8Array>): AsyncGenerator<StreamFrame> {
  // Every byte is copied into it once, in however small pieces the stream comes.
  let buffer = new Uint8Array(HEADER + 64 * 1024);
  let filled = 0;
  for await (const chunk of source) {
    if (filled + chunk.length > buffer.length) {
      const larger = new Uint8Array(Math.max(buffer.length * 2, filled + chunk.length));
      larger.set(buffer.subarray(0, filled));
      buffer = larger;
    }
    buffer.set(chunk, filled);
    filled += chunk.length;
    let at = 0;
    while (filled - at >= HEADER) {
      const length = new DataView(buffer.buffer, at).getUint32(1);
      if (length > MAX_FRAME_BODY) throw new TaskOrgError('too_large', 'a stream frame exceeds its limit');
      if (filled - at < HEADER + length) break;
      const kind = buffer[at] as number;
      if (kind > FRAME.error) throw new TaskOrgError('refused', `unknown stream frame ${kind}`);
      yield { kind: kind as FrameKind, body: buffer.slice(at + HEADER, at + HEADER + length) };
      at += HEADER + length;
    }
    if (at === 0) continue;
    buffer.copyWithin(0, at, filled);
    filled -= at;
  }
  if (filled > 0) throw new TaskOrgError('refused', 'the stream was cut short', { retryable: true });
}

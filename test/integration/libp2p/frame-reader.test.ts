import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { FrameError, FrameReader, frame } from '../../../src/adapters/libp2p/frame-reader.ts';

describe('frame reader', () => {
  test('gives the same frames however the bytes are cut', () => {
    const frames = fc.array(fc.uint8Array({ minLength: 1, maxLength: 300 }), { maxLength: 12 });
    fc.assert(
      fc.property(frames, fc.array(fc.integer({ min: 1, max: 97 }), { minLength: 1 }), (sent, cuts) => {
        const bytes = Buffer.concat(sent.map((payload) => frame(payload)));
        const got: string[] = [];
        const reader = new FrameReader(300, (payload) => got.push(Buffer.from(payload).toString('hex')));
        for (let at = 0, i = 0; at < bytes.length; i++) {
          const size = cuts[i % cuts.length] ?? 1;
          reader.push(bytes.subarray(at, at + size));
          at += size;
        }
        expect(got).toEqual(sent.map((payload) => Buffer.from(payload).toString('hex')));
        expect(reader.pendingBytes).toBe(0);
      }),
    );
  });

  test('never throws anything but FrameError, whatever arrives', () => {
    fc.assert(
      fc.property(fc.array(fc.uint8Array({ maxLength: 64 })), (chunks) => {
        const reader = new FrameReader(32, (payload) => expect(payload.length).toBeLessThanOrEqual(32));
        try {
          for (const chunk of chunks) reader.push(chunk);
        } catch (cause) {
          expect(cause).toBeInstanceOf(FrameError);
        }
      }),
    );
  });
});

import { expect, it } from 'vitest';
import { ChunkQueue } from '../../../src/adapters/libp2p/chunk-queue.ts';
import { createRng } from '../../../src/model/random.ts';

it('gives back what was put in, in order, however it comes and is taken', () => {
  for (let seed = 0; seed < 50; seed++) {
    const rng = createRng(seed);
    const queue = new ChunkQueue();
    const put: number[] = [];
    const got: number[] = [];
    for (let i = 0; i < 400; i++) {
      const chunk = Uint8Array.from({ length: rng.next() < 0.1 ? rng.int(0, 3000) : rng.int(0, 40) }, () =>
        rng.int(0, 255),
      );
      put.push(...chunk);
      queue.push(chunk);
      if (rng.next() < 0.3) got.push(...(queue.shift() ?? []));
      if (rng.next() < 0.2 && queue.bytes > 0) got.push(...queue.take(rng.int(1, queue.bytes)));
      expect(queue.bytes).toBe(put.length - got.length);
    }
    if (queue.bytes > 0) got.push(...queue.take(queue.bytes));
    expect(got).toEqual(put);
    expect(queue.shift()).toBeUndefined();
  }
});

it('a million single bytes take no longer than they should, and are let go of', () => {
  const queue = new ChunkQueue();
  const one = Uint8Array.of(7);
  for (let i = 0; i < 1_000_000; i++) queue.push(one);
  let chunks = 0;
  for (let chunk = queue.shift(); chunk !== undefined; chunk = queue.shift()) chunks += 1;
  expect(chunks).toBeLessThan(1_000_000 / 1000);
});

import fc from 'fast-check';
import { expect, test } from 'vitest';
import { createWakeQueue } from '../../../src/core/lease/wake-queue.ts';

test('behaves as a plain map of times, whatever is set, moved and deleted', () => {
  const op = fc.tuple(
    fc.constantFrom('set', 'earlier', 'delete', 'due'),
    fc.integer({ min: 0, max: 20 }),
    fc.integer({ min: 0, max: 1000 }),
  );
  fc.assert(
    fc.property(fc.array(op, { maxLength: 400 }), (ops) => {
      const queue = createWakeQueue();
      const model = new Map<string, number>();
      for (const [what, k, at] of ops) {
        const name = `k${k}`;
        if (what === 'set') {
          queue.set(name, at);
          model.set(name, at);
        } else if (what === 'earlier') {
          queue.setEarlier(name, at);
          model.set(name, Math.min(at, model.get(name) ?? at));
        } else if (what === 'delete') {
          queue.delete(name);
          model.delete(name);
        } else {
          const due = [...model].filter(([, t]) => t <= at).map(([n]) => n);
          expect(queue.due(at).sort()).toEqual(due.sort());
          for (const n of due) model.delete(n);
        }
        expect(queue.next()).toBe(model.size === 0 ? undefined : Math.min(...model.values()));
        expect(queue.size).toBe(model.size);
      }
    }),
    { numRuns: 100 },
  );
});

import { expect, it } from 'vitest';
import { createInOrder } from '../../../src/core/peer/in-order.ts';

it('effects that an effect brings about wait for those before them', () => {
  const seen: string[] = [];
  const inOrder = createInOrder<string>((effect) => {
    seen.push(effect);
    if (effect === 'read ready') inOrder(['committed 79']);
  });
  inOrder(['read ready', 'committed 77', 'committed 78']);
  expect(seen).toEqual(['read ready', 'committed 77', 'committed 78', 'committed 79']);
});

import { expect, test } from 'vitest';
import { createCaretaker } from '../../../src/core/caretaker/caretaker.ts';
import type { CaretakerContext } from '../../../src/core/caretaker/types.ts';
import { createState } from '../../../src/core/state/state.ts';
import { type MonoMs, monoMs, nodeId } from '../../../src/model/ids.ts';

const A = nodeId('a');

/** One voter of three, the others gone; `alive` are in reach and have no vote. */
const alone = (alive: readonly string[]): CaretakerContext =>
  ({
    state: createState(),
    members: new Map(alive.map((id) => [nodeId(id), { status: 'alive' }])),
    facts: new Map(),
    consensus: {
      role: 'follower',
      leader: null,
      lastIndex: 1,
      membership: { voters: [A, nodeId('b'), nodeId('d')], outgoing: null },
    },
    lastTerm: 1,
    evidenceOf: () => [],
  }) as unknown as CaretakerContext;

test('what is due at an instant is done at that instant, however the clock rounds', () => {
  for (let i = 0; i < 2000; i++) {
    const caretaker = createCaretaker(A, 0);
    let now: MonoMs = monoMs(129_189.787_774_629_2 + i * 17.123_456_7);
    for (let turn = 0; turn < 8 && caretaker.caretaker() === null; turn++) {
      // `c` never bids: the wait for better bids is slept through as well.
      caretaker.evaluate(alone(['c']), now);
      const next = caretaker.nextWake();
      if (caretaker.caretaker() === null) expect(next).toBeGreaterThan(now);
      now = next ?? now;
    }
    expect(caretaker.caretaker()).toBe(A);
  }
});

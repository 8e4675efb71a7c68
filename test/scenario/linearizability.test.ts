import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  checkLinearizable,
  NAME,
  type NameInput,
  type Operation,
  REGISTER,
  type RegisterInput,
  withoutUnseen,
} from '../../src/scenario/linearizability.ts';

// The checker itself, on histories whose verdict is known: it must refuse the bad ones, else its 'linearizable' says nothing.

type Op = Operation<RegisterInput, string>;
const write = (from: number, to: number | null, value: string): Op => ({
  calledAt: from,
  returnedAt: to,
  input: { do: 'write', value },
  output: to === null ? undefined : 'ok',
});
const read = (from: number, to: number, value: string): Op => ({
  calledAt: from,
  returnedAt: to,
  input: { do: 'read' },
  output: value,
});
const kind = (...history: readonly Op[]): string => checkLinearizable(REGISTER, history).kind;

describe('histories of a register', () => {
  it.each<[string, readonly Op[]]>([
    ['nothing', []],
    ['one after the other', [write(0, 1, 'a'), read(2, 3, 'a'), write(4, 5, 'b'), read(6, 7, 'b')]],
    [
      'overlapping reads on either side of a write (Herlihy and Wing 1990, figure 1b)',
      [write(0, 10, 'a'), read(1, 2, ''), read(3, 4, 'a')],
    ],
    [
      'two writes at once, either may be last',
      [write(0, 10, 'a'), write(0, 10, 'b'), read(11, 12, 'a'), read(13, 14, 'a')],
    ],
    ['an unanswered write that was seen', [write(0, null, 'a'), read(5, 6, ''), read(7, 8, 'a')]],
    ['an unanswered write that never was', [write(0, null, 'a'), write(1, 2, 'b'), read(5, 6, 'b'), read(7, 8, 'b')]],
    [
      'a write seen by a read that overlaps it, and by all after',
      [write(0, 10, 'a'), read(1, 3, 'a'), read(4, 5, 'a')],
    ],
  ])('good: %s', (_, history) => {
    expect(kind(...history)).toBe('linearizable');
  });

  it.each<[string, readonly Op[], number]>([
    ['a stale read', [write(0, 1, 'a'), write(2, 3, 'b'), read(4, 5, 'a')], 2],
    ['a lost write', [write(0, 1, 'a'), read(2, 3, '')], 1],
    ['a value nobody wrote', [write(0, 1, 'a'), read(2, 3, 'x')], 1],
    ['new, then old (Herlihy and Wing 1990, figure 1c)', [write(0, 10, 'a'), read(1, 2, 'a'), read(3, 4, '')], 2],
    ['a read from the future', [read(0, 1, 'a'), write(2, 3, 'a')], 0],
    [
      'two readers disagree on the order',
      [write(0, 10, 'a'), write(0, 10, 'b'), read(11, 12, 'a'), read(13, 14, 'b'), read(15, 16, 'a')],
      3,
    ],
    [
      'an unanswered write that comes, goes and comes',
      [write(0, null, 'a'), write(1, 2, 'b'), read(3, 4, 'a'), read(5, 6, 'b')],
      3,
    ],
  ])('bad: %s', (_, history, stuck) => {
    const verdict = checkLinearizable(REGISTER, history);
    expect(verdict).toMatchObject({ kind: 'not-linearizable', stuckAt: history[stuck] });
  });
});

describe('histories of a name', () => {
  const claim = (
    from: number,
    to: number | null,
    by: string,
    output?: 'ok' | 'taken',
  ): Operation<NameInput, 'ok' | 'taken'> => ({
    calledAt: from,
    returnedAt: to,
    input: { do: 'claim', by },
    output,
  });
  it('one of two may have it, not both', () => {
    const one = [claim(0, 5, 'x', 'ok'), claim(1, 6, 'y', 'taken')];
    expect(checkLinearizable(NAME, one).kind).toBe('linearizable');
    expect(checkLinearizable(NAME, [claim(0, 5, 'x', 'ok'), claim(1, 6, 'y', 'ok')]).kind).toBe('not-linearizable');
    expect(checkLinearizable(NAME, [claim(0, 5, 'x', 'taken'), claim(1, 6, 'y', 'taken')]).kind).toBe(
      'not-linearizable',
    );
    expect(checkLinearizable(NAME, [claim(0, null, 'x'), claim(1, 6, 'y', 'taken')]).kind).toBe('linearizable');
  });
});

/** Every order of the operations, tried. */
function bruteForce(history: readonly Op[]): boolean {
  const go = (left: readonly Op[], state: string): boolean => {
    if (left.every((op) => op.returnedAt === null)) return true;
    const firstReturn = Math.min(...left.map((op) => op.returnedAt ?? Number.POSITIVE_INFINITY));
    return left.some((op) => {
      if (op.calledAt > firstReturn) return false;
      const next = REGISTER.step(state, op.input, op.output);
      return (
        next !== undefined &&
        go(
          left.filter((other) => other !== op),
          next.state,
        )
      );
    });
  };
  return go(history, '');
}

describe('against an oracle', () => {
  const anyOp = fc.record({
    at: fc.integer({ min: 0, max: 12 }),
    lasts: fc.integer({ min: 0, max: 6 }),
    answered: fc.boolean(),
    reads: fc.boolean(),
    value: fc.constantFrom('', 'a', 'b'),
  });
  it('agrees with trying every order, on any small history', () => {
    fc.assert(
      fc.property(fc.array(anyOp, { maxLength: 7 }), (ops) => {
        const history = ops.map(({ at, lasts, answered, reads, value }) =>
          reads ? read(at, at + lasts, value) : write(at, answered ? at + lasts : null, value),
        );
        expect(checkLinearizable(REGISTER, history).kind).toBe(
          bruteForce(history) ? 'linearizable' : 'not-linearizable',
        );
      }),
      { numRuns: 3000, seed: 7 },
    );
  });

  it('500 operations of 12 clients, taken from a real order: linearizable; with one read of another value: not', () => {
    for (let seed = 1; seed <= 20; seed++) {
      let x = seed;
      const random = (n: number): number => {
        x = (Math.imul(x, 1_103_515_245) + 12_345) & 0x7fffffff;
        return (x >> 8) % n;
      };
      let value = '';
      const history = Array.from({ length: 500 }, (_, i): Op => {
        // It takes effect at i; its client saw it begin before and end after.
        const [from, to] = [i - 0.5 - random(6), i + 0.5 + random(6)];
        if (random(2) === 0) return read(from, to, value);
        value = `v${i}`;
        return write(from, random(20) === 0 ? null : to, value);
      });
      expect(checkLinearizable(REGISTER, withoutUnseen(history)).kind).toBe('linearizable');
      const victim = history.findLastIndex((op) => op.input.do === 'read');
      const broken = withoutUnseen(history).map((op) => (op === history[victim] ? { ...op, output: 'v-1' } : op));
      expect(checkLinearizable(REGISTER, broken)).toMatchObject({
        kind: 'not-linearizable',
        stuckAt: { output: 'v-1' },
      });
    }
  });
});

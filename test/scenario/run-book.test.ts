import { describe, expect, test } from 'vitest';
import { RunBook, SILENCE_MS } from '../../src/scenario/run-book.ts';
import type { CopyRun } from '../../src/scenario/types.ts';
import { doubledSlots, isSettled, lostSlots, recoveriesOf } from '../../src/scenario/verdict.ts';

const id = (node: number, copy: string) => ({ task: 'web', slot: 0, generation: '1.1', node, copy });
const only = (runs: readonly CopyRun[]): CopyRun => {
  expect(runs).toHaveLength(1);
  return runs[0] as CopyRun;
};

describe('the run book', () => {
  test('a beating copy lives until it is silent, and again when it beats again', () => {
    const book = new RunBook();
    book.seen(id(1, 'p1'), 1_000);
    book.seen(id(1, 'p1'), 1_100);
    expect(only(book.list(1_100 + SILENCE_MS)).endedAtMs).toBeNull();
    expect(only(book.list(1_101 + SILENCE_MS)).endedAtMs).toBe(1_100);
    book.seen(id(1, 'p1'), 9_000);
    const run = only(book.list(9_000));
    expect(run.endedAtMs).toBeNull();
    expect(run.spans).toEqual([
      { fromMs: 1_000, toMs: 1_100 },
      { fromMs: 9_000, toMs: 9_000 },
    ]);
  });

  test("a container lives from its start event to its end, or its machine's", () => {
    const book = new RunBook();
    book.started(id(1, 'c1'), 1_000);
    expect(only(book.list(90_000)).spans).toEqual([{ fromMs: 1_000, toMs: 90_000 }]);
    book.nodeDied(1, 91_000);
    book.ended(1, 'c1', 95_000);
    expect(only(book.list(99_000))).toMatchObject({ endedAtMs: 91_000, spans: [{ fromMs: 1_000, toMs: 91_000 }] });
  });

  test("lines read late do not bring a dead machine's copy back", () => {
    const book = new RunBook();
    book.seen(id(1, 'p1'), 1_000);
    book.nodeDied(1, 1_500);
    book.seen(id(1, 'p1'), 1_400);
    expect(only(book.list(1_600)).endedAtMs).not.toBeNull();
  });
});

describe("the verdict's measures", () => {
  const run = (node: number, copy: string, fromMs: number, toMs: number, ended = true): CopyRun => ({
    ...id(node, copy),
    spans: [{ fromMs, toMs }],
    endedAtMs: ended ? toMs : null,
  });

  test('two copies are doubled only if they were alive at one instant', () => {
    expect(doubledSlots([run(1, 'a', 0, 100), run(2, 'b', 100, 200)])).toEqual([]);
    expect(doubledSlots([run(1, 'a', 0, 101), run(2, 'b', 100, 200)])).toEqual(['web[0]']);
    const frozen: CopyRun = {
      ...id(1, 'a'),
      spans: [
        { fromMs: 0, toMs: 100 },
        { fromMs: 300, toMs: 310 },
      ],
      endedAtMs: 310,
    };
    expect(doubledSlots([frozen, run(2, 'b', 150, 290)])).toEqual([]);
    expect(doubledSlots([frozen, run(2, 'b', 150, 305)])).toEqual(['web[0]']);
  });

  test('a slot without a living copy is lost; two living ones are not settled', () => {
    const accepted = new Map([
      ['web', 1],
      ['none', 0],
    ]);
    expect(lostSlots(accepted, [run(1, 'a', 0, 100)])).toEqual(['web[0]']);
    expect(isSettled(accepted, [run(1, 'a', 0, 100, false)])).toBe(true);
    expect(isSettled(accepted, [run(1, 'a', 0, 100, false), run(2, 'b', 0, 100, false)])).toBe(false);
  });

  test("recovery counts from the cut, or from the copy's own end where only its engine was killed", () => {
    const kill = { atMs: 1_000, do: 'kill' as const, nodes: [1] };
    expect(
      recoveriesOf([run(1, 'a', 0, 1_005), run(2, 'b', 1_700, 2_000, false)], [kill]).map((one) => one.elapsedMs),
    ).toEqual([700]);
    const engine = { ...kill, do: 'engine-kill' as const };
    expect(
      recoveriesOf([run(1, 'a', 0, 4_000), run(1, 'b', 4_250, 5_000, false)], [engine]).map((one) => one.elapsedMs),
    ).toEqual([250]);
    expect(recoveriesOf([run(3, 'a', 0, 5_000, false)], [kill])).toEqual([]);
  });
});

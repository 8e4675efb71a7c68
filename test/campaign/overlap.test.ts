import { describe, expect, it } from 'vitest';
import {
  type CopyLife,
  closestHandover,
  livingSpans,
  overlapsOf,
  recoveriesOf,
  type Span,
  totalMs,
} from '../../src/campaign/overlap.ts';

const span = (fromMs: number, toMs: number): Span => ({ fromMs, toMs });
const copy = (generation: string, host: number, ...spans: readonly Span[]): CopyLife => ({
  task: 'one',
  slot: 0,
  generation,
  host,
  copy: `${generation}@${host}`,
  spans,
});

describe('overlaps of exclusive copies', () => {
  it('are none when one ends before the next begins', () => {
    const lives = [copy('1.1', 1, span(0, 1_000)), copy('1.2', 2, span(1_010, 2_000))];
    expect(overlapsOf(lives, [])).toEqual([]);
    expect(closestHandover(lives, [])).toBe(10);
  });

  it('are counted from the later first tick to the earlier last one', () => {
    const found = overlapsOf([copy('1.1', 1, span(0, 1_500)), copy('1.2', 2, span(1_000, 2_000))], []);
    expect(found).toMatchObject([{ fromMs: 1_000, toMs: 1_500, afterThaw: false }]);
    expect(totalMs(found)).toBe(500);
  });

  it('count one tick of the clock when both show the same moment', () => {
    expect(totalMs(overlapsOf([copy('1.1', 1, span(0, 1_000)), copy('1.2', 2, span(1_000, 2_000))], []))).toBe(10);
  });

  it('hide in no silence: a starved copy lives', () => {
    const starved = copy('1.1', 1, span(0, 1_000), span(5_000, 6_000));
    expect(totalMs(overlapsOf([starved, copy('1.2', 2, span(2_000, 3_000))], []))).toBe(1_000);
  });

  it('of several copies of one slot are all found, and those of other slots are not mixed up', () => {
    const lives = [1, 2, 3].map((host) => copy(`1.${host}`, host, span(0, 100)));
    expect(overlapsOf(lives, [])).toHaveLength(3);
    expect(overlapsOf([copy('1.1', 1, span(0, 100)), { ...copy('1.2', 2, span(0, 100)), slot: 1 }], [])).toEqual([]);
  });
});

describe('a frozen host', () => {
  const freeze = { host: 1, fromMs: 1_000, toMs: 6_000 };
  const frozen = copy('1.1', 1, span(0, 1_005), span(6_010, 6_300));

  it('runs no copy while it is frozen', () => {
    expect(livingSpans(frozen, [freeze])).toEqual([span(0, 1_005), span(6_010, 6_300)]);
    expect(overlapsOf([frozen, copy('1.2', 2, span(5_000, 5_900))], [freeze])).toEqual([]);
  });

  it('is told apart for what its copy does after the thaw', () => {
    const found = overlapsOf([frozen, copy('1.2', 2, span(5_000, 9_000))], [freeze]);
    expect(found).toMatchObject([{ fromMs: 6_010, toMs: 6_300, afterThaw: true }]);
  });

  it('is excused no longer than boot needs', () => {
    const stays = copy('1.1', 1, span(0, 1_005), span(6_010, 9_000));
    expect(overlapsOf([stays, copy('1.2', 2, span(5_000, 9_000))], [freeze])).toMatchObject([{ afterThaw: false }]);
  });

  it('excuses no other host', () => {
    const elsewhere = { ...freeze, host: 3 };
    expect(overlapsOf([frozen, copy('1.2', 2, span(5_000, 5_900))], [elsewhere])).toMatchObject([{ afterThaw: false }]);
  });
});

describe('recoveries', () => {
  const strike = { hosts: [1], atMs: 1_000, untilMs: 9_000 };

  it('count from the strike where the machine is lost', () => {
    const lives = [copy('1.1', 1, span(0, 990)), copy('1.2', 2, span(6_000, 9_000))];
    expect(recoveriesOf(lives, [{ ...strike, copiesLiveOn: false }])).toEqual([{ slot: 'one[0]', elapsedMs: 5_000 }]);
  });

  it("count from the copy's own end where it outlives the strike", () => {
    const lives = [copy('1.1', 1, span(0, 4_000)), copy('1.2', 2, span(6_000, 9_000))];
    expect(recoveriesOf(lives, [{ ...strike, copiesLiveOn: true }])).toEqual([{ slot: 'one[0]', elapsedMs: 2_000 }]);
  });

  it('are none where nothing had to be replaced', () => {
    expect(recoveriesOf([copy('1.1', 1, span(0, 9_000))], [{ ...strike, copiesLiveOn: true }])).toEqual([]);
  });
});

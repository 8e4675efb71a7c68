import { describe, expect, it } from 'vitest';
import { createGather } from '../../src/driver/gather.ts';
import { type MonoMs, monoMs } from '../../src/model/ids.ts';
import type { Clock } from '../../src/ports/clock.ts';

// Nagle's rule (RFC 896) for proposals: at once while little is under way, else together.

function bed() {
  const batches: number[][] = [];
  let now = 0;
  const timers: { at: number; run: (lateMs: number) => void }[] = [];
  const clock = {
    mono: () => monoMs(now),
    at: (at: MonoMs, run: (lateMs: number) => void) => {
      const timer = { at, run };
      timers.push(timer);
      return () => void timers.splice(timers.indexOf(timer), 1);
    },
  } as unknown as Clock;
  const gather = createGather<number>(clock, (items) => batches.push(items));
  const turn = () => new Promise<void>((resolve) => setImmediate(resolve));
  const pass = (ms: number): void => {
    now += ms;
    for (const timer of timers.filter((one) => one.at <= now)) timer.run(0);
  };
  return { batches, gather, turn, pass, timers };
}

describe('gather', () => {
  it('one alone goes with this turn of the event loop; those of one turn go together', async () => {
    const { batches, gather, turn } = bed();
    gather.add(1);
    await turn();
    gather.add(2);
    gather.add(3);
    await turn();
    expect(batches).toEqual([[1], [2, 3]]);
  });

  it('under load what comes waits for answers, or for 4 ms', async () => {
    const { batches, gather, turn, pass } = bed();
    for (let i = 0; i < 4; i++) gather.add(i);
    await turn();
    gather.add(10);
    await turn();
    gather.add(11);
    await turn();
    expect(batches).toEqual([[0, 1, 2, 3]]);
    gather.answered();
    await turn();
    expect(batches[1]).toEqual([10, 11]);
    for (let i = 20; i < 24; i++) gather.add(i);
    pass(3);
    expect(batches).toHaveLength(2);
    pass(1);
    expect(batches[2]).toEqual([20, 21, 22, 23]);
  });

  it('a full batch does not wait, and no timer is left behind', async () => {
    const { batches, gather, turn, timers } = bed();
    for (let i = 0; i < 4; i++) gather.add(i);
    await turn();
    for (let i = 0; i < 256; i++) gather.add(i);
    await turn();
    expect([batches[1]?.length, timers.length]).toEqual([256, 0]);
  });
});

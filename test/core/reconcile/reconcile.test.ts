import { describe, expect, test } from 'vitest';
import { formatCopyId, parseCopyId } from '../../../src/core/reconcile/copy-id.ts';
import { bench, observed, wanted } from './machine.ts';

const stop = { onPartition: 'stop' } as const;
const once = { restart: { policy: 'no', maxAttempts: 0, backoffMs: 100, backoffCapMs: 1000 } } as const;

test('copy ids read back', () => {
  const d = wanted(7, {}, { task: 'a.b-c', slot: 3, version: 2 });
  expect(parseCopyId(formatCopyId(d))).toEqual({
    taskId: 'a.b-c',
    slot: 3,
    generation: { epoch: 1, g: 7 },
    specVersion: 2,
  });
  expect(parseCopyId('nonsense')).toBeUndefined();
});

describe('starting', () => {
  test('nothing starts before the first listing of its runtime', () => {
    const b = bench();
    expect(b.desired([wanted(1)])).toEqual([]);
    expect(b.fact()?.error).toContain('first listing');
    expect(b.listing([])).toEqual(['start t.0.1.1.1']);
    expect(b.fact()?.state).toBe('starting');
    expect(b.started(wanted(1))).toEqual([]);
    expect(b.fact()).toMatchObject({ state: 'running', error: '', handle: 'pid:1' });
  });

  test('what runs is adopted: no stop, no start', () => {
    const b = bench();
    expect(b.listing([observed(wanted(1))])).toEqual([]);
    expect(b.desired([wanted(1)])).toEqual([]);
    expect(b.fact()?.state).toBe('running');
  });

  test('the same desired set twice does nothing', () => {
    const b = bench();
    b.listing([]);
    expect(b.desired([wanted(1)])).toHaveLength(1);
    expect(b.desired([wanted(1)])).toEqual([]);
    b.started(wanted(1));
    expect(b.desired([wanted(1)])).toEqual([]);
  });

  test('a bounded number at once, by priority', () => {
    const b = bench({ startsAtOnce: 2 });
    b.listing([]);
    const copies = [0, 1, 2, 3].map((slot) => wanted(1, { priority: slot === 3 ? 10 : 0 }, { slot }));
    expect(b.desired(copies)).toEqual(['start t.3.1.1.1', 'start t.0.1.1.1']);
    expect(b.started(copies[3] as (typeof copies)[0])).toEqual(['start t.1.1.1.1']);
    expect(b.run({ type: 'start-failed', copyId: 't.0.1.1.1', error: 'x', retryable: true })).toEqual([
      'start t.2.1.1.1',
    ]);
  });

  test('an older generation and an older spec version stop before the new one starts, current or not', () => {
    const b = bench();
    b.listing([]);
    b.desired([wanted(1)]);
    b.started(wanted(1));
    expect(b.desired([wanted(2)], false)).toEqual(['stop t.0.1.1.1']);
    expect(b.stopped(wanted(1))).toEqual(['start t.0.1.2.1']);
    b.started(wanted(2));
    const v2 = wanted(2, {}, { version: 2 });
    expect(b.desired([v2])).toEqual(['stop t.0.1.2.1']);
    expect(b.core.facts()).toHaveLength(1);
    expect(b.fact()?.state).toBe('stopping');
    expect(b.stopped(wanted(2))).toEqual(['start t.0.1.2.2']);
  });

  test('a start that may succeed is tried again with back-off; one that cannot is failed with no start time, and tried slowly', () => {
    const b = bench();
    b.listing([]);
    b.desired([wanted(1)]);
    b.run({ type: 'start-failed', copyId: 't.0.1.1.1', error: 'engine busy', retryable: true });
    expect(b.fact()).toMatchObject({ state: 'backoff', error: 'engine busy' });
    expect(b.until(b.now + 499)).toEqual([]);
    expect(b.until(b.now + 60)).toEqual(['start t.0.1.1.1']);
    b.run({ type: 'start-failed', copyId: 't.0.1.1.1', error: 'image x is not here', retryable: false });
    expect(b.fact()).toMatchObject({ state: 'failed', startedAt: null, error: 'image x is not here' });
    expect(b.until(b.now + 14_000)).toEqual([]);
    expect(b.until(b.now + 3000)).toEqual(['start t.0.1.1.1']);
  });
});

describe('stopping', () => {
  test('a copy no longer desired stops gracefully, once the record is current', () => {
    const b = bench();
    b.listing([]);
    b.desired([wanted(1)]);
    b.started(wanted(1));
    expect(b.desired([], false)).toEqual([]);
    expect(b.desired([], true)).toEqual(['stop t.0.1.1.1']);
    b.stopped(wanted(1));
    expect(b.core.facts()).toEqual([]);
  });

  test('unknown copies, and what is left of ended ones, are cleared once the record is current', () => {
    const b = bench();
    expect(
      b.listing([observed(wanted(1)), observed(wanted(1, {}, { slot: 1 }), { running: false, exitCode: 0 })]),
    ).toEqual([]);
    expect(b.desired([], false)).toEqual([]);
    expect(b.desired([], true)).toEqual(['kill t.0.1.1.1', 'kill t.1.1.1.1']);
  });

  test('a failed stop is tried again as a kill, with back-off', () => {
    const b = bench();
    b.listing([]);
    b.desired([wanted(1)]);
    b.started(wanted(1));
    b.desired([]);
    b.run({ type: 'stop-failed', copyId: 't.0.1.1.1', error: 'engine busy' });
    expect(b.fact()?.error).toContain('cannot be stopped');
    expect(b.until(b.now + 1000)).toEqual(['kill t.0.1.1.1']);
  });

  test('a start answered after the stop began is stopped again; nothing newer starts in between', () => {
    const b = bench();
    b.listing([]);
    b.desired([wanted(1)]);
    expect(b.desired([wanted(2)])).toEqual(['stop t.0.1.1.1']);
    expect(b.stopped(wanted(1))).toEqual([]);
    expect(b.started(wanted(1))).toEqual(['kill t.0.1.1.1']);
    expect(b.stopped(wanted(1))).toEqual(['start t.0.1.2.1']);
  });
});

describe('exclusive copies', () => {
  const d = wanted(1, stop);
  const fresh = () => {
    const b = bench();
    b.listing([]);
    b.desired([], true);
    b.desired([d], true);
    return b;
  };
  test('start only under a lease', () => {
    const b = fresh();
    expect(b.core.leaseKeys()).toMatchObject([{ generation: { g: 1 } }]);
    expect(b.fact()?.error).toContain('lease');
    expect(b.lease(1, b.now + 900)).toEqual([]);
    expect(b.lease(1, b.now + 3960)).toEqual(['start t.0.1.1.1']);
  });

  test('are killed when the lease is refused, and at deadline - S by this core itself', () => {
    const b = fresh();
    b.lease(1, b.now + 3960);
    b.started(d);
    expect(b.lease(1, undefined)).toEqual(['kill t.0.1.1.1']);
    const c = fresh();
    c.lease(1, c.now + 3960);
    c.started(d);
    expect(c.until(c.now + 2959)).toEqual([]);
    expect(c.until(c.now + 1)).toEqual(['kill t.0.1.1.1']);
    // still assigned: starts again under a new lease, as no restart of the policy
    expect(c.lease(1, c.now + 3960)).toEqual([]);
    expect(c.stopped(d)).toEqual(['start t.0.1.1.1']);
    expect(c.fact()?.restarts).toBe(0);
  });

  test('found running with no valid lease: killed at once; with one kept by boot: adopted', () => {
    const b = bench();
    b.listing([observed(d)]);
    expect(b.desired([d], false)).toEqual(['kill t.0.1.1.1']);
    const c = bench();
    c.lease(1, c.now + 3000);
    expect(c.desired([d], false)).toEqual([]);
    expect(c.listing([observed(d)])).toEqual([]);
    expect(c.core.leaseKeys()).toHaveLength(1);
  });

  test('a graceful stop turns into a kill when the lease ends', () => {
    const b = fresh();
    b.lease(1, b.now + 3960);
    b.started(d);
    expect(b.desired([])).toEqual(['stop t.0.1.1.1']);
    expect(b.core.leaseKeys()).toHaveLength(1);
    expect(b.lease(1, undefined)).toEqual(['kill t.0.1.1.1']);
    // each of the two stops is answered
    expect(b.stopped(d)).toEqual([]);
    expect(b.stopped(d)).toEqual(['released 1']);
  });

  test('killed by boot as its lease ran out: no end of the run, whatever the restart policy', () => {
    const job = wanted(1, { ...stop, ...once });
    const b = bench();
    b.listing([]);
    b.desired([], true);
    b.desired([job], true);
    b.lease(1, b.now + 3960);
    b.started(job);
    // the agent was stalled: boot's kill is seen in the same turn as this core's own timer
    b.clock(b.now + 5000);
    expect(b.exited(job, 137)).toEqual([]);
    expect(b.fact()?.state).toBe('preparing');
    const c = bench();
    c.listing([observed(job, { running: false, exitCode: 137 })]);
    expect(c.desired([job])).toEqual([]);
    expect(c.fact()?.state).toBe('preparing');
    expect(c.lease(1, c.now + 3960)).toEqual(['start t.0.1.1.1']);
    c.started(job);
    expect(c.exited(job, 3)).toEqual(['end t.0.1.1.1 failed 3']);
  });

  test('released is for good: desired again, it is said again and nothing starts', () => {
    const b = fresh();
    expect(b.desired([])).toEqual(['released 1']);
    expect(b.desired([d])).toEqual([]);
    expect(b.lease(1, b.now + 3960)).toEqual([]);
    expect(b.core.leaseKeys()).toEqual([]);
    expect(b.until(b.now + 2000)).toEqual(['released 1']);
    expect(b.desired([wanted(2, stop)])).toEqual([]);
    expect(b.core.leaseKeys()).toMatchObject([{ generation: { g: 2 } }]);
  });

  test('a generation held by an earlier life of the agent, of which nothing is left, is released', () => {
    const b = bench();
    expect(b.desired([d], false)).toEqual([]);
    expect(b.core.leaseKeys()).toEqual([]);
    expect(b.listing([], 'docker')).toEqual([]);
    // said once for the finding, and again (in two seconds) while the record still names this machine
    expect(b.listing([])).toContain('released 1');
    const c = bench();
    c.listing([observed(d, { running: false, exitCode: 137 })]);
    c.desired([d], false);
    expect(c.core.leaseKeys()).toHaveLength(1);
  });
});

describe('restart policy', () => {
  const run = (policy: 'always' | 'on-failure' | 'no', exitCode: number, maxAttempts = 0) => {
    const d = wanted(1, { restart: { policy, maxAttempts, backoffMs: 100, backoffCapMs: 1000 } });
    const b = bench();
    b.listing([]);
    b.desired([d]);
    b.started(d);
    return { b, d, first: b.exited(d, exitCode) };
  };
  test.each([
    ['always', 0, []],
    ['always', 1, []],
    ['on-failure', 1, []],
    ['on-failure', 0, ['end t.0.1.1.1 finished 0']],
    ['no', 0, ['end t.0.1.1.1 finished 0']],
    ['no', 3, ['end t.0.1.1.1 failed 3']],
  ] as const)('%s after exit code %i', (policy, exitCode, expected) => {
    const { b, first } = run(policy, exitCode);
    expect(first).toEqual(expected);
    expect(b.fact()?.state).toBe(expected.length === 0 ? 'backoff' : exitCode === 0 ? 'finished' : 'failed');
    expect(b.fact()?.startedAt).not.toBeNull();
  });

  test('back-off doubles up to its cap and starts again after ten steady seconds; attempts are counted for the generation', () => {
    const { b, d } = run('always', 1, 6);
    const pauses: number[] = [];
    for (let i = 0; i < 5; i++) {
      const from = b.now;
      expect(b.until((b.core.nextWake() ?? 0) + 0)).toEqual(['start t.0.1.1.1']);
      pauses.push(b.now - from);
      b.started(d);
      if (i === 4) b.until(b.now + 10_000);
      b.exited(d, 1);
    }
    const expected = [100, 200, 400, 800, 1000];
    for (const [i, p] of pauses.entries()) {
      expect(p).toBeGreaterThanOrEqual(expected[i] as number);
      expect(p).toBeLessThanOrEqual((expected[i] as number) * 1.1 + 1);
    }
    const from = b.now;
    b.until(b.core.nextWake() ?? 0);
    expect(b.now - from).toBeLessThanOrEqual(111);
    b.started(d);
    expect(b.exited(d, 9)).toEqual(['end t.0.1.1.1 failed 9']);
    expect(b.fact()?.error).toContain('gave up after 6 restarts');
  });

  test('the end is reported until it is committed; then the copy is kept a while for its logs', () => {
    const { b } = run('no', 0);
    const repeats = b.until(b.now + 5000);
    expect(repeats.length).toBeGreaterThanOrEqual(3);
    expect(repeats.every((r) => r === 'end t.0.1.1.1 finished 0')).toBe(true);
    b.run({ type: 'end-committed', copyId: 't.0.1.1.1' });
    expect(b.desired([])).toEqual([]);
    expect(b.until(b.now + 599_000)).toEqual([]);
    expect(b.until(b.now + 2000)).toEqual(['kill t.0.1.1.1']);
  });

  test('an exit that comes before the answer to the start counts', () => {
    const d = wanted(1, once);
    const b = bench();
    b.listing([]);
    b.desired([d]);
    expect(b.exited(d, 0)).toEqual([]);
    expect(b.started(d)).toEqual(['end t.0.1.1.1 finished 0']);
  });

  test('what ended while the agent was away is judged by the policy', () => {
    const b = bench();
    b.desired([wanted(1, once)]);
    expect(b.listing([observed(wanted(1), { running: false, exitCode: 4 })])).toEqual(['end t.0.1.1.1 failed 4']);
  });
});

describe('runtime down', () => {
  test('no starts while down; after its return the listing decides', () => {
    const d = wanted(1);
    const e = wanted(1, {}, { slot: 1 });
    const b = bench();
    b.listing([]);
    b.desired([d]);
    b.started(d);
    b.run({ type: 'runtime-down', runtime: 'process', reason: 'connection refused' });
    expect(b.fact()).toMatchObject({
      state: 'running',
      error: 'the process runtime does not answer: connection refused',
    });
    expect(b.desired([d, e])).toEqual([]);
    expect(b.listing([observed(d)])).toEqual(['start t.1.1.1.1']);
    expect(b.fact()).toMatchObject({ state: 'running', error: '' });
  });

  test('copies gone with the engine are restarted here, under the same generation', () => {
    const b = bench();
    b.listing([]);
    b.desired([wanted(1)]);
    b.started(wanted(1));
    b.run({ type: 'runtime-down', runtime: 'process', reason: 'x' });
    b.listing([]);
    expect(b.fact()).toMatchObject({ state: 'backoff', restarts: 1 });
    expect(b.until(b.now + 200)).toEqual(['start t.0.1.1.1']);
  });
});

describe('health', () => {
  const d = wanted(1, {
    healthCheck: { check: { type: 'tcp', port: 1 }, intervalMs: 1000, timeoutMs: 500, retries: 2, startPeriodMs: 1500 },
  });
  const check = (b: ReturnType<typeof bench>, ok: boolean) =>
    b.run({ type: 'health', copyId: 't.0.1.1.1', ok, output: ok ? '' : 'refused' });
  test('unhealthy after retries: restarted, counted by the policy; failures in the start period do not count', () => {
    const b = bench();
    b.listing([]);
    b.desired([d]);
    b.started(d);
    expect(b.fact()?.health).toBe('starting');
    expect(b.until(b.now + 1000)).toEqual(['check-health t.0.1.1.1']);
    check(b, false);
    expect(b.until(b.now + 1000)).toEqual(['check-health t.0.1.1.1']);
    check(b, true);
    expect(b.fact()?.health).toBe('healthy');
    b.until(b.now + 1000);
    expect(check(b, false)).toEqual([]);
    // an answer that never comes is a failure too
    expect(b.until(b.now + 1000)).toEqual(['check-health t.0.1.1.1']);
    expect(b.until(b.now + 1500)).toEqual(['stop t.0.1.1.1']);
    b.stopped(d);
    expect(b.fact()).toMatchObject({ state: 'backoff', restarts: 1 });
    expect(b.fact()?.error).toContain('unhealthy: 2 checks');
  });
});

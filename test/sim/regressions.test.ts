import { expect, test } from 'vitest';
import { DEFAULT_PEER_CONFIG, formCluster, makeSpec, makeWorld, runCampaign } from '../../src/sim/campaign.ts';
import type { Machine } from '../../src/sim/machine.ts';

// Seeds that once found something. Each names what it was.

/** A lagging peer was told to truncate entries that its snapshot already stood for: its store refused, and the peer stopped. */
test.each(['z-1', 'z-11', 'z-16', 'z-24'])('%s: a snapshot over a log that does not reach it', (seed) => {
  expect(runCampaign({ seed, machines: 5, seconds: 200, faultEveryMs: 10_000, tasks: 6 }).accepted).toBeGreaterThan(5);
});

/** Records went back when entries had come by another way while the snapshot was on its way. */
test('a snapshot that has been overtaken changes nothing', () => {
  const { consensus } = DEFAULT_PEER_CONFIG;
  const world = makeWorld('overtaken', 3, { config: { ...DEFAULT_PEER_CONFIG, consensus: { ...consensus, logRetained: 8 } } });
  formCluster(world);
  const [first, , third] = world.machines as [Machine, Machine, Machine];
  const stale = first.snapshot();
  for (let i = 0; i < 5; i++) world.submit(first, makeSpec(`task${i}`, i % 2 === 0));
  expect(world.run(world.now + 10_000, () => world.unsettled() === undefined)).toBe(true);
  const applied = third.peer?.state().applied;
  expect(stale && stale.index < (applied ?? 0)).toBe(true);
  if (stale) third.installSnapshot(stale);
  world.run(world.now + 2000);
  expect(third.peer?.state().applied).toBeGreaterThanOrEqual(applied ?? 0);
  world.checkRecords();
});

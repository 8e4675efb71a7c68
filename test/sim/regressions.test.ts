import { expect, test } from 'vitest';
import { DEFAULT_PEER_CONFIG, formCluster, makeSpec, makeWorld, runCampaign } from '../../src/sim/campaign.ts';
import type { Machine } from '../../src/sim/machine.ts';
import type { World } from '../../src/sim/world.ts';

// Seeds that once found something. Each names what it was.

const shortLog = (seed: string) => {
  const { consensus } = DEFAULT_PEER_CONFIG;
  const world = makeWorld(seed, 3, { config: { ...DEFAULT_PEER_CONFIG, consensus: { ...consensus, logRetained: 8 } } });
  formCluster(world);
  return { world, machines: world.machines as [Machine, Machine, Machine] };
};
const whole = (world: World): boolean => world.run(world.now + 10_000, () => world.unsettled() === undefined);

/** A lagging peer was told to truncate entries that its snapshot already stood for: its store refused, and the peer stopped. */
test('a snapshot over a log that does not reach it is taken, and the log goes on', () => {
  const {
    world,
    machines: [first, second, third],
  } = shortLog('behind');
  for (let i = 0; i < 6; i++) world.submit(first, makeSpec(`before${i}`, false));
  expect(whole(world)).toBe(true);
  world.network.partition([[first, second], [third]]);
  for (let i = 0; i < 30; i++) world.submit(first, makeSpec(`task${i}`, false));
  world.run(world.now + 5000);
  world.network.heal();
  expect(whole(world)).toBe(true);
  expect(world.tally.snapshots).toBeGreaterThan(0);
  world.submit(third, makeSpec('after', true));
  expect(whole(world)).toBe(true);
  world.checkRecords();
});

/** The campaign's seeds that found it. */
test.each(['y-21', 'y-31', 'z-1', 'z-11'])('%s', (seed) => {
  expect(runCampaign({ seed, seconds: 120, faultEveryMs: 10_000, tasks: 6 }).accepted).toBeGreaterThan(5);
});

/** Records went back when entries had come by another way while the snapshot was on its way. */
test('a snapshot that has been overtaken changes nothing', () => {
  const {
    world,
    machines: [first, , third],
  } = shortLog('overtaken');
  const stale = first.snapshot();
  for (let i = 0; i < 5; i++) world.submit(first, makeSpec(`task${i}`, i % 2 === 0));
  expect(whole(world)).toBe(true);
  const applied = third.peer?.state().applied;
  expect(stale && stale.index < (applied ?? 0)).toBe(true);
  if (stale) third.installSnapshot(stale);
  world.run(world.now + 2000);
  expect(third.peer?.state().applied).toBeGreaterThanOrEqual(applied ?? 0);
  world.checkRecords();
});

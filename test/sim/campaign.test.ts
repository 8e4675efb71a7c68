import { describe, expect, test } from 'vitest';
import { type CampaignOptions, runCampaign } from '../../src/sim/campaign.ts';
import { DEFECTS, type Defect } from '../../src/sim/defects.ts';
import { HUNT_SEEDS, hunt } from '../../src/sim/hunt.ts';

const options = (seed: string, more: Partial<CampaignOptions> = {}): CampaignOptions => ({
  seed,
  seconds: 120,
  faultEveryMs: 10_000,
  tasks: 6,
  ...more,
});

describe('random faults', () => {
  test.each([1, 2, 3, 5, 7])('every invariant holds after every event, with %i machines', (machines) => {
    const result = runCampaign(options(`npm-test-${machines}`, { machines }));
    expect(result.accepted).toBeGreaterThan(5);
    expect(result.exclusiveRuns).toBeGreaterThan(3);
    expect(result.tally.crashes + result.tally.cuts + result.tally.agentCrashes).toBeGreaterThan(3);
  });

  test('a seed replays event by event, effect by effect; another seed is another run', () => {
    const first = runCampaign(options('replay', { machines: 5 }));
    expect(runCampaign(options('replay', { machines: 5 }))).toEqual(first);
    expect(runCampaign(options('replay-2', { machines: 5 })).trace).not.toBe(first.trace);
  });

  test('lagging peers are sent snapshots when logs are short', () => {
    let snapshots = 0;
    for (let i = 0; i < 12 && snapshots === 0; i++)
      snapshots += runCampaign(options(`z-${i}`, { machines: 5, seconds: 200 })).tally.snapshots;
    expect(snapshots).toBeGreaterThan(0);
  });
});

describe('planted defects are found', () => {
  test('there are at least fifty', () => {
    expect(Object.keys(DEFECTS).length).toBeGreaterThanOrEqual(50);
  });

  test.each(Object.entries(DEFECTS))(`%s: %s (within ${HUNT_SEEDS} seeds)`, (name) => {
    const { seeds, rule } = hunt(name as Defect);
    expect(seeds).toBeLessThanOrEqual(HUNT_SEEDS);
    expect(rule).not.toBe('');
  });
});

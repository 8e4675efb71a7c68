import { type CampaignOptions, runCampaign } from './campaign.ts';
import type { Defect } from './defects.ts';
import { InvariantBroken } from './invariants.ts';

// Looks for a planted defect: the random campaign, seed after seed, until an invariant breaks.

/** Seeds that a planted defect may survive. */
export const HUNT_SEEDS = 12;

/** Where a defect can show at all. The rest is left to the seed. */
const GROUND: Partial<Record<Defect, Partial<CampaignOptions>>> = {
  'learners-count': { machines: 4 },
  'uncommitted-neighbours': { machines: 4, learnersByTopic: true, favour: ['deposedTwo'] },
  'stale-snapshot': { shortLog: true },
  'partial-snapshot': { shortLog: true },
  'snapshot-of-another-term': { shortLog: true },
  'snapshot-of-old-voters': { shortLog: true },
  'never-written': { shortLog: true },
  'witness-works': { witness: true },
  'forget-submissions': { favour: ['majorityDown', 'blackout'] },
  'torn-entry': { favour: ['crashInWrite'] },
  'no-consistency-check': { favour: ['deposed'] },
};

export interface Catch {
  readonly defect: Defect;
  /** Seeds it took; undefined: it survived them all. */
  readonly seeds: number | undefined;
  readonly rule: string;
  readonly message: string;
}

export function hunt(defect: Defect, seeds = HUNT_SEEDS): Catch {
  for (let i = 0; i < seeds; i++) {
    const seed = `d-${i}`;
    try {
      runCampaign({
        seed,
        machines: 5,
        seconds: 200,
        faultEveryMs: 10_000,
        tasks: 6,
        defects: [defect],
        ...GROUND[defect],
      });
    } catch (error) {
      if (!(error instanceof InvariantBroken)) throw error;
      return { defect, seeds: i + 1, rule: error.rule, message: error.message };
    }
  }
  return { defect, seeds: undefined, rule: '', message: '' };
}

import { describe, expect, it } from 'vitest';
import { campaignMain } from '../../../src/campaign/main.ts';
import type { CampaignReport } from '../../../src/campaign/report.ts';
import { whyNoHostLab } from '../../../src/scenario/hosts/requirements.ts';

// A short piece of the safety campaign on real hosts. The long one is `npm run campaign`.

const wanted = process.env.TASKORG_TEST_DOCKER === '1';
/** Not the hosts of a campaign that may be running on this machine. */
const APART = ['--prefix', 'tocampt', '--subnet', '10.72.0.0/24'];
const missing = whyNoHostLab(true);

async function campaign(args: readonly string[]): Promise<{ code: number; report: CampaignReport; said: string }> {
  const said: string[] = [];
  let report = '{}';
  const code = await campaignMain([...args, '--json', ...APART], {
    out: (text) => {
      report = text;
      said.push(text);
    },
    err: (text) => said.push(text),
  });
  return { code, report: JSON.parse(report) as CampaignReport, said: said.join('\n') };
}
const sum = (counts: Readonly<Record<string, number>>): number => Object.values(counts).reduce((a, b) => a + b, 0);

describe('the safety campaign on real hosts', () => {
  if (!wanted) {
    it('did not run: TASKORG_TEST_DOCKER=1 turns it on', () => {
      expect(wanted).toBe(false);
    });
    return;
  }
  it('can be made here', () => {
    expect(missing).toBeUndefined();
  });

  it('a kill of every kind and 3 partitions lose nothing and double nothing', { timeout: 400_000 }, async () => {
    const { code, report, said } = await campaign([
      '--kills',
      '6',
      '--partitions',
      '3',
      '--freezes',
      '0',
      '--seed',
      'ci',
    ]);
    expect(code, said).toBe(0);
    expect(sum(report.kills)).toBe(6);
    expect(sum(report.partitions)).toBe(3);
    expect(report.overlaps).toEqual([]);
    expect(report.lost).toEqual([]);
    // Every exclusive task ticked, and some had to be started anew.
    expect(report.copies).toBeGreaterThan(7);
  });

  it('the witness sees the overlaps of a cluster that does not enforce its leases', { timeout: 300_000 }, async () => {
    const { code, report, said } = await campaign([
      '--kills',
      '0',
      '--partitions',
      '2',
      '--freezes',
      '0',
      '--seed',
      'doubles',
      '--no-enforcement',
    ]);
    expect(code, said).toBe(0);
    expect(report.overlaps.length).toBeGreaterThan(0);
  });
});

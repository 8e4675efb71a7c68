import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { runCampaign } from './campaign.ts';
import { campaignHeld, formatCampaign } from './report.ts';

const DEFAULTS = { hosts: '5', kills: '300', partitions: '60', freezes: '20' };

export const CAMPAIGN_USAGE = `usage: npm run campaign -- [options]

  --kills N          of agent, boot, both, engine, host, leader in turn (default ${DEFAULTS.kills})
  --partitions N     cut, half, ring, one-way, flapping in turn (default ${DEFAULTS.partitions})
  --freezes N        hosts frozen and thawed (default ${DEFAULTS.freezes})
  --hosts N          default ${DEFAULTS.hosts}
  --seed TEXT        of the schedule (default: a new one, printed)
  --no-enforcement   leases are not enforced: shows that the witness sees the overlaps that follow
  --prefix NAME      of the hosts; campaigns side by side need different ones, and subnets (default tocamp)
  --subnet CIDR      default 10.70.0.0/24; containers get the next second octet
  --dir DIR          disks, logs and ticks (default: under ${tmpdir()})
  --keep             leave hosts, logs and ticks as they are at the end
  --json             the report as JSON

Needs root. Exit code: 0 nothing lost or doubled (--no-enforcement: overlaps seen), 1 otherwise, 2 it could not be run.`;

export interface CampaignIo {
  readonly out?: (text: string) => void;
  readonly err?: (text: string) => void;
}

/** The campaign command. Returns the exit code; never throws. */
export async function campaignMain(argv: readonly string[], io: CampaignIo = {}): Promise<number> {
  const out = io.out ?? ((text) => process.stdout.write(`${text}\n`));
  const err = io.err ?? ((text) => process.stderr.write(`${text}\n`));
  try {
    const { values } = parseArgs({
      args: [...argv],
      options: {
        hosts: { type: 'string', default: DEFAULTS.hosts },
        kills: { type: 'string', default: DEFAULTS.kills },
        partitions: { type: 'string', default: DEFAULTS.partitions },
        freezes: { type: 'string', default: DEFAULTS.freezes },
        seed: { type: 'string' },
        'no-enforcement': { type: 'boolean', default: false },
        prefix: { type: 'string', default: 'tocamp' },
        subnet: { type: 'string', default: '10.70.0.0/24' },
        dir: { type: 'string' },
        keep: { type: 'boolean', default: false },
        json: { type: 'boolean', default: false },
        help: { type: 'boolean', default: false },
      },
    });
    if (values.help) {
      out(CAMPAIGN_USAGE);
      return 0;
    }
    const seed = values.seed ?? String(Math.floor(Math.random() * 1e9));
    err(`  seed ${seed}`);
    const report = await runCampaign({
      hosts: number('hosts', values.hosts, 3, 20),
      kills: number('kills', values.kills, 0, 100_000),
      partitions: number('partitions', values.partitions, 0, 100_000),
      freezes: number('freezes', values.freezes, 0, 100_000),
      seed,
      dir: values.dir ?? join(tmpdir(), `task-org-campaign-${values.prefix}`),
      keep: values.keep,
      enforced: !values['no-enforcement'],
      prefix: values.prefix,
      subnet: values.subnet,
      log: (message) => err(`  ${message}`),
    });
    out(values.json ? JSON.stringify(report) : formatCampaign(report));
    return campaignHeld(report) ? 0 : 1;
  } catch (error) {
    err(`campaign: ${error instanceof Error ? error.message : String(error)}`);
    return 2;
  }
}

function number(name: string, text: string, least: number, most: number): number {
  const value = Number(text);
  if (!/^\d+$/.test(text) || value < least || value > most)
    throw new Error(`--${name} is a number from ${least} to ${most}, not '${text}'`);
  return value;
}

import { writeFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { BENCHES } from '../bench/benches.ts';
import { formatReport, targetsReached } from '../bench/report.ts';
import { DEFAULT_DIR, type Side } from '../bench/rig.ts';

const USAGE = `usage: npm run bench -- NAME... [options]

${[...BENCHES].map(([name, { about }]) => `  ${name.padEnd(10)} ${about}`).join('\n')}

  --trials N                how often (default: the bench's own)
  --reference-trials N      how often the reference (default: as often as ours)
  --hosts N                 instead of the bench's own number
  --only ours|reference     one side alone
  --dir DIR                 the hosts' disks (default: ${DEFAULT_DIR})
  --json FILE               the reports, as JSON, too

Needs root, and the reference's own packages. Exit code: 0 targets reached, 1 a target missed, 2 could not be run.`;

/** Returns the exit code. */
async function main(argv: readonly string[]): Promise<number> {
  const options = {
    trials: { type: 'string' },
    'reference-trials': { type: 'string' },
    hosts: { type: 'string' },
    only: { type: 'string' },
    dir: { type: 'string' },
    json: { type: 'string' },
    help: { type: 'boolean' },
  } as const;
  const { values, positionals } = parseArgs({ args: [...argv], allowPositionals: true, options });
  const unknown = positionals.find((name) => !BENCHES.has(name));
  if (values.help || positionals.length === 0 || unknown !== undefined) {
    process.stderr.write(`${unknown === undefined ? '' : `no bench '${unknown}'\n\n`}${USAGE}\n`);
    return values.help ? 0 : 2;
  }
  if (values.only !== undefined && values.only !== 'ours' && values.only !== 'reference')
    throw new Error(`--only is ours or reference, not '${values.only}'`);
  const sides: ReadonlySet<Side> = new Set(values.only === undefined ? ['ours', 'reference'] : [values.only]);
  const reports = [];
  for (const name of positionals) {
    const bench = BENCHES.get(name);
    if (!bench) continue;
    const log = (message: string): void => void process.stderr.write(`  ${message}\n`);
    const trials = count('trials', values.trials) ?? bench.trials;
    const context = {
      sides,
      trials,
      referenceTrials: count('reference-trials', values['reference-trials']) ?? trials,
      hosts: count('hosts', values.hosts) ?? null,
      dir: values.dir ?? DEFAULT_DIR,
      log,
    };
    const report = await bench.run(context);
    reports.push(report);
    process.stdout.write(`${formatReport(report)}\n\n`);
  }
  if (values.json !== undefined) writeFileSync(values.json, `${JSON.stringify(reports, null, 2)}\n`);
  return reports.every(targetsReached) ? 0 : 1;
}

function count(name: string, text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  if (!/^[1-9]\d{0,3}$/.test(text)) throw new Error(`--${name} is a number from 1, not '${text}'`);
  return Number(text);
}

try {
  process.exitCode = await main(process.argv.slice(2));
} catch (error) {
  process.stderr.write(`bench: ${error instanceof Error ? error.message : String(error)}\n`);
  process.exitCode = 2;
}

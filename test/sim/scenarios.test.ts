import { readdirSync, readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { runScenario } from '../../src/scenario/runner.ts';
import { parseScenario } from '../../src/scenario/schema.ts';
import { simulatedStage } from '../../src/sim/simulated-stage.ts';

const dir = new URL('../../scenarios/', import.meta.url);
const files = readdirSync(dir).filter((name) => name.endsWith('.yaml'));

const unmet = async (file: string, seed: string): Promise<string[]> => {
  const scenario = parseScenario(readFileSync(new URL(file, dir), 'utf8'), file);
  const stage = simulatedStage({ dir: '', log: () => {}, keep: false });
  const { verdict } = await runScenario(scenario, stage, { seed });
  return verdict.findings
    .filter((f) => !f.held)
    .map((f) => `${f.what}: expected ${f.expected}, happened ${f.happened}`);
};

test('there are scenarios', () => {
  expect(files.length).toBeGreaterThanOrEqual(9);
});

/** Copies that a scenario starts, from which on one seed is enough of it. */
const LARGE = 100;

test.each(files)('%s holds on virtual time', async (file) => {
  const scenario = parseScenario(readFileSync(new URL(file, dir), 'utf8'), file);
  const { supports } = simulatedStage({ dir: '', log: () => {}, keep: false });
  // What only real hosts can do is played there.
  if (scenario.faults.some((f) => f.do !== 'kill-master' && !supports.has(f.do))) return;
  const copies = scenario.load.reduce((sum, load) => sum + (load.count ?? 1), 0);
  for (const seed of copies > LARGE ? ['1'] : ['1', '2', '3'])
    expect([seed, await unmet(file, seed)]).toEqual([seed, []]);
});

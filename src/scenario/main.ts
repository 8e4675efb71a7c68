import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { TaskOrgError, toTaskOrgError } from '../model/errors.ts';
import { formatResult } from './print.ts';
import { runScenario } from './runner.ts';
import { parseScenario, type ScenarioDocument } from './schema.ts';
import { STAGES } from './stages.ts';
import type { ScenarioStage, StageFactory } from './types.ts';

export const SCENARIO_USAGE = `usage: scenario run NAME|FILE... [options]
       scenario list

  --stage processes|hosts   where to play it (default: processes; hosts needs root)
  --runtime docker|process  instead of the scenario's own
  --seed TEXT               of every random choice
  --dir DIR                 disks and logs (default: a directory under ${tmpdir()})
  --times judged|shown      shown: a limit of time that is passed fails nothing (a machine short of CPU)
  --keep                    leave disks and logs, and on hosts everything, as they are at the end
  --json                    one JSON document per scenario instead of text

exit code: 0 all held, 1 an expectation did not hold, 2 it could not be run`;

export interface ScenarioIo {
  readonly stages?: ReadonlyMap<string, StageFactory>;
  readonly out?: (text: string) => void;
  readonly err?: (text: string) => void;
}

/** The \`scenario\` command. Returns the exit code; never throws. */
export async function scenarioMain(argv: readonly string[], io: ScenarioIo = {}): Promise<number> {
  const out = io.out ?? ((text) => process.stdout.write(`${text}\n`));
  const err = io.err ?? ((text) => process.stderr.write(`${text}\n`));
  try {
    const { values, positionals } = parseArgs({
      args: [...argv],
      allowPositionals: true,
      options: {
        stage: { type: 'string', default: 'processes' },
        runtime: { type: 'string' },
        seed: { type: 'string' },
        dir: { type: 'string' },
        times: { type: 'string', default: 'judged' },
        keep: { type: 'boolean', default: false },
        json: { type: 'boolean', default: false },
        help: { type: 'boolean', default: false },
      },
    });
    const [verb, ...names] = positionals;
    if (verb === 'list' && !values.help) {
      for (const one of listScenarios()) out(`${one.name.padEnd(20)} ${one.description.trim().split('\n')[0]}`);
      return 0;
    }
    if (values.help || verb !== 'run' || names.length === 0) {
      (values.help ? out : err)(SCENARIO_USAGE);
      return values.help ? 0 : 2;
    }
    const stages = io.stages ?? STAGES;
    const factory = stages.get(values.stage);
    if (!factory)
      throw new TaskOrgError('invalid_input', `no stage '${values.stage}': ${[...stages.keys()].join(', ')}`);
    if (values.runtime !== undefined && values.runtime !== 'docker' && values.runtime !== 'process')
      throw new TaskOrgError('invalid_input', `--runtime is docker or process, not '${values.runtime}'`);
    if (values.times !== 'judged' && values.times !== 'shown')
      throw new TaskOrgError('invalid_input', `--times is judged or shown, not '${values.times}'`);
    let held = true;
    for (const scenario of names.map(loadScenario)) {
      const runtime = values.runtime ?? scenario.topology.runtime;
      const stage = factory({
        dir: values.dir ?? join(tmpdir(), 'task-org-scenario'),
        keep: values.keep,
        log: (message) => err(`  ${message}`),
      });
      const seed = values.seed === undefined ? {} : { seed: values.seed };
      const times = values.times;
      const unhook = stopWhenInterrupted(stage);
      const result = await runScenario({ ...scenario, topology: { ...scenario.topology, runtime } }, stage, {
        ...seed,
        times,
      }).finally(unhook);
      out(values.json ? JSON.stringify(result) : formatResult(result));
      held &&= result.verdict.held;
    }
    return held ? 0 : 1;
  } catch (cause) {
    const error = toTaskOrgError(cause);
    err(`scenario: ${error.message}${error.hint === undefined ? '' : `\n  next: ${error.hint}`}`);
    return 2;
  }
}

/** Ctrl-C must not leave hosts and peers behind. Returns what takes the hook away. */
function stopWhenInterrupted(stage: ScenarioStage): () => void {
  const interrupted = (): void => void stage.stop().finally(() => process.exit(130));
  process.once('SIGINT', interrupted);
  process.once('SIGTERM', interrupted);
  return () => {
    process.off('SIGINT', interrupted);
    process.off('SIGTERM', interrupted);
  };
}

/** By name from the scenarios that come with the program, or by path. Throws invalid_input with every wrong field, or not_found. */
export function loadScenario(nameOrPath: string): ScenarioDocument {
  const own = join(scenarioDirectory(), `${nameOrPath}.yaml`);
  const path = existsSync(own) ? own : nameOrPath;
  if (!existsSync(path))
    throw new TaskOrgError('not_found', `no scenario ${nameOrPath}`, {
      hint: `\`scenario list\` names those that come with the program: ${listScenarios()
        .map((one) => one.name)
        .join(', ')}`,
    });
  return parseScenario(readFileSync(path, 'utf8'), path);
}

export function listScenarios(): readonly ScenarioDocument[] {
  const dir = scenarioDirectory();
  return readdirSync(dir)
    .filter((name) => name.endsWith('.yaml'))
    .sort()
    .map((name) => parseScenario(readFileSync(join(dir, name), 'utf8'), name));
}

/** `scenarios/` beside `dist/` or `src/`. */
function scenarioDirectory(): string {
  const here = dirname(fileURLToPath(import.meta.url));
  const candidates = [join(here, '..', 'scenarios'), join(here, '..', '..', 'scenarios')];
  const found = candidates.find((path) => existsSync(join(path, 'kill-one.yaml')));
  if (found === undefined)
    throw new TaskOrgError('not_found', 'the directory `scenarios` is missing from this installation');
  return found;
}

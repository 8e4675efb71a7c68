import { fork } from 'node:child_process';
import { availableParallelism } from 'node:os';
import { parseArgs } from 'node:util';
import { type CampaignResult, runCampaign } from '../sim/campaign.ts';
import { DEFECTS, type Defect } from '../sim/defects.ts';
import { HUNT_SEEDS, hunt } from '../sim/hunt.ts';
import { runStalls } from '../sim/stalls.ts';
import { createTrace } from '../sim/trace.ts';
import { NO_TALLY, type Tally } from '../sim/world.ts';

// `npm run simulate`: many seeds of the random campaign, on all cores, until the cluster-hours asked for are reached. A broken
// invariant ends it with the seed that replays it.

const USAGE = `Usage: npm run simulate -- [options]

  --hours N        cluster-hours to simulate (default 1)
  --machines N     machines in each cluster, or 'mixed': 1 to 9, by the seed (default 5)
  --seed TEXT      first part of every seed (default: the date)
  --seconds N      simulated seconds under faults per seed (default 1800)
  --fault-every S  seconds between faults, on average (default 10)
  --at-most S      begin no further seed after S real seconds, however few hours that makes
  --workers N      processes (default: one per core)
  --replay SEED    run one seed, and say what broke
  --replay-check N run N seeds twice each (of 20 simulated seconds unless --seconds says otherwise), and compare the traces
  --defects        look for every planted defect (with NAME after it: for these), and print a table of what found it
  --stalls         break nothing, but let agents stand still for 2 s at random, 30 % of the time, and count false deaths
`;

const REPLAY_CHECK_SECONDS = 20;

interface Settings {
  readonly hours: number;
  /** Real seconds after which no further seed is begun. */
  readonly atMostSeconds: number;
  /** Undefined: 1 to 9, by the seed. */
  readonly machines: number | undefined;
  readonly seed: string;
  readonly seconds: number;
  readonly faultEveryMs: number;
}

type WorkerMessage =
  | { readonly type: 'result'; readonly result: CampaignResult }
  | { readonly type: 'broken'; readonly seed: string; readonly error: string };

function runSeed(settings: Settings, seed: string): CampaignResult {
  return runCampaign({
    seed,
    ...(settings.machines === undefined ? {} : { machines: settings.machines }),
    seconds: settings.seconds,
    faultEveryMs: settings.faultEveryMs,
    tasks: 6,
  });
}

/** Messages live for a moment: a larger nursery costs memory and saves most of the collector's work. */
const YOUNG_SPACE = '--max-semi-space-size=64';

/** A worker takes seeds as they come and answers one message each. */
function work(): void {
  process.on('message', ({ settings, seed }: { settings: Settings; seed: string }) => {
    try {
      process.send?.({ type: 'result', result: runSeed(settings, seed) } satisfies WorkerMessage);
    } catch (error) {
      process.send?.({
        type: 'broken',
        seed,
        error: error instanceof Error ? (error.stack ?? error.message) : String(error),
      } satisfies WorkerMessage);
    }
  });
}

/** What a seed alone does not say. */
const replayFlags = (s: Settings): string =>
  `--machines ${s.machines ?? 'mixed'} --seconds ${s.seconds} --fault-every ${s.faultEveryMs / 1000}`;

/** One hash over the traces of all seeds, whatever the order in which they ended. */
function traceOf(traces: ReadonlyMap<string, string>): string {
  const all = createTrace();
  for (const seed of [...traces.keys()].sort()) all.effect({ seed, trace: traces.get(seed) });
  return all.digest();
}

async function lead(settings: Settings, workers: number): Promise<number> {
  const startedAt = performance.now();
  const total: Tally = { ...NO_TALLY };
  let simulatedMs = 0;
  let seeds = 0;
  let next = 0;
  let exclusiveRuns = 0;
  let accepted = 0;
  let thawed = 0;
  let thawedMs = 0;
  const traces = new Map<string, string>();
  const broken: Extract<WorkerMessage, { type: 'broken' }>[] = [];
  await Promise.all(
    Array.from({ length: workers }, () => {
      let seed = '';
      const child = fork(process.argv[1] as string, ['--worker'], {
        stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
        execArgv: [...process.execArgv, YOUNG_SPACE],
      });
      const give = (): boolean => {
        const over = (performance.now() - startedAt) / 1000 >= settings.atMostSeconds;
        if (broken.length > 0 || over || simulatedMs >= settings.hours * 3_600_000) {
          child.disconnect();
          return false;
        }
        seed = `${settings.seed}-${next++}`;
        child.send({ settings, seed });
        return true;
      };
      child.on('message', (message: WorkerMessage) => {
        if (message.type === 'broken') broken.push(message);
        else {
          const { result } = message;
          simulatedMs += result.simulatedMs;
          exclusiveRuns += result.exclusiveRuns;
          accepted += result.accepted;
          thawed += result.thawed;
          thawedMs += result.thawedMs;
          seeds += 1;
          traces.set(result.seed, result.trace);
          for (const key of Object.keys(total) as (keyof Tally)[]) total[key] += result.tally[key];
        }
        give();
      });
      give();
      return new Promise<void>((resolve) =>
        child.once('exit', (code) => {
          if (code !== 0) broken.push({ type: 'broken', seed, error: `its worker ended with code ${code}` });
          resolve();
        }),
      );
    }),
  );
  const seconds = (performance.now() - startedAt) / 1000;
  process.stdout.write(
    `simulated ${(simulatedMs / 3_600_000).toFixed(1)} cluster-hours of ${settings.machines ?? '1 to 9'} machines in ${seconds.toFixed(0)} s (${(simulatedMs / 1000 / seconds).toFixed(0)} simulated seconds a second), seeds ${settings.seed}-0 to ${settings.seed}-${Math.max(0, next - 1)} (${seeds} ended)\n`,
  );
  process.stdout.write(
    `${Object.entries(total)
      .map(([k, v]) => `${k} ${v}`)
      .join(
        ', ',
      )}, accepted tasks ${accepted}, exclusive runs ${exclusiveRuns}, of which ${thawed} ran on for ${thawedMs} ms in all when their frozen machine thawed; trace ${traceOf(traces)}\n`,
  );
  for (const b of broken)
    process.stdout.write(
      `BROKEN with seed ${b.seed} (npm run simulate -- --replay ${b.seed} ${replayFlags(settings)}):\n${b.error}\n`,
    );
  if (broken.length === 0) process.stdout.write('every invariant held after every event\n');
  return broken.length === 0 ? 0 : 1;
}

/** Each seed twice: the same events and effects, or it is no replay. */
function checkReplays(settings: Settings, count: number): number {
  let same = 0;
  let simulatedMs = 0;
  for (let i = 0; i < count; i++) {
    const seed = `${settings.seed}-${i}`;
    const [once, again] = [runSeed(settings, seed), runSeed(settings, seed)];
    simulatedMs += once.simulatedMs + again.simulatedMs;
    if (JSON.stringify(once) === JSON.stringify(again)) same += 1;
    else process.stdout.write(`NO REPLAY: seed ${seed} gave trace ${once.trace}, then ${again.trace}\n`);
  }
  process.stdout.write(
    `${same} of ${count} seeds replay to the same trace, event by event (${(simulatedMs / 3_600_000).toFixed(2)} simulated hours, seeds ${settings.seed}-0 to ${settings.seed}-${count - 1})\n`,
  );
  return same === count ? 0 : 1;
}

/** The table of planted defects. */
function findDefects(names: readonly string[]): number {
  const wanted = Object.keys(DEFECTS).filter((name) => names.length === 0 || names.includes(name)) as Defect[];
  const rules = new Set<string>();
  let survived = 0;
  let most = 0;
  process.stdout.write('| Defect | What it does | Seeds | Found by |\n| --- | --- | --: | --- |\n');
  for (const defect of wanted) {
    const { seeds, rule } = hunt(defect);
    if (seeds === undefined) survived += 1;
    else {
      rules.add(rule);
      most = Math.max(most, seeds);
    }
    process.stdout.write(
      `| \`${defect}\` | ${DEFECTS[defect]} | ${seeds ?? `over ${HUNT_SEEDS}`} | ${rule || 'NOTHING'} |\n`,
    );
  }
  process.stdout.write(
    `\n${wanted.length - survived} of ${wanted.length} planted defects found, each within ${most} seeds, by ${rules.size} different rules\n`,
  );
  return survived === 0 ? 0 : 1;
}

/** Every false death is printed: there are to be none. */
function countFalseDeaths(settings: Settings): number {
  const machines = settings.machines ?? 5;
  const seconds = Math.min(settings.seconds, settings.hours * 3600);
  let nodeHours = 0;
  let deaths = 0;
  let verdicts = 0;
  let stalls = 0;
  let elections = 0;
  let seeds = 0;
  for (; nodeHours < settings.hours * machines; seeds++) {
    const result = runStalls({ seed: `${settings.seed}-${seeds}`, machines, seconds });
    nodeHours += result.nodeHours;
    deaths += result.falseDeaths;
    verdicts += result.falseVerdicts;
    stalls += result.stalls;
    elections += result.elections;
    if (result.falseDeaths > 0) process.stdout.write(`false deaths with seed ${result.seed}: ${result.falseDeaths}\n`);
  }
  process.stdout.write(
    `${nodeHours.toFixed(1)} node-hours of ${machines} machines, ${seeds} seeds: ${stalls} stalls of 2 s (an agent stood still ${((stalls * 2) / (nodeHours * 36)).toFixed(1)} % of the time), ${elections} elections; ${deaths} live machines called dead (by ${verdicts} peers in all), which is ${((deaths / nodeHours) * 10_000).toFixed(1)} in 10,000 node-hours\n`,
  );
  return deaths === 0 ? 0 : 1;
}

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    hours: { type: 'string', default: '1' },
    'at-most': { type: 'string' },
    machines: { type: 'string', default: '5' },
    seed: { type: 'string', default: new Date().toISOString().slice(0, 10) },
    seconds: { type: 'string' },
    'fault-every': { type: 'string', default: '10' },
    workers: { type: 'string', default: String(availableParallelism()) },
    replay: { type: 'string' },
    'replay-check': { type: 'string' },
    defects: { type: 'boolean' },
    stalls: { type: 'boolean' },
    worker: { type: 'boolean' },
    help: { type: 'boolean' },
  },
});
const settings: Settings = {
  hours: Number(values.hours),
  atMostSeconds: Number(values['at-most'] ?? Number.POSITIVE_INFINITY),
  machines: values.machines === 'mixed' ? undefined : Number(values.machines),
  seed: values.seed,
  seconds: Number(values.seconds ?? (values['replay-check'] === undefined ? 1800 : REPLAY_CHECK_SECONDS)),
  faultEveryMs: Number(values['fault-every']) * 1000,
};
if (values.help) process.stdout.write(USAGE);
else if (values.worker) work();
else if (values.defects) process.exitCode = findDefects(positionals);
else if (values.stalls) process.exitCode = countFalseDeaths(settings);
else if (values['replay-check'] !== undefined)
  process.exitCode = checkReplays(settings, Number(values['replay-check']));
else if (values.replay !== undefined)
  process.stdout.write(`${JSON.stringify(runSeed(settings, values.replay), null, 2)}\n`);
else process.exitCode = await lead(settings, Number(values.workers));

import { type ChildProcess, fork } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { runHostileMember } from '../fuzz/hostile-member.ts';
import { type Chunk, type Failure, noTally, runChunk, type Tally } from '../fuzz/run-target.ts';
import type { FuzzTarget } from '../fuzz/target.ts';
import { allTargets } from '../fuzz/targets.ts';

// `npm run fuzz`: broken inputs for every decoder, and a member that lies to real peers. Ends with code 1 and the smallest input
// that fails, if any does.

const USAGE = `Usage: npm run fuzz -- [options]

  --inputs N      inputs in all, shared out by weight (default 1000000)
  --messages N    sound-looking messages of a member gone bad (default 200000; 0 = none)
  --seed TEXT     what all inputs are drawn from (default: the date)
  --target NAME   this target alone, or 'hostile-member'
  --workers N     processes (default 1)
  --list          names of the targets
`;

/** The member gone bad, among the targets. */
const HOSTILE = 'hostile-member';
const CHUNK_INPUTS = 5000;
const CHUNK_MESSAGES = 2000;
/** Between two lines that say how far it is. */
const PROGRESS_MS = 30_000;
/** A worker that says nothing for so long hangs. */
const PATIENCE_MS = 300_000;

interface Job extends Chunk {
  readonly target: string;
}
type Answer = { readonly job: Job; readonly tally: Tally; readonly failure?: Failure };

async function runJob(
  targets: ReadonlyMap<string, FuzzTarget>,
  job: Job,
  before?: (bytes: Uint8Array) => void,
): Promise<Answer> {
  const tally = noTally();
  if (job.target === HOSTILE) return lies(job, tally);
  const failure = await runChunk(targets.get(job.target) as FuzzTarget, job, tally, before);
  return failure === undefined ? { job, tally } : { job, tally, failure };
}

function lies(job: Job, tally: Tally): Answer {
  const startedAt = performance.now();
  const seed = `${job.seed}/${job.index}`;
  try {
    const { told, refused, slowestMs } = runHostileMember(seed, job.inputs);
    const totalMs = performance.now() - startedAt;
    return { job, tally: { inputs: told, accepted: told, refused, slowestMs, totalMs } };
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    return { job, tally, failure: { target: HOSTILE, reason, hex: '', bytes: 0, seed } };
  }
}

/** A worker does one job after another. `--witness FILE`: each input is written down before it is tried. */
function work(witness: string | undefined): void {
  const targets = new Map(allTargets().map((t) => [t.name, t]));
  const before = witness === undefined ? undefined : (bytes: Uint8Array) => writeFileSync(witness, bytes);
  process.on('message', (job: Job) => void runJob(targets, job, before).then((answer) => process.send?.(answer)));
}

const start = (extra: readonly string[]): ChildProcess =>
  fork(process.argv[1] as string, ['--worker', ...extra], {
    stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
    execArgv: [...process.execArgv, '--max-old-space-size=768', '--max-semi-space-size=32'],
  });

/** The answer, or why there is none: the worker hangs, or ended. */
function ask(child: ChildProcess, job: Job): Promise<Answer | string> {
  return new Promise((resolve) => {
    const done = (outcome: Answer | string): void => {
      clearTimeout(timer);
      child.off('message', done).off('exit', onExit);
      resolve(outcome);
    };
    const onExit = (code: number | null, signal: string | null): void => done(`the process ended (${code ?? signal})`);
    const timer = setTimeout(() => {
      child.kill('SIGKILL');
      done(`no answer within ${PATIENCE_MS / 1000} s`);
    }, PATIENCE_MS);
    child.on('message', done).once('exit', onExit);
    child.send(job);
  });
}

/** Does a job again whose worker was lost, writing each input down first: the last one is what did it. */
async function findKiller(job: Job, reason: string): Promise<Failure> {
  const dir = mkdtempSync(join(tmpdir(), 'task-org-fuzz-'));
  const file = join(dir, 'input');
  try {
    const child = start(['--witness', file]);
    await ask(child, job);
    child.kill('SIGKILL');
    const bytes = job.target === HOSTILE ? new Uint8Array(0) : readFileSync(file);
    const hex = Buffer.from(bytes).toString('hex');
    return { target: job.target, reason, hex, bytes: bytes.length, seed: `${job.seed} chunk ${job.index}` };
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
}

function jobs(targets: readonly FuzzTarget[], o: Options): Job[] {
  const chosen = targets.filter((t) => o.target === undefined || t.name === o.target);
  const weights = chosen.reduce((sum, t) => sum + t.weight, 0);
  const list: Job[] = [];
  const share = (target: string, count: number, size: number): void => {
    for (let index = 0; index * size < count; index++)
      list.push({ target, seed: o.seed, index, inputs: Math.min(size, count - index * size) });
  };
  for (const t of chosen) share(t.name, Math.ceil((o.inputs * t.weight) / weights), CHUNK_INPUTS);
  if (o.target === undefined || o.target === HOSTILE) share(HOSTILE, o.messages, CHUNK_MESSAGES);
  // By index, so that every target has had a turn when a run is cut short.
  return list.sort((a, b) => a.index - b.index);
}

interface Options {
  readonly inputs: number;
  readonly messages: number;
  readonly seed: string;
  readonly target: string | undefined;
  readonly workers: number;
}

async function lead(targets: readonly FuzzTarget[], o: Options): Promise<number> {
  const queue = jobs(targets, o);
  const tallies = new Map<string, Tally>();
  const failures = new Map<string, Failure>();
  const startedAt = performance.now();
  const all = queue.length;
  let done = 0;
  let saidAt = startedAt;
  const turn = async (): Promise<void> => {
    let child = start([]);
    for (let job = queue.shift(); job !== undefined; job = queue.shift()) {
      // One failure of a target is enough: it is to be mended first.
      if (failures.has(job.target)) continue;
      const answer = await ask(child, job);
      if (typeof answer === 'string') {
        failures.set(job.target, await findKiller(job, answer));
        child = start([]);
        continue;
      }
      add(tallies, job.target, answer.tally);
      done += 1;
      if (performance.now() - saidAt > PROGRESS_MS) {
        saidAt = performance.now();
        process.stderr.write(`${done} of ${all} chunks\n`);
      }
      if (answer.failure) failures.set(job.target, answer.failure);
    }
    if (child.connected) child.disconnect();
  };
  process.once('SIGINT', () => void queue.splice(0));
  process.once('SIGTERM', () => void queue.splice(0));
  await Promise.all(Array.from({ length: o.workers }, turn));
  print(tallies, (performance.now() - startedAt) / 1000, o.seed);
  for (const f of failures.values()) report(f);
  return failures.size === 0 ? 0 : 1;
}

function add(tallies: Map<string, Tally>, name: string, t: Tally): void {
  const sum = tallies.get(name) ?? noTally();
  tallies.set(name, {
    inputs: sum.inputs + t.inputs,
    accepted: sum.accepted + t.accepted,
    refused: sum.refused + t.refused,
    slowestMs: Math.max(sum.slowestMs, t.slowestMs),
    totalMs: sum.totalMs + t.totalMs,
  });
}

function print(tallies: ReadonlyMap<string, Tally>, seconds: number, seed: string): void {
  const line = (cells: readonly (string | number)[]): string =>
    cells.map((c, i) => (i === 0 ? String(c).padEnd(20) : String(c).padStart(11))).join(' ');
  const rows = [...tallies].map(([name, t]) =>
    line([name, t.inputs, t.accepted, t.refused, t.slowestMs.toFixed(1), Math.round((t.inputs / t.totalMs) * 1000)]),
  );
  const decoded = [...tallies].filter(([name]) => name !== HOSTILE).reduce((sum, [, t]) => sum + t.inputs, 0);
  process.stdout.write(
    `${[line(['target', 'inputs', 'accepted', 'refused', 'slowest ms', 'per second']), ...rows].join('\n')}\n${decoded} inputs, ${tallies.get(HOSTILE)?.inputs ?? 0} messages of a member gone bad, seed ${seed}, ${seconds.toFixed(0)} s\n`,
  );
}

function report(f: Failure): void {
  const file = `fuzz-${f.target}.hex`;
  if (f.hex !== '') writeFileSync(file, `${f.hex}\n`);
  const shown = f.hex.length > 400 ? `${f.hex.slice(0, 400)}...` : f.hex;
  process.stdout.write(
    `FAILED ${f.target}: ${f.reason}\n  seed ${f.seed}${f.hex === '' ? '' : `; ${f.bytes} bytes, in ${file}: ${shown}`}\n`,
  );
}

const { values } = parseArgs({
  options: {
    inputs: { type: 'string', default: '1000000' },
    messages: { type: 'string', default: '200000' },
    seed: { type: 'string', default: new Date().toISOString().slice(0, 10) },
    target: { type: 'string' },
    workers: { type: 'string', default: '1' },
    list: { type: 'boolean' },
    worker: { type: 'boolean' },
    witness: { type: 'string' },
    help: { type: 'boolean' },
  },
});
const named = (): string[] => [...allTargets().map((t) => t.name), HOSTILE];
if (values.help) process.stdout.write(USAGE);
else if (values.worker) work(values.witness);
else if (values.list) process.stdout.write(`${named().join('\n')}\n`);
else if (values.target !== undefined && !named().includes(values.target)) {
  process.stderr.write(`no target ${values.target}; there are: ${named().join(' ')}\n`);
  process.exitCode = 2;
} else
  process.exitCode = await lead(allTargets(), {
    inputs: Number(values.inputs),
    messages: Number(values.messages),
    seed: values.seed,
    target: values.target,
    workers: Number(values.workers),
  });

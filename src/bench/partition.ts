import { setTimeout as delay } from 'node:timers/promises';
import { type CopyLife, endOf, overlapsOf, startOf, totalMs } from '../campaign/overlap.ts';
import { TickFiles, tickCommand, uptimeMs } from '../campaign/witness.ts';
import { BUSYBOX_IMAGE } from '../scenario/hosts/image.ts';
import type { HostLab } from '../scenario/hosts/types.ts';
import type { TaskDocument } from '../scenario/types.ts';
import { percentile } from '../scenario/statistics.ts';
import { OurCluster } from './ours.ts';
import { SWARM_DEFAULTS, SWARM_FASTEST, Swarm, type SwarmSettings } from './reference/swarm.ts';
import type { BenchReport, Comparison, Series } from './report.ts';
import { type BenchContext, forReference, hostnames, onHosts } from './rig.ts';

const HOSTS = 5;
const MANAGERS = 3;
/** The container's host and one more; neither orders anything in Swarm. */
const MINORITY = 2;
const CUT_MS = 20_000;
const WATCHED_MS = 60_000;
const DOUBLED = 'two copies at once';
const ABSENT = 'longest time without a copy';

/** One partition: what was started on the last host, witnessed by the copies themselves. */
interface Watched {
  readonly doubledSeconds: number;
  readonly absentSeconds: number;
}

/**
 * A container that must run once; its host is cut off together with another, and comes back. How long two copies of it run.
 * Its copies tick; all hosts share the clock.
 */
export async function benchPartition(context: BenchContext): Promise<BenchReport> {
  const hosts = context.hosts ?? HOSTS;
  const series: Series[] = [];
  if (context.sides.has('ours')) series.push(...(await ours(context, hosts)));
  if (context.sides.has('reference')) {
    series.push(...(await swarm(forReference(context), hosts, 'swarm, defaults', SWARM_DEFAULTS)));
    series.push(...(await swarm(forReference(context), hosts, 'swarm, fastest working', SWARM_FASTEST)));
  }
  const doubled = (subject: string): Series | undefined =>
    series.find((one) => one.subject === subject && one.metric === DOUBLED);
  const own = doubled('task-org');
  const comparisons = ['swarm, defaults', 'swarm, fastest working'].flatMap((subject): Comparison[] => {
    const other = doubled(subject);
    return own && other ? [none(`${DOUBLED}: ${subject}`, own, other)] : [];
  });
  return {
    name: 'partition',
    setting: [
      `${hosts} hosts of one machine, one Docker Engine each; swarm has ${MANAGERS} managers, all in the majority`,
      `the container's host and one more cut off for ${CUT_MS / 1000} s, healed, watched for ${WATCHED_MS / 1000} s more`,
      'by the copies themselves: each writes the clock that all hosts share every 20 ms to a file outside the network',
    ],
    series,
    comparisons,
  };
}

/** Ours must be nothing at all: then any doubling of the reference's puts us ahead, and none puts us level. */
function none(metric: string, ours: Series, reference: Series): Comparison {
  const [a, b] = [Math.max(...ours.samples), percentile(reference.samples, 50)];
  return { metric, ours: a, reference: b, ratio: a > 0 ? 0 : b > 0 ? Number.POSITIVE_INFINITY : 1, target: 1 };
}

async function ours(context: BenchContext, hosts: number): Promise<readonly Series[]> {
  const document = (name: string): TaskDocument => ({
    name,
    image: BUSYBOX_IMAGE,
    command: tickCommand('container', name),
    stopSignal: 'SIGKILL',
    onPartition: 'stop',
  });
  return await trials(context, hosts, 'task-org', async (lab, all, name, watch) => {
    const cluster = new OurCluster(lab, all);
    try {
      await cluster.form();
      const task = await cluster.runOn(hosts, name, document);
      return await watch(task);
    } finally {
      cluster.close();
    }
  });
}

async function swarm(
  context: BenchContext,
  hosts: number,
  subject: string,
  settings: SwarmSettings,
): Promise<readonly Series[]> {
  return await trials(context, hosts, subject, async (lab, all, name, watch) => {
    const cluster = new Swarm(lab, all, Math.min(MANAGERS, hosts - MINORITY), settings);
    try {
      await cluster.form();
      await cluster.runOn(hosts, name, tickCommand('container', name));
      return await watch(name);
    } finally {
      cluster.close();
    }
  });
}

type Trial = (
  lab: HostLab,
  all: readonly number[],
  name: string,
  watch: (task: string) => Promise<Watched>,
) => Promise<Watched>;

/** Fresh hosts for each, since copies that were left behind would be in the next one's way. */
async function trials(context: BenchContext, hosts: number, subject: string, trial: Trial): Promise<readonly Series[]> {
  const results: Watched[] = [];
  for (let round = 1; round <= context.trials; round += 1) {
    const ticks = new TickFiles(context.dir, hostnames(hosts));
    try {
      const result = await onHosts(
        context,
        hosts,
        true,
        (lab, all) => trial(lab, all, `once${round}`, (task) => cutAndWatch(lab, all, ticks, task)),
        ticks.engineArgs,
      );
      results.push(result);
      context.log(`${subject}: doubled for ${result.doubledSeconds} s, absent for ${result.absentSeconds} s`);
    } finally {
      ticks.remove();
    }
  }
  return [
    { subject, metric: DOUBLED, unit: 's', samples: results.map((one) => one.doubledSeconds) },
    { subject, metric: ABSENT, unit: 's', samples: results.map((one) => one.absentSeconds) },
  ];
}

async function cutAndWatch(lab: HostLab, all: readonly number[], ticks: TickFiles, task: string): Promise<Watched> {
  const copies = (): readonly CopyLife[] => ticks.lives({ everything: true }).filter((life) => life.task === task);
  const at = uptimeMs();
  if (!copies().some((life) => endOf(life) > at - 1_000))
    throw new Error(`${task} runs, it is said, but does not tick`);
  await lab.partition([all.slice(0, -MINORITY), all.slice(-MINORITY)]);
  await delay(CUT_MS);
  await lab.heal();
  await delay(WATCHED_MS);
  const lives = copies();
  return {
    doubledSeconds: totalMs(overlapsOf(lives, [])) / 1000,
    absentSeconds: longestAbsence(lives, at, uptimeMs()) / 1000,
  };
}

function longestAbsence(lives: readonly CopyLife[], fromMs: number, toMs: number): number {
  let seen = fromMs;
  let longest = 0;
  for (const life of [...lives].sort((a, b) => startOf(a) - startOf(b))) {
    longest = Math.max(longest, startOf(life) - seen);
    seen = Math.max(seen, endOf(life));
  }
  return Math.max(longest, toMs - seen);
}

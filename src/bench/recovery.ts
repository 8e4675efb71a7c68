import { OurCluster } from './ours.ts';
import { SWARM_DEFAULTS, SWARM_FASTEST, Swarm, type SwarmSettings } from './reference/swarm.ts';
import { type BenchReport, compare, type Series } from './report.ts';
import { type BenchContext, forReference, onHosts, repeat } from './rig.ts';

const HOSTS = 5;
const MANAGERS = 3;
const OTHER = 'host lost, running elsewhere after';
const LEADER = 'host lost that is also master, running elsewhere after';

/** A task's host loses power: how long until its container runs elsewhere, as the other hosts' engines tell. */
export async function benchRecovery(context: BenchContext): Promise<BenchReport> {
  const hosts = context.hosts ?? HOSTS;
  const series: Series[] = [];
  if (context.sides.has('ours')) series.push(...(await ours(context, hosts)));
  if (context.sides.has('reference')) {
    series.push(...(await swarm(forReference(context), hosts, 'swarm, defaults', SWARM_DEFAULTS)));
    series.push(...(await swarm(forReference(context), hosts, 'swarm, fastest working', SWARM_FASTEST)));
  }
  const find = (subject: string, metric: string): Series | undefined =>
    series.find((one) => one.subject === subject && one.metric === metric);
  const comparisons = [OTHER, LEADER].flatMap((metric) => [
    compare(`${metric}: swarm's defaults`, find('task-org', metric), find('swarm, defaults', metric), 'smaller', 10),
    compare(
      `${metric}: swarm's fastest`,
      find('task-org', metric),
      find('swarm, fastest working', metric),
      'smaller',
      1,
    ),
  ]);
  return {
    name: 'recovery',
    setting: [
      `${hosts} hosts of one machine, one Docker Engine each, image already there; swarm has ${Math.min(MANAGERS, hosts)} managers`,
      'power cut without a FIN; times from the cut to the start event of another engine',
    ],
    series,
    comparisons: comparisons.filter((one) => one !== undefined),
  };
}

async function ours(context: BenchContext, hosts: number): Promise<readonly Series[]> {
  return await onHosts(context, hosts, true, async (lab, all) => {
    const cluster = new OurCluster(lab, all);
    try {
      await cluster.form();
      const trial = async (victim: number, prefix: string): Promise<number> => {
        const task = await cluster.runOn(victim, prefix);
        const elapsedMs = await cluster.timeRecovery(victim, task);
        await cluster.restore(victim);
        await cluster.removeTasks();
        return elapsedMs;
      };
      const other = await repeat(
        context,
        `task-org, ${OTHER}`,
        context.trials,
        async (round) => await trial(notThe(all, await cluster.master(), round), `w${round}`),
      );
      const leader = await repeat(
        context,
        `task-org, ${LEADER}`,
        context.trials,
        async (round) => await trial(await cluster.master(), `m${round}`),
      );
      return pair('task-org', other, leader);
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
  return await onHosts(context, hosts, true, async (lab, all) => {
    const cluster = new Swarm(lab, all, Math.min(MANAGERS, hosts), settings);
    try {
      await cluster.form();
      const trial = async (victim: number, service: string): Promise<number> => {
        await cluster.runOn(victim, service);
        const elapsedMs = await cluster.timeRecovery(victim, service);
        await lab.start(victim);
        await cluster.untilComplete();
        await cluster.remove(service);
        return elapsedMs;
      };
      const other = await repeat(
        context,
        `${subject}, ${OTHER}`,
        context.trials,
        async (round) => await trial(notThe(all, await cluster.leader(), round), `w${round}`),
      );
      const leader = await repeat(
        context,
        `${subject}, ${LEADER}`,
        context.trials,
        async (round) => await trial(await cluster.leader(), `m${round}`),
      );
      return pair(subject, other, leader);
    } finally {
      cluster.close();
    }
  });
}

/** Another host each round, the last ones first: those that order nothing. */
function notThe(all: readonly number[], leader: number, round: number): number {
  const rest = all.filter((host) => host !== leader).reverse();
  return rest[round % rest.length] ?? 1;
}

function pair(subject: string, other: readonly number[], leader: readonly number[]): readonly Series[] {
  return [
    { subject, metric: OTHER, unit: 'ms', samples: other },
    { subject, metric: LEADER, unit: 'ms', samples: leader },
  ];
}

import { OurCluster } from './ours.ts';
import { removeDirectDeploy, timeDirectDeploy } from './reference/engine.ts';
import { SWARM_DEFAULTS, Swarm } from './reference/swarm.ts';
import { type BenchReport, compare, type Series } from './report.ts';
import { type BenchContext, onHosts, repeat } from './rig.ts';

const HOSTS = 3;
const CONTAINERS = 200;
/** Containers in the making at once on a host, in the reference as in our own agent. */
const CONCURRENCY = 4;
const METRIC = `${CONTAINERS} containers, containers per second`;
/** Ordered one after the other, each when the one before runs. */
const SINGLES = 20;
const SINGLE = 'one container, from the order to its start';
/** What may lie between an order and the engine: commit, placement, the word to the machine chosen. */
const ALLOWED_MS = 100;

/** Many containers ordered at once, against the engines driven directly, with as many in the making at once. */
export async function benchDeploy(context: BenchContext): Promise<BenchReport> {
  const hosts = context.hosts ?? HOSTS;
  const series: Series[] = [];
  const rate = (elapsedMs: number): number => CONTAINERS / (elapsedMs / 1000);
  if (context.sides.has('ours')) {
    await onHosts(context, hosts, true, async (lab, all) => {
      const cluster = new OurCluster(lab, all);
      try {
        await cluster.form();
        await cluster.lastingMaster();
        const single = await repeat(context, `task-org, ${SINGLE}`, SINGLES, (n) => cluster.timeDeploy(`one${n}`, 1));
        await cluster.removeTasks();
        const many = await repeat(context, 'task-org', context.trials, async (round) => {
          const elapsedMs = await cluster.timeDeploy(`many${round}`, CONTAINERS);
          await cluster.removeTasks();
          return rate(elapsedMs);
        });
        series.push({ subject: 'task-org', metric: SINGLE, unit: 'ms', samples: single });
        series.push({ subject: 'task-org', metric: METRIC, unit: '1/s', samples: many });
      } finally {
        cluster.close();
      }
    });
  }
  if (context.sides.has('reference')) {
    await onHosts(context, hosts, true, async (lab, all) => {
      const single = await repeat(context, `engines directly, ${SINGLE}`, SINGLES, (n) =>
        timeDirectDeploy(lab, [all[n % all.length] ?? 1], 1, 1),
      );
      await removeDirectDeploy(lab, all);
      const many = await repeat(context, 'engines directly', context.trials, async () => {
        const elapsedMs = await timeDirectDeploy(lab, all, CONTAINERS, CONCURRENCY);
        await removeDirectDeploy(lab, all);
        return rate(elapsedMs);
      });
      series.push({ subject: 'engines directly', metric: SINGLE, unit: 'ms', samples: single });
      series.push({ subject: 'engines directly', metric: METRIC, unit: '1/s', samples: many });
    });
    series.push({ subject: 'swarm', metric: METRIC, unit: '1/s', samples: await swarm(context, hosts, rate) });
  }
  const find = (subject: string, metric = METRIC): Series | undefined =>
    series.find((one) => one.subject === subject && one.metric === metric);
  const engine = find('engines directly', SINGLE);
  const allowed = engine && { ...engine, samples: engine.samples.map((ms) => ms + ALLOWED_MS) };
  const comparisons = [
    compare(`order to start: the engine's time + ${ALLOWED_MS} ms`, find('task-org', SINGLE), allowed, 'smaller', 1),
    compare('rate: the engines directly', find('task-org'), find('engines directly'), 'larger', 0.8),
    compare('rate: swarm', find('task-org'), find('swarm'), 'larger'),
  ];
  return {
    name: 'deploy',
    setting: [
      `${hosts} hosts of one machine, ${CONCURRENCY} containers in the making at once on each, image already there`,
      'from the order to the last start',
    ],
    series,
    comparisons: comparisons.filter((one) => one !== undefined),
  };
}

async function swarm(
  context: BenchContext,
  hosts: number,
  rate: (elapsedMs: number) => number,
): Promise<readonly number[]> {
  return await onHosts(context, hosts, true, async (lab, all) => {
    const cluster = new Swarm(lab, all, all.length, SWARM_DEFAULTS);
    try {
      await cluster.form();
      return await repeat(context, 'swarm', context.trials, async (round) => {
        const elapsedMs = await cluster.timeDeploy(`many${round}`, CONTAINERS);
        await cluster.remove(`many${round}`);
        return rate(elapsedMs);
      });
    } finally {
      cluster.close();
    }
  });
}

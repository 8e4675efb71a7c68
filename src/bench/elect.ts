import { nodeName } from '../scenario/fleet.ts';
import { OurCluster } from './ours.ts';
import { ETCD_DEFAULTS, EtcdCluster, type EtcdSettings } from './reference/etcd.ts';
import { type BenchReport, compare, type Series } from './report.ts';
import { type BenchContext, forReference, onHosts, repeat } from './rig.ts';

const HOSTS = 3;
const METRIC = 'master lost, next one elected after';
/** Half of etcd's defaults: about as low as its own tuning guide goes on a LAN. */
const ETCD_TUNED: EtcdSettings = { heartbeatMs: 50, electionMs: 500 };

/** The master's host loses power: how long until a survivor knows the next master. */
export async function benchElect(context: BenchContext): Promise<BenchReport> {
  const hosts = context.hosts ?? HOSTS;
  const series: Series[] = [];
  if (context.sides.has('ours')) series.push(await ours(context, hosts));
  if (context.sides.has('reference')) {
    series.push(await etcd(forReference(context), hosts, 'etcd, defaults', ETCD_DEFAULTS));
    series.push(await etcd(forReference(context), hosts, 'etcd, 50 ms / 500 ms', ETCD_TUNED));
  }
  const find = (subject: string): Series | undefined => series.find((one) => one.subject === subject);
  const comparisons = [
    compare(`${METRIC}: etcd's defaults`, find('task-org'), find('etcd, defaults'), 'smaller', 1),
    compare(`${METRIC}: etcd tuned`, find('task-org'), find('etcd, 50 ms / 500 ms'), 'smaller'),
  ];
  return {
    name: 'elect',
    setting: [
      `${hosts} hosts of one machine`,
      'power cut without a FIN; times from the cut until the first survivor says who leads',
    ],
    series,
    comparisons: comparisons.filter((one) => one !== undefined),
  };
}

async function ours(context: BenchContext, hosts: number): Promise<Series> {
  return await onHosts(context, hosts, false, async (lab, all) => {
    const cluster = new OurCluster(lab, all);
    try {
      await cluster.form();
      const samples = await repeat(context, 'task-org', context.trials, async () => {
        const victim = await cluster.master();
        const old = nodeName(victim);
        // `term 7: this peer is leader; master node2`
        const elected = (message: string): boolean => {
          const master = /master (\S+)$/.exec(message)?.[1];
          return master !== undefined && master !== 'unknown' && master !== old;
        };
        const [elapsedMs = Number.NaN] = await cluster.timeEvents(
          victim,
          (event) => event.type === 'role' && elected(event.message),
          'first',
        );
        await cluster.restore(victim);
        return elapsedMs;
      });
      return { subject: 'task-org', metric: METRIC, unit: 'ms', samples };
    } finally {
      cluster.close();
    }
  });
}

async function etcd(context: BenchContext, hosts: number, subject: string, settings: EtcdSettings): Promise<Series> {
  return await onHosts(context, hosts, false, async (lab, all) => {
    const cluster = new EtcdCluster(lab, all, settings);
    await cluster.start();
    const samples = await repeat(context, subject, context.trials, async () => {
      const { elapsedMs, victim } = await cluster.timeElection();
      await lab.start(victim);
      await cluster.startMember(victim);
      return elapsedMs;
    });
    return { subject, metric: METRIC, unit: 'ms', samples };
  });
}

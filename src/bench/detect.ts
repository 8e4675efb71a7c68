import { nodeName } from '../scenario/fleet.ts';
import type { PeerEvent } from '../scenario/peer-client.ts';
import { OurCluster } from './ours.ts';
import { SerfCluster } from './reference/serf.ts';
import { type BenchReport, compare, type Series } from './report.ts';
import { type BenchContext, forReference, onHosts } from './rig.ts';

const HOSTS = 5;
const FIRST = 'host lost, first other knows after';
const ALL = 'host lost, all others know after';
const KILLED_FIRST = 'peer killed, first other knows after';
const KILLED_ALL = 'peer killed, all others know after';

/** A host loses power: how long until the others hold it for dead. */
export async function benchDetect(context: BenchContext): Promise<BenchReport> {
  const hosts = context.hosts ?? HOSTS;
  const series: Series[] = [];
  if (context.sides.has('ours')) series.push(...(await ours(context, hosts)));
  if (context.sides.has('reference')) series.push(...(await serf(forReference(context), hosts)));
  const find = (subject: string, metric: string): Series | undefined =>
    series.find((one) => one.subject === subject && one.metric === metric);
  return {
    name: 'detect',
    setting: [
      `${hosts} hosts of one machine; serf in its LAN profile`,
      'host lost: power cut without a FIN; peer killed: SIGKILL to boot and agent, the host lives on',
      'times from the blow to the event of each other member',
    ],
    series,
    comparisons: [FIRST, ALL]
      .map((metric) => compare(metric, find('task-org', metric), find('serf', metric), 'smaller', 1))
      .filter((one) => one !== undefined),
  };
}

async function ours(context: BenchContext, hosts: number): Promise<readonly Series[]> {
  return await onHosts(context, hosts, false, async (lab, all) => {
    const cluster = new OurCluster(lab, all);
    try {
      await cluster.form();
      const dead =
        (name: string) =>
        (event: PeerEvent): boolean =>
          event.type === 'node.dead' && event.subject === name;
      const lost = await collect(context, 'task-org', [FIRST, ALL], all, async (victim) => {
        const times = await cluster.timeEvents(victim, dead(nodeName(victim)), 'all');
        await cluster.restore(victim);
        return times;
      });
      const killed = await collect(context, 'task-org', [KILLED_FIRST, KILLED_ALL], all, async (victim) => {
        const strike = (host: number): Promise<number> => cluster.killPeer(host);
        const times = await cluster.timeEvents(victim, dead(nodeName(victim)), 'all', strike);
        await cluster.revivePeer(victim);
        return times;
      });
      return [...lost, ...killed];
    } finally {
      cluster.close();
    }
  });
}

async function serf(context: BenchContext, hosts: number): Promise<readonly Series[]> {
  return await onHosts(context, hosts, false, async (lab, all) => {
    const cluster = new SerfCluster(lab, all);
    await cluster.start();
    return await collect(context, 'serf', [FIRST, ALL], all, async (victim) => {
      const times = await cluster.timeDetection(victim);
      await lab.start(victim);
      await cluster.startAgent(victim);
      await cluster.untilComplete();
      return times;
    });
  });
}

async function collect(
  context: BenchContext,
  subject: string,
  metrics: readonly [string, string],
  all: readonly number[],
  trial: (victim: number) => Promise<readonly number[]>,
): Promise<readonly Series[]> {
  const first: number[] = [];
  const last: number[] = [];
  for (let round = 0; round < context.trials; round += 1) {
    const times = await trial(all[round % all.length] ?? 1);
    first.push(Math.min(...times));
    last.push(Math.max(...times));
    context.log(
      `${subject}, ${metrics[0].split(',')[0]}: first ${first.at(-1)} ms, all ${last.at(-1)} ms (${round + 1} of ${context.trials})`,
    );
  }
  return [
    { subject, metric: metrics[0], unit: 'ms', samples: first },
    { subject, metric: metrics[1], unit: 'ms', samples: last },
  ];
}

import { setTimeout as delay } from 'node:timers/promises';
import { memoryOf } from '../scenario/hosts/processes.ts';
import type { HostLab } from '../scenario/hosts/types.ts';
import { percentile } from '../scenario/statistics.ts';
import { OurCluster } from './ours.ts';
import { SerfCluster } from './reference/serf.ts';
import type { BenchReport, Comparison, Series } from './report.ts';
import { type BenchContext, onHosts } from './rig.ts';

const SIZES = [5, 50];
/** After everybody has joined, before measuring: what joining costs is not what idling costs. */
const REST_MS = 10_000;
const WINDOW_MS = 20_000;
const MIB = 1024 * 1024;
/** What a peer may cost. */
const LIMIT = { memoryMiB: 150, cpuPercent: 3 };

/** What a peer, boot included, costs its machine while nothing happens: memory, CPU and traffic, at several cluster sizes. */
export async function benchFootprint(context: BenchContext): Promise<BenchReport> {
  const sizes = context.hosts === null ? SIZES : [context.hosts];
  const series: Series[] = [];
  for (const size of sizes) {
    if (context.sides.has('ours')) {
      const form = async (lab: HostLab, all: readonly number[]): Promise<() => void> => {
        const cluster = new OurCluster(lab, all);
        await cluster.form();
        return () => cluster.close();
      };
      series.push(...(await measure(context, 'task-org', size, form)));
    }
    if (context.sides.has('reference')) {
      const form = async (lab: HostLab, all: readonly number[]): Promise<() => void> => {
        await new SerfCluster(lab, all).start();
        return () => {};
      };
      series.push(...(await measure(context, 'serf (membership alone)', size, form)));
    }
  }
  return {
    name: 'footprint',
    setting: [
      `idle for ${WINDOW_MS / 1000} s; every process of the host but its pid 1; one sample per host`,
      `limits: ${LIMIT.memoryMiB} MiB (PSS), ${LIMIT.cpuPercent} % of a core`,
    ],
    series,
    comparisons: series.flatMap((one) => againstLimit(one) ?? []),
  };
}

/** The limits, read as references: a ratio of at least 1 keeps them. */
function againstLimit(one: Series): Comparison | undefined {
  const limit = one.metric.startsWith('memory, PSS')
    ? LIMIT.memoryMiB
    : one.metric.startsWith('CPU')
      ? LIMIT.cpuPercent
      : undefined;
  if (limit === undefined || one.subject !== 'task-org') return undefined;
  const ours = percentile(one.samples, 50);
  return { metric: `${one.metric}: limit`, ours, reference: limit, ratio: limit / ours, target: 1 };
}

async function measure(
  context: BenchContext,
  subject: string,
  size: number,
  form: (lab: HostLab, all: readonly number[]) => Promise<() => void>,
): Promise<readonly Series[]> {
  return await onHosts(context, size, false, async (lab, all) => {
    const close = await form(lab, all);
    try {
      await delay(REST_MS);
      const before = all.map((host) => ({ cpu: lab.cpuSeconds(host).daemons, wire: lab.counters(host) }));
      await delay(WINDOW_MS);
      const seconds = WINDOW_MS / 1000;
      const cpu = all.map(
        (host, index) => ((lab.cpuSeconds(host).daemons - (before[index]?.cpu ?? 0)) / seconds) * 100,
      );
      const sent = all.map(
        (host, index) => (lab.counters(host).txBytes - (before[index]?.wire.txBytes ?? 0)) / seconds / 1024,
      );
      const packets = all.map(
        (host, index) => (lab.counters(host).txPackets - (before[index]?.wire.txPackets ?? 0)) / seconds,
      );
      const memory = all.map((host) => lab.pids(host).map(memoryOf));
      const sum = (pick: (one: { readonly pssBytes: number; readonly rssBytes: number }) => number): number[] =>
        memory.map((list) => list.reduce((total, one) => total + pick(one), 0) / MIB);
      const of = (metric: string, unit: string, samples: readonly number[]): Series => ({
        subject,
        metric: `${metric}, ${size} peers`,
        unit,
        samples,
      });
      context.log(`${subject}: ${size} peers measured`);
      return [
        of(
          'memory, PSS',
          'MiB',
          sum((one) => one.pssBytes),
        ),
        of(
          'memory, RSS',
          'MiB',
          sum((one) => one.rssBytes),
        ),
        of('CPU', '% of a core', cpu),
        of('sent', 'KiB/s', sent),
        of('sent', 'packets/s', packets),
      ];
    } finally {
      close();
    }
  });
}

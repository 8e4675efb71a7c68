import { until } from '../scenario/until.ts';
import { OurCluster } from './ours.ts';
import { pool } from './pool.ts';
import { ETCD_DEFAULTS, EtcdCluster } from './reference/etcd.ts';
import { type BenchReport, compare, type Series } from './report.ts';
import { type BenchContext, onHosts } from './rig.ts';
import { SettingsClient } from './settings-client.ts';

const HOSTS = 3;
const CLIENTS = 64;
const SEQUENTIAL_WRITES = 500;
const PARALLEL_WRITES = 10_000;
/** Before anything is measured: both sides' programs are warm then, as those of a cluster that has run for a minute. */
const WARM_UP_WRITES = 15_000;
const COMMIT_TIMEOUT_MS = 20_000;
const PAYLOAD_BYTES = 256;
/** Both sides write these keys again and again: our log holds few settings at once. */
const KEYS = 100;
const LATENCY = 'one write after the other, each';
const RATE = `${CLIENTS} clients at once`;
/** Go programs often share one HTTP/2 connection among all their clients, which serves etcd better. */
const SHARED = 'etcd, one connection for all';

/** One client's way to commit one record; the clients of both sides talk to the leader over a Unix socket. */
interface Committer {
  readonly commit: (key: string) => Promise<void>;
  readonly close: () => void;
}

/** Writes that are on the disks of a majority before the answer: latency one by one, and rate with many clients. */
export async function benchCommit(context: BenchContext): Promise<BenchReport> {
  const hosts = context.hosts ?? HOSTS;
  const series: Series[] = [];
  if (context.sides.has('ours')) series.push(...(await ours(context, hosts)));
  if (context.sides.has('reference')) series.push(...(await etcd(context, hosts)));
  const find = (subject: string, metric: string): Series | undefined =>
    series.find((one) => one.subject === subject && one.metric === metric);
  const comparisons = [
    compare(LATENCY, find('task-org', LATENCY), find('etcd', LATENCY), 'smaller', 1),
    compare(RATE, find('task-org', RATE), find('etcd', RATE), 'larger', 1),
    compare(`${RATE}: ${SHARED}`, find('task-org', RATE), find(SHARED, RATE), 'larger'),
  ];
  return {
    name: 'commit',
    setting: [
      `${hosts} hosts on the disk of one machine, so fsync costs both the same; ${PAYLOAD_BYTES} bytes a write`,
      `${SEQUENTIAL_WRITES} writes one by one, ${PARALLEL_WRITES} by ${CLIENTS} clients; ${context.trials} rounds after ${WARM_UP_WRITES} writes to warm up`,
    ],
    series,
    comparisons: comparisons.filter((one) => one !== undefined),
  };
}

async function ours(context: BenchContext, hosts: number): Promise<readonly Series[]> {
  return await onHosts(context, hosts, false, async (lab, all) => {
    const cluster = new OurCluster(lab, all);
    try {
      await cluster.form();
      const socket = cluster.fleet.socketPath(await cluster.lastingMaster());
      const value = 'x'.repeat(PAYLOAD_BYTES);
      const open = (): Committer => {
        const client = new SettingsClient(socket);
        // Mastery may change hands under us; the time that costs counts.
        const commit = (key: string): Promise<void> =>
          client.set(`user.${key}`, value).catch(() =>
            until('a write is committed', COMMIT_TIMEOUT_MS, async () => {
              await client.set(`user.${key}`, value);
              return true;
            }).then(() => {}),
          );
        return { commit, close: () => client.close() };
      };
      return await measure(context, 'task-org', open);
    } finally {
      cluster.close();
    }
  });
}

async function etcd(context: BenchContext, hosts: number): Promise<readonly Series[]> {
  return await onHosts(context, hosts, false, async (lab, all) => {
    const cluster = new EtcdCluster(lab, all, ETCD_DEFAULTS);
    await cluster.start();
    const leader = await cluster.leader();
    const value = 'x'.repeat(PAYLOAD_BYTES);
    const open = (): Committer => {
      const client = cluster.client(leader);
      return { commit: (key) => client.put(key, value), close: () => client.close() };
    };
    const own = await measure(context, 'etcd', open);
    const one = cluster.client(leader);
    const shared = (): Committer => ({ commit: (key) => one.put(key, value), close: () => {} });
    const [, rate] = await measure(context, SHARED, shared);
    one.close();
    return rate === undefined ? own : [...own, rate];
  });
}

async function measure(context: BenchContext, subject: string, open: () => Committer): Promise<readonly Series[]> {
  const latencies: number[] = [];
  const rates: number[] = [];
  const crowd = async (writes: number): Promise<number> => {
    const clients = Array.from({ length: CLIENTS }, open);
    const startedAt = performance.now();
    await pool(Array.from({ length: writes }), CLIENTS, async (_, index, worker) => {
      await clients[worker]?.commit(`bench.${index % KEYS}`);
    });
    const seconds = (performance.now() - startedAt) / 1000;
    for (const client of clients) client.close();
    return writes / seconds;
  };
  await crowd(WARM_UP_WRITES);
  for (let round = 0; round < context.trials; round += 1) {
    const one = open();
    for (let index = 0; index < SEQUENTIAL_WRITES; index += 1) {
      const startedAt = performance.now();
      await one.commit(`bench.${index % KEYS}`);
      latencies.push(performance.now() - startedAt);
    }
    one.close();
    rates.push(await crowd(PARALLEL_WRITES));
    context.log(
      `${subject}: ${rates.at(-1)?.toFixed(0)} writes/s with ${CLIENTS} clients (${round + 1} of ${context.trials})`,
    );
  }
  return [
    { subject, metric: LATENCY, unit: 'ms', samples: latencies },
    { subject, metric: RATE, unit: 'writes/s', samples: rates },
  ];
}

import { spawnSync } from 'node:child_process';
import { mkdirSync, readdirSync, readFileSync, rmSync, statSync, truncateSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { commandLine } from '../../../src/scenario/hosts/processes.ts';
import { processesOfPeer } from '../../../src/scenario/processes-of-peer.ts';
import { until } from '../../../src/scenario/until.ts';
import { sleeper, TestCluster, WAIT_MS } from '../../fixtures/cluster.ts';

// What stands in the records outlives the peers that hold them.

const isRoot = process.getuid?.() === 0;
/** Accepted, kept, and never run: no machine has the label. */
const waiting = (name: string): { readonly name: string } => sleeper(name, { constraints: ['node.labels.none==here'] });
const names = (prefix: string, count: number): string[] => Array.from({ length: count }, (_, i) => `${prefix}-${i}`);

async function expectRecords(cluster: TestCluster, node: number, expected: readonly string[]): Promise<void> {
  await until(`node${node} knows all ${expected.length} tasks`, WAIT_MS, async () => {
    const known = new Set((await cluster.tasks(node)).map((task) => task.name));
    return expected.every((name) => known.has(name));
  });
  const all = (await cluster.tasks(node)).map((task) => task.name);
  expect(new Set(all).size).toBe(all.length);
}

describe('three peers', () => {
  let cluster: TestCluster;
  const known: string[] = ['keeper'];
  let keeper: number | null | undefined;
  beforeAll(async () => {
    cluster = new TestCluster();
    if (isRoot) {
      // A disk of its own, small enough to fill up.
      mkdirSync(cluster.dataDir(3), { recursive: true });
      const mounted = spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=32m', 'tmpfs', cluster.dataDir(3)]);
      expect(mounted.stderr.toString()).toBe('');
    }
    await cluster.fleet.form({ peers: 3, joining: 0, witnesses: 0, runtime: 'process', seed: 'test' });
    await cluster.fleet.submit(sleeper('keeper', { constraints: ['node.name==node1'] }));
    keeper = (await cluster.untilRunning(1, 'keeper')).slots[0]?.startedAt;
    for (const name of names('first', 20)) await cluster.fleet.submit(waiting(name));
    known.push(...names('first', 20));
    await until('all three vote', WAIT_MS, async () => (await cluster.cluster(1)).voters.length === 3);
  });
  afterAll(async () => {
    if (isRoot) spawnSync('umount', ['-l', cluster.dataDir(3)]);
    await cluster?.dispose();
  });

  test('a truncated log: the peer says so, votes on nothing until it is admitted again, and has every record', async () => {
    await cluster.kill(2);
    const db = join(cluster.dataDir(2), 'db');
    const log =
      readdirSync(db)
        .filter((file) => file.endsWith('.log'))
        .map((file) => join(db, file))
        .sort((a, b) => statSync(b).size - statSync(a).size)[0] ?? '';
    truncateSync(log, Math.floor(statSync(log).size / 2));
    let left = false;
    await cluster.restart(2);
    expect(cluster.peer(2).text).toMatch(/the store has a problem/);
    await expectRecords(cluster, 2, known);
    const readmitted = until('it votes again', 2 * WAIT_MS, async () => {
      const voters = (await cluster.cluster(1)).voters;
      if (!voters.includes('node2')) left = true;
      return left && voters.includes('node2');
    });
    await cluster.fleet.submit(waiting('after-loss'));
    known.push('after-loss');
    for (const node of [1, 2, 3]) await expectRecords(cluster, node, known);
    await readmitted;
  });

  test('published while there is no master: it runs once there is one', async () => {
    await cluster.kill(1);
    await cluster.kill(2);
    const refused = await cluster.cli(3, ['run', '--runtime', 'process', '--name', 'ordered', '--', 'sleep', '100000']);
    expect(refused.stderr).toMatch(/Error: task ordered: .*\nHint: task-org cluster status/);
    const document = JSON.stringify(sleeper('hopeful'));
    const published = await cluster.cli(3, ['publish', '-f', '-'], document);
    expect(published.stderr).toBe('');
    const id = published.stdout.trim();
    expect((await cluster.call<{ verdict: string }>(3, 'GET', `/v1/submissions/${id}`)).verdict).toBe('pending');
    const status = await cluster.cli(3, ['cluster', 'status']);
    expect(status.stdout).toMatch(/quorum\s+NO/);
    await cluster.kill(3); // what was published stands on its disk
    await Promise.all([1, 2, 3].map((node) => cluster.restart(node)));
    await cluster.untilRunning(1, 'hopeful');
    expect((await cluster.tasks(2)).filter((task) => task.name === 'hopeful')).toHaveLength(1);
    known.push('hopeful');
    for (const node of [1, 2, 3]) await expectRecords(cluster, node, known);
    keeper = (await cluster.untilRunning(1, 'keeper')).slots[0]?.startedAt;
  });

  test.runIf(isRoot)(
    'a disk that fills up: the peer stops and says so, comes back with room, and has every record',
    async () => {
      const filler = join(cluster.dataDir(3), 'filler');
      spawnSync('dd', ['if=/dev/zero', `of=${filler}`, 'bs=4k']);
      const said = cluster.peer(3).text.length;
      let full: unknown;
      const fills = cluster
        .peer(3)
        .says(/disk .*full/, said)
        .then((match) => {
          full = match;
        });
      cluster.fleet.setReachable([3], false);
      for (let i = 0; full === undefined && i < 200; i += 1) {
        await cluster.fleet.submit(waiting(`full-${i}`));
        known.push(`full-${i}`);
      }
      await fills;
      for (const node of [1, 2]) await expectRecords(cluster, node, known);
      const back = cluster.peer(3).text.length;
      rmSync(filler);
      await cluster.peer(3).says(/"peer is up"/, back);
      await cluster.fleet.ready(3);
      await expectRecords(cluster, 3, known);
      expect((await cluster.task(1, 'keeper'))?.slots[0]?.startedAt).toBe(keeper);
    },
  );
});

describe('a peer that is removed', () => {
  let cluster: TestCluster;
  beforeAll(async () => {
    cluster = await TestCluster.start(4);
  });
  afterAll(async () => {
    await cluster?.dispose();
  });
  const secret = (node: number): string =>
    (JSON.parse(readFileSync(join(cluster.dataDir(node), 'cluster.json'), 'utf8')) as { secrets: string[] })
      .secrets[0] ?? '';

  test('is disconnected at once, cannot come back; the others talk on by a new secret, restarts included', async () => {
    const old = secret(1);
    await cluster.fleet.submit(
      sleeper('mover', { constraints: ['node.name!=node1', 'node.name!=node2', 'node.name!=node3'] }),
    );
    await cluster.untilRunning(1, 'mover');
    const alive = await cluster.cli(1, ['node', 'rm', 'node4']);
    expect(alive.stderr).toMatch(/Error: node4 is alive\nHint: .*task-org node rm --force node4/);
    const removed = await cluster.cli(1, ['node', 'rm', '--force', 'node4']);
    expect([removed.stderr, removed.code]).toEqual(['', 0]);
    const end = await cluster.peer(4).ended;
    expect(end.stderr).toMatch(/this peer was removed from the cluster/);
    expect(end.code).toBe(78);
    const copies = processesOfPeer(undefined, cluster.dataDir(4)).filter((pid) => commandLine(pid).includes('100000'));
    expect(copies).toEqual([]);
    expect(end.stderr.match(/"agent started"/g)).toHaveLength(1);
    for (const node of [1, 2, 3])
      await until(`node${node} has the new secret`, WAIT_MS, () => secret(node) !== old && secret(node) === secret(1));

    cluster.fleet.setReachable([4], false);
    await cluster.launch(4);
    const again = await cluster.peer(4).ended;
    expect(again.stderr).toMatch(/removed from the cluster/);
    expect(again.code).toBe(78);
    expect((await cluster.client(1).nodes()).items.map((node) => node.name)).toEqual(['node1', 'node2', 'node3']);
    expect((await cluster.task(1, 'mover'))?.state).toMatch(/pending|moving/);

    for (const node of [3, 2]) {
      await cluster.kill(node);
      await cluster.restart(node);
    }
    await cluster.fleet.untilAlive(3);
    await cluster.client(3).submit(sleeper('onwards'));
    await cluster.untilRunning(2, 'onwards');
  });
});

describe('a master that is killed again and again', () => {
  const COUNT = Number(process.env.FAULTS_TASKS ?? 300);
  const EVERY_MS = 2000;
  const IN_FLIGHT = 6;
  let cluster: TestCluster;
  beforeAll(async () => {
    cluster = await TestCluster.start(3);
  });
  afterAll(async () => {
    await cluster?.dispose();
  });

  test(`loses none of ${COUNT} accepted tasks, and doubles none`, { timeout: 600_000 }, async () => {
    const all = names('task', COUNT);
    const left = [...all];
    let kills = 0;
    let done = false;
    const from = Date.now();
    const submit = async (): Promise<void> => {
      // slow enough that masters die under it, whatever the machine
      for (let name = left.shift(); name !== undefined; name = left.shift()) {
        await cluster.fleet.submit(waiting(name));
        const due = from + (all.length - left.length) * 20;
        await until('the next is due', WAIT_MS, () => Date.now() >= due, 5);
      }
    };
    const kill = async (): Promise<void> => {
      while (!done) {
        const round = Date.now();
        const master = await until('there is a master', WAIT_MS, async () => await cluster.fleet.master());
        await cluster.kill(master);
        kills += 1;
        await cluster.restart(master);
        await until('the next kill is due', WAIT_MS, () => done || Date.now() - round >= EVERY_MS);
      }
    };
    const killing = kill();
    await Promise.all(Array.from({ length: IN_FLIGHT }, submit)).finally(() => {
      done = true;
    });
    await killing;
    console.log(`${COUNT} tasks accepted in ${Date.now() - from} ms while ${kills} masters were killed`);
    expect(kills).toBeGreaterThan(1);
    for (const node of [1, 2, 3]) {
      await expectRecords(cluster, node, all);
      expect(await cluster.tasks(node)).toHaveLength(COUNT);
    }
  });
});

import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { decodeToken } from '../../../src/model/token.ts';
import { until } from '../../../src/scenario/until.ts';
import { sleeper, TestCluster, WAIT_MS } from '../../fixtures/cluster.ts';
import { UNHURRIED, withEnvironment } from '../../fixtures/environment.ts';

async function startUnhurried(peers: number): Promise<TestCluster> {
  const cluster = await withEnvironment(UNHURRIED, () => TestCluster.start(peers));
  for (let node = 1; node <= peers; node += 1) cluster.extras.set(node, { env: UNHURRIED });
  return cluster;
}

describe('an agent that is killed', () => {
  let cluster: TestCluster;
  beforeAll(async () => {
    cluster = await startUnhurried(3);
  });
  afterAll(async () => {
    await cluster?.dispose();
  });

  test('is back at once, with its leases; nothing has moved or started again', async () => {
    const names = ['kept', 'sole'];
    await cluster.fleet.submit(sleeper('kept', { onPartition: 'keep', constraints: ['node.name==node2'] }));
    await cluster.fleet.submit(sleeper('sole', { onPartition: 'stop', constraints: ['node.name==node2'] }));
    const slots = async (): Promise<unknown[]> =>
      (await Promise.all(names.map((name) => cluster.task(1, name)))).map((task) => {
        const { node, generation, startedAt, handle, restarts } = task?.slots[0] ?? {};
        return { node, generation, startedAt, handle, restarts };
      });
    for (const name of names) await cluster.untilRunning(1, name);
    const before = await slots();
    const incarnation = (await cluster.node(1, 2))?.incarnation ?? 0;

    const from = Date.now();
    cluster.killAgent(2);
    await until(
      'the agent is back and says that its copies run',
      WAIT_MS,
      async () => {
        const node = await cluster.node(1, 2);
        const running = (await cluster.tasks(2)).filter(
          (task) => names.includes(task.name) && task.state === 'running',
        );
        return node?.status === 'alive' && node.incarnation > incarnation && running.length === 2;
      },
      10,
    );
    const backMs = Date.now() - from;
    console.log(`agent killed: back, known alive to the others, leases and copies taken over after ${backMs} ms`);

    // Past every deadline its lease had when it was killed (12 s): only renewals keep the exclusive copy alive now.
    await until('the old lease would have run out', WAIT_MS, () => Date.now() - from > 13_000);
    expect(await slots()).toEqual(before);
    for (const name of names) expect((await cluster.task(1, name))?.state).toBe('running');
    expect(cluster.peer(2).text.match(/"agent started"/g)).toHaveLength(2);
  });

  test('three more times in a row: still nothing has moved', async () => {
    const before = (await cluster.untilRunning(1, 'sole')).slots[0];
    for (let round = 0; round < 3; round += 1) {
      const said = cluster.peer(2).text.length;
      cluster.killAgent(2);
      await cluster.peer(2).says(/"peer is up"/, said);
    }
    const after = await cluster.untilTask(1, 'sole', (task) => task.slots[0]?.state === 'running', 'running');
    expect([after.slots[0]?.startedAt, after.slots[0]?.generation, after.slots[0]?.node]).toEqual([
      before?.startedAt,
      before?.generation,
      before?.node,
    ]);
  });
});

describe('a machine whose clock is an hour off', () => {
  let cluster: TestCluster;
  const env = (offsetMs: number): Readonly<Record<string, string>> => {
    const file = join(cluster.dir, `clock${offsetMs}.mjs`);
    mkdirSync(cluster.dir, { recursive: true });
    writeFileSync(
      file,
      `const now = Date.now.bind(Date), Real = Date;
globalThis.Date = class extends Real {
  constructor(...words) { if (words.length === 0) super(now() + ${offsetMs}); else super(...words); }
  static now() { return now() + ${offsetMs}; }
};\n`,
    );
    return { ...UNHURRIED, NODE_OPTIONS: `--import=file://${file}` };
  };
  const HOUR = 3_600_000;
  beforeAll(async () => {
    cluster = await startUnhurried(2);
  });
  afterAll(async () => {
    await cluster?.dispose();
  });

  test('ahead: a token of an hour has run out there, and the message points to the clocks', async () => {
    const token = await cluster.client(1).createToken(1);
    const args = ['--listen', '/ip4/127.0.0.1/tcp/0', '--runtime', 'process', '--join', token];
    const ended = await cluster.attempt(join(cluster.dir, 'ahead'), args, env(HOUR + 1000));
    expect(ended.stderr).toMatch(/token expired at .*\n.*compare the clocks of both machines/);
    expect(ended.code).toBe(78);
    expect(decodeToken(token).expiresAt).toBeGreaterThan(Date.now());
  });

  for (const [word, offset, node] of [
    ['behind', -HOUR, 3],
    ['ahead', HOUR, 4],
  ] as const) {
    test(`${word}: it joins, takes submissions, runs tasks, available and exclusive, and keeps them`, async () => {
      const token = (await cluster.call<{ token: string }>(1, 'POST', '/v1/tokens', { uses: 1, expiresMs: 3 * HOUR }))
        .token;
      cluster.extras.set(node, { env: env(offset) });
      await cluster.launch(node, token);
      await cluster.fleet.ready(node);
      await cluster.fleet.untilAlive(node);
      const constraints = [`node.name==node${node}`];
      for (const onPartition of ['keep', 'stop'])
        await cluster.client(node).submit(sleeper(`${word}-${onPartition}`, { onPartition, constraints }));
      const before = await Promise.all(['keep', 'stop'].map((kind) => cluster.untilRunning(1, `${word}-${kind}`)));
      cluster.killAgent(node);
      const from = Date.now();
      await until('its leases were renewed again and again', WAIT_MS, () => Date.now() - from > 13_000);
      const after = await Promise.all(['keep', 'stop'].map((kind) => cluster.untilRunning(1, `${word}-${kind}`)));
      expect(after.map((task) => task.slots[0]?.generation)).toEqual(before.map((task) => task.slots[0]?.generation));
      expect(after.map((task) => task.slots[0]?.handle)).toEqual(before.map((task) => task.slots[0]?.handle));
    });
  }

  test('as master: tokens and tasks go on', async () => {
    await cluster.kill(1);
    await cluster.kill(2);
    await cluster.restart(1);
    const uses = { uses: 1, expiresMs: HOUR };
    await until('there is a master again', WAIT_MS, async () => await cluster.call(4, 'POST', '/v1/tokens', uses));
    await cluster.client(3).submit(sleeper('later'));
    await cluster.untilRunning(3, 'later');
  });
});

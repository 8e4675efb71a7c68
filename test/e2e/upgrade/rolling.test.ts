import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { until } from '../../../src/scenario/until.ts';
import { sleeper, TestCluster } from '../../fixtures/cluster.ts';

// Peers of two adjacent versions in one cluster, upgraded one by one. The earlier version is a build of its own:
//   git worktree add /tmp/earlier COMMIT, npm ci there, and EARLIER_DIST=/tmp/earlier/dist npm test

const earlier = process.env.EARLIER_DIST;
const LONG_MS = 60_000;

describe('a rolling upgrade', { timeout: 2 * LONG_MS }, () => {
  if (earlier === undefined) {
    test('did not run: EARLIER_DIST names no earlier build', () => expect(earlier).toBeUndefined());
    return;
  }
  let cluster: TestCluster;
  beforeAll(async () => {
    expect(existsSync(join(earlier, 'agent.js'))).toBe(true);
    cluster = new TestCluster();
    for (const node of [1, 2]) cluster.extras.set(node, { programs: earlier });
    await cluster.fleet.form({ peers: 3, joining: 0, witnesses: 0, runtime: 'process', seed: 'test' });
  });
  afterAll(async () => {
    await cluster?.dispose();
  });

  const allKnow = async (name: string): Promise<void> => {
    for (const node of [1, 2, 3])
      await until(`node${node} knows ${name}`, LONG_MS, async () => (await cluster.task(node, name)) !== undefined);
  };

  test('both versions form a cluster, and run what is asked of either', async () => {
    for (const node of [1, 2, 3]) {
      for (const onPartition of ['keep', 'stop'] as const) {
        const name = `${onPartition}-${node}`;
        await cluster.client(node).submit(sleeper(name, { onPartition, constraints: [`node.name==node${node}`] }));
        await allKnow(name);
        await cluster.untilRunning(node, name);
      }
    }
  });

  test('a peer of either version dies: its tasks run on the other', async () => {
    await cluster.client(1).submit(sleeper('moves', { onPartition: 'keep', constraints: ['node.name!=node1'] }));
    for (const victim of [3, 2]) {
      await cluster.untilTask(1, 'moves', (t) => t.state === 'running', 'running');
      await cluster.kill(victim);
      const other = `node${victim === 3 ? 2 : 3}`;
      await cluster.untilTask(1, 'moves', (t) => t.state === 'running' && t.slots[0]?.node === other, `on ${other}`);
      await cluster.restart(victim);
      await cluster.fleet.untilAlive(3);
    }
  });

  test('the older ones are upgraded one by one; nothing is lost, and what ran goes on', async () => {
    const before = (await cluster.tasks(3)).map((task) => task.name).sort();
    for (const node of [1, 2]) {
      await cluster.stop(node);
      cluster.extras.delete(node);
      await cluster.restart(node);
      await cluster.fleet.untilAlive(3);
    }
    for (const node of [1, 2, 3]) {
      const known = (await cluster.tasks(node)).map((task) => task.name).sort();
      expect(known).toEqual(before);
    }
    for (const name of before) await cluster.untilRunning(3, name);
    await cluster.client(1).submit(sleeper('after'));
    await allKnow('after');
    await cluster.untilRunning(1, 'after');
  });
});

import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { until } from '../../../src/scenario/until.ts';
import { sleeper, TestCluster } from '../../fixtures/cluster.ts';

// A cluster whose majority is gone for good (protocols: 'Majority gone for good').

const LONG_MS = 60_000;

describe('three of five machines are lost', { timeout: 2 * LONG_MS }, () => {
  let cluster: TestCluster;
  const onSurvivor = { constraints: ['node.name==node1'] };
  beforeAll(async () => {
    cluster = await TestCluster.start(5);
    await cluster.fleet.submit(sleeper('web', { onPartition: 'keep', constraints: ['node.name!=node1'] }));
    await cluster.fleet.submit(sleeper('sole', { onPartition: 'stop', ...onSurvivor }));
    for (const name of ['web', 'sole']) await cluster.untilRunning(1, name);
    await Promise.all([3, 4, 5].map((node) => cluster.kill(node)));
  });
  afterAll(async () => {
    await cluster?.dispose();
  });

  /** The survivor that the others follow. */
  const caretaker = async (): Promise<number> =>
    await until('a caretaker is chosen', LONG_MS, async () => {
      const names = await Promise.all([1, 2].map(async (node) => (await cluster.cluster(node)).side?.caretaker));
      return names[0] !== undefined && names[0] !== null && names[0] === names[1] && Number(names[0].slice(4));
    });

  test('recovery is refused without --force, by whoever knows less, and while a named machine lives', async () => {
    const best = await caretaker();
    const other = best === 1 ? 2 : 1;
    const mild = await cluster.cli(best, ['cluster', 'recover']);
    expect(mild.code).not.toBe(0);
    expect(mild.stdout).toMatch(/node3, node4, node5/);
    expect(mild.stderr).toMatch(/--force/);
    const wrong = await cluster.cli(other, ['cluster', 'recover', '--force']);
    expect(wrong.code).not.toBe(0);
    expect(wrong.stderr).toMatch(new RegExp(`records of node${best} are newer.*\\n.*run the same on node${best}`));
    const alive = await cluster.cli(best, ['cluster', 'recover', '--force', '--dead', `node${other}`]);
    expect(alive.stderr).toMatch(/alive/);
    expect((await cluster.cluster(best)).epoch).toBe(1);
  });

  test('a new epoch begins, the other survivor joins it, and available tasks run', async () => {
    const best = await caretaker();
    const done = await cluster.cli(best, ['cluster', 'recover', '--force']);
    expect([done.code, done.stdout]).toEqual([0, expect.stringContaining('epoch 2 begins')]);
    for (const node of [1, 2])
      await until(`node${node} is of epoch 2, with a master`, LONG_MS, async () => {
        const view = await cluster.cluster(node);
        return view.epoch === 2 && view.quorum.ok;
      });
    // Revived by the caretaker, or there from the start: committed, and running.
    await cluster.untilTask(
      1,
      'web',
      (t) => t.state === 'running' && t.slots[0]?.node === 'node2' && !t.slots[0].generation.includes('~'),
      'on node2, committed',
    );
    await cluster.client(2).submit(sleeper('later'));
    await cluster.untilRunning(2, 'later');
    const kept = [1, 2].map((node) => join(cluster.dataDir(node), 'epochs'));
    for (const dir of kept) expect(existsSync(dir) && readdirSync(dir)).toHaveLength(1);
  });

  test('exclusive tasks wait, with the reason, until the old voters left are no majority', async () => {
    const gone = ['node3', 'node4', 'node5'];
    await until('the other survivor is counted in', LONG_MS, async () => {
      const { unaccounted } = await cluster.cluster(1);
      return unaccounted.length === 3 && gone.every((name) => unaccounted.includes(name));
    });
    const why = await cluster.cli(1, ['why', 'sole']);
    expect(why.stdout).toMatch(/recovered by force, and (node[345](, )?){3} may still run it/s);
    expect((await cluster.task(1, 'sole'))?.state).not.toBe('running');
    const named = await cluster.cli(2, ['cluster', 'recover', '--force', '--dead', 'node5']);
    expect([named.code, named.stdout]).toEqual([0, expect.stringContaining('noted')]);
    const sole = await cluster.untilRunning(1, 'sole');
    expect(sole.slots[0]?.generation).toMatch(/^2\./);
    expect((await cluster.cluster(1)).unaccounted).toEqual([]);
  });

  test('machines of the old epoch that return join as learners, and keep their records aside', async () => {
    for (const node of [3, 4]) await cluster.restart(node);
    for (const node of [1, 2, 3, 4])
      await until(`node${node} sees four of epoch 2`, LONG_MS, async () => {
        const [seen, nodes] = [await cluster.cluster(node), (await cluster.client(node).nodes()).items];
        return seen.epoch === 2 && nodes.filter((n) => n.status === 'alive').length === 4 && seen.quorum.ok;
      });
    await until('node3 knows what was accepted while it was away', LONG_MS, async () =>
      (await cluster.tasks(3)).some((task) => task.name === 'later'),
    );
    expect(readdirSync(join(cluster.dataDir(3), 'epochs'))).toHaveLength(1);
    const running = (await cluster.tasks(1)).map((task) => [task.name, task.state]).sort();
    expect(running).toEqual([
      ['later', 'running'],
      ['sole', 'running'],
      ['web', 'running'],
    ]);
  });
});

import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { until } from '../../../src/scenario/until.ts';
import type { TaskView } from '../../../src/services/api/schemas.ts';
import { TestCluster, WAIT_MS } from '../../fixtures/cluster.ts';
import { LedgerClient } from '../../fixtures/ledger/client.ts';

// Real work as a child process of a peer: a ledger that fsyncs before it acknowledges, and a client that counts.

const SERVER = join(import.meta.dirname, '../../fixtures/ledger/server.mjs');

describe('the ledger', () => {
  let cluster: TestCluster;
  beforeAll(async () => {
    cluster = await TestCluster.start(3);
  });
  afterAll(() => cluster?.dispose());

  const task = async (node: number, holds: (t: TaskView) => boolean): Promise<TaskView> =>
    until('the ledger is as awaited', WAIT_MS, async () => {
      const found = (await cluster.client(node).tasks()).items.find((t) => t.name === 'ledger');
      return found && holds(found) ? found : undefined;
    });
  const running = (t: TaskView): boolean => t.state === 'running' && (t.slots[0]?.ports.length ?? 0) > 0;
  const portOf = (t: TaskView): number => t.slots[0]?.ports[0]?.host ?? 0;
  const answering = (client: LedgerClient) =>
    until('the ledger answers', WAIT_MS, () => client.state().catch(() => undefined));

  it('keeps what it acknowledged over a crash of its own, and is revived elsewhere when its machine dies', async () => {
    await cluster.client(1).submit({
      name: 'ledger',
      runtime: 'process',
      command: [process.execPath, SERVER],
      ports: ['0:8080'],
      restart: { policy: 'always', backoff: '10ms' },
    });
    const first = await task(1, running);
    const client = new LedgerClient(portOf(first));
    const { pid } = await answering(client);
    for (let i = 0; i < 20; i++) expect(await client.append()).toBe(true);

    process.kill(pid, 'SIGKILL');
    const second = await task(1, (t) => running(t) && (t.slots[0]?.restarts ?? 0) >= 1);
    expect(second.generation).toBe(first.generation);
    const again = new LedgerClient(portOf(second));
    await answering(again);
    expect(await client.missing(portOf(second))).toEqual([]);

    const holder = Number(second.node.replace('node', ''));
    const survivor = holder === 1 ? 2 : 1;
    await cluster.kill(holder);
    const third = await task(survivor, (t) => running(t) && t.generation !== first.generation);
    expect(third.node).not.toBe(second.node);
    const elsewhere = await answering(new LedgerClient(portOf(third)));
    expect(elsewhere.generation).toBe(third.generation);
  });
});

import { afterAll, beforeAll, expect, test } from 'vitest';
import { createRng } from '../../../src/model/random.ts';
import { checkLinearizable, REGISTER, withoutUnseen } from '../../../src/scenario/linearizability.ts';
import { PeerClient } from '../../../src/scenario/peer-client.ts';
import { recordHistory, type SettingsUser } from '../../../src/scenario/register-history.ts';
import { until } from '../../../src/scenario/until.ts';
import { TestCluster, WAIT_MS } from '../../fixtures/cluster.ts';

// Records under fire: what every client saw must fit one order, although agents are killed all the while, the master's first.
// LINEARIZABLE_HISTORIES=200 makes a campaign of it.

const HISTORIES = Number(process.env.LINEARIZABLE_HISTORIES ?? 3);
const OPERATIONS = 500;
const PEERS = 3;
const USERS_PER_PEER = 2;

let cluster: TestCluster;
const clients: PeerClient[] = [];

beforeAll(async () => {
  cluster = await TestCluster.start(PEERS);
  await until('all vote', WAIT_MS, async () => (await cluster.cluster(1)).voters.length === PEERS);
});
afterAll(async () => {
  for (const client of clients) client.close();
  await cluster?.dispose();
});

const user = (node: number): SettingsUser => {
  const client = new PeerClient(`${cluster.dataDir(node)}/api.sock`, { connections: 1 });
  clients.push(client);
  return {
    write: (key, value) => client.setSetting(key, value),
    read: (key) => client.setting(key),
    ready: async () => {
      await until(`node${node} answers`, WAIT_MS, async () => (await client.nodes()).items.length === PEERS);
    },
  };
};

test(`${HISTORIES} histories of ${OPERATIONS} operations, agents killed meanwhile: all linearizable`, {
  timeout: 60_000 * Math.max(2, HISTORIES),
}, async () => {
  const users = Array.from({ length: PEERS * USERS_PER_PEER }, (_, index) => user((index % PEERS) + 1));
  let faults = 0;
  let unanswered = 0;
  for (let round = 0; round < HISTORIES; round++) {
    const rng = createRng(`linearizable/${round}`);
    const history = await recordHistory({
      users,
      keys: Array.from({ length: 5 }, (_, key) => `user.r${round}.k${key}`),
      operations: OPERATIONS,
      rng,
      faultEvery: 125,
      fault: async () => {
        const master = await cluster.fleet.master().catch(() => undefined);
        const victim = master ?? rng.int(1, PEERS);
        try {
          cluster.killAgent(victim);
        } catch {
          // It is down already: boot brings it back.
        }
      },
    });
    for (const [key, operations] of history.byKey)
      expect(checkLinearizable(REGISTER, withoutUnseen(operations)), `${key} of history ${round}`).toEqual({
        kind: 'linearizable',
      });
    faults += history.faults;
    unanswered += history.unanswered;
    await cluster.fleet.untilAlive(PEERS);
  }
  expect(faults).toBeGreaterThanOrEqual(2 * HISTORIES);
  expect(unanswered).toBeLessThan((HISTORIES * OPERATIONS) / 5);
  console.log(`${HISTORIES} histories, ${faults} agents killed, ${unanswered} operations without an answer`);
});

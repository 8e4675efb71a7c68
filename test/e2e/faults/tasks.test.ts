import { randomBytes } from 'node:crypto';
import { connect } from 'node:net';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { PeerClientError } from '../../../src/scenario/peer-client.ts';
import { until } from '../../../src/scenario/until.ts';
import { sleeper, TestCluster, WAIT_MS } from '../../fixtures/cluster.ts';

// Three real peers and what may be wrong with a task, or with whoever speaks to a peer. `keeper` and `safe` run through all of it.

let cluster: TestCluster;
let startedAt: readonly (number | null)[];

const bystanders = async (): Promise<readonly (number | null)[]> =>
  await Promise.all(
    ['keeper', 'safe'].map(async (name) => (await cluster.untilRunning(1, name)).slots[0]?.startedAt ?? null),
  );

beforeAll(async () => {
  cluster = await TestCluster.start(3);
  await cluster.fleet.submit(sleeper('keeper', { onPartition: 'keep' }));
  await cluster.fleet.submit(sleeper('safe', { onPartition: 'stop' }));
  startedAt = await bystanders();
});
afterAll(async () => {
  await cluster?.dispose();
});

const submission = async (node: number, document: object, id?: string): Promise<string> => {
  try {
    return (await cluster.client(node).submit(document, id === undefined ? {} : { id })).id;
  } catch (error) {
    if (error instanceof PeerClientError) return `${error.code}: ${error.message}`;
    throw error;
  }
};

test('two tasks with one name, one after the other on two peers: the second is told', async () => {
  expect(await submission(2, sleeper('twin'), 'twin-1')).toBe('twin-1');
  expect(await submission(3, sleeper('twin'), 'twin-2')).toMatch(/^name_in_use: .*twin/);
  const said = await cluster.cli(2, ['run', '--runtime', 'process', '--name', 'twin', '--', 'true']);
  expect(said.stderr).toMatch(/Error: task twin: a task called twin exists\nHint: choose another name/);
  expect(said.code).toBe(1);
});

test('two tasks with one name at the same moment on two peers: exactly one', async () => {
  for (let round = 0; round < 5; round += 1) {
    const name = `same-${round}`;
    const answers = await Promise.all([2, 3].map((node) => submission(node, sleeper(name), `${name}-on-${node}`)));
    expect(answers.filter((answer) => /^same-\d-on-\d$/.test(answer))).toHaveLength(1);
    expect(answers.filter((answer) => answer.startsWith('name_in_use'))).toHaveLength(1);
  }
  for (const node of [1, 2, 3])
    expect((await cluster.tasks(node)).filter((task) => task.name.startsWith('same-'))).toHaveLength(5);
});

test('the same submission twice, on one peer and on two at once: one task, and both are told it is accepted', async () => {
  expect(await submission(1, sleeper('again'), 'again')).toBe('again');
  expect(await submission(1, sleeper('again'), 'again')).toBe('again');
  expect(await submission(3, sleeper('again'), 'again')).toBe('again');
  const twice = await Promise.all([1, 2, 3, 1].map((node) => submission(node, sleeper('thrice'), 'thrice')));
  expect(twice).toEqual(['thrice', 'thrice', 'thrice', 'thrice']);
  const running = await Promise.all(['again', 'thrice'].map((name) => cluster.untilRunning(2, name)));
  expect(running.map((task) => task.slots.length)).toEqual([1, 1]);
  expect((await cluster.tasks(1)).filter((task) => ['again', 'thrice'].includes(task.name))).toHaveLength(2);
});

test('another task under an id that is taken is refused, not taken for the first', async () => {
  const answers = await Promise.all([1, 2].map((node) => submission(node, sleeper(`claims-${node}`), 'claimed')));
  expect(answers.filter((answer) => answer === 'claimed')).toHaveLength(1);
  expect(answers.filter((answer) => answer.startsWith('already_exists'))).toHaveLength(1);
  expect(await submission(2, sleeper('impostor'), 'again')).toMatch(/already_exists|refused/);
  expect(await cluster.task(2, 'impostor')).toBeUndefined();
});

test('a document that is wrong: every field is named, nothing is submitted', async () => {
  const document = 'name: bad name\nruntime: process\ncommand: [sleep, "1"]\nmemory: lots\nfrobnicate: 1\n';
  const said = await cluster.cli(1, ['apply', '-f', '-'], document);
  expect(said.code).toBe(2);
  for (const field of ['name', 'memory', 'frobnicate']) expect(said.stderr).toMatch(new RegExp(`\\b${field}:`));
  expect(await cluster.task(1, 'bad name')).toBeUndefined();
});

test('a task that exits at once is started again with a growing pause, and says how often', async () => {
  const restart = { policy: 'always', backoff: '100ms', backoffCap: '400ms' };
  await cluster.fleet.submit({ name: 'flapper', runtime: 'process', command: ['sh', '-c', 'exit 7'], restart });
  const seen: number[] = [];
  const task = await cluster.untilTask(
    1,
    'flapper',
    (one) => {
      const n = one.slots[0]?.restarts ?? 0;
      if (n !== seen.at(-1)) seen.push(n);
      return n >= 6;
    },
    'restarted six times',
  );
  expect(task.state).not.toBe('running');
  expect(task.slots[0]?.exitCode).toBe(7);
  await cluster.client(1).removeTask('flapper');
});

test('the pause stays below its cap, and attempts below theirs: then the task has failed, and says why', async () => {
  const restart = { policy: 'on-failure', maxAttempts: 4, backoff: '50ms', backoffCap: '100ms' };
  const from = Date.now();
  await cluster.fleet.submit({ name: 'capped', runtime: 'process', command: ['sh', '-c', 'exit 3'], restart });
  const task = await cluster.untilTask(1, 'capped', (one) => one.state === 'failed', 'failed');
  expect(Date.now() - from).toBeLessThan(10_000);
  expect(task.slots[0]?.exitCode).toBe(3);
  expect(task.error).toMatch(/3/);
  const why = await cluster.cli(1, ['why', 'capped']);
  expect(why.stdout).toMatch(/capped: failed: .*3/);
});

test('a task that exits at once with restart no has failed, or finished, and is not started again', async () => {
  const run = async (name: string, code: number): Promise<string> =>
    (
      await cluster.cli(2, [
        'run',
        '--runtime',
        'process',
        '--restart',
        'no',
        '--name',
        name,
        '--wait',
        '--',
        'sh',
        '-c',
        `echo run >> $TASKORG_WORKDIR/runs; exit ${code}`,
      ])
    ).stderr;
  expect(await run('fails', 5)).toMatch(/Error: task fails failed: .*5[\s\S]*Hint: task-org logs fails/);
  expect(await run('ends', 0)).toBe('');
  const [fails, ends] = await Promise.all(['fails', 'ends'].map((name) => cluster.task(1, name)));
  expect([fails?.state, fails?.slots[0]?.exitCode, fails?.slots[0]?.restarts]).toEqual(['failed', 5, 0]);
  expect([ends?.state, ends?.slots[0]?.exitCode]).toEqual(['finished', 0]);
});

test('a command that is not there: the task says so', async () => {
  const restart = { policy: 'no' };
  await cluster.fleet.submit({ name: 'missing', runtime: 'process', command: ['no-such-program'], restart });
  const task = await cluster.untilTask(1, 'missing', (one) => one.state === 'failed', 'failed');
  expect(task.error).toMatch(/no-such-program/);
});

test('a task that ignores TERM is killed after its grace', async () => {
  await cluster.fleet.submit({
    name: 'stubborn',
    runtime: 'process',
    command: ['sh', '-c', 'trap "" TERM; echo ready > ready; while :; do sleep 1; done'],
    stopGrace: '700ms',
    onPartition: 'stop',
  });
  const task = await cluster.untilRunning(1, 'stubborn');
  const pid = Number(task.slots[0]?.handle.replace('pid:', ''));
  const from = Date.now();
  const said = await cluster.cli(3, ['stop', 'stubborn']);
  expect(said.code).toBe(0);
  await until('it is dead', WAIT_MS, () => {
    try {
      process.kill(pid, 0);
      return false;
    } catch {
      return true;
    }
  });
  expect(Date.now() - from).toBeGreaterThan(600);
  expect(Date.now() - from).toBeLessThan(8000);
  await cluster.untilTask(1, 'stubborn', (one) => one.state === 'stopped', 'stopped');
});

test('a task that fits nowhere waits, and says why for every machine', async () => {
  await cluster.fleet.submit(sleeper('nowhere', { constraints: ['node.labels.gpu==yes'] }));
  const task = await cluster.untilTask(1, 'nowhere', (one) => one.state === 'pending' && one.error !== '', 'pending');
  expect(task.error).toMatch(/gpu/);
});

test('a container task where nobody has an engine waits, and says so', async () => {
  await cluster.fleet.submit({ name: 'boxed', image: 'no-such-image:1' });
  const task = await cluster.untilTask(1, 'boxed', (one) => one.state === 'pending' && one.error !== '', 'pending');
  expect(task.error).toMatch(/docker/);
});

test('names of nobody: the client says what is not there and what lists it', async () => {
  for (const args of [
    ['inspect', 'nobody'],
    ['stop', 'nobody'],
    ['rm', 'nobody'],
    ['why', 'nobody'],
    ['logs', 'nobody'],
  ]) {
    const said = await cluster.cli(1, args);
    expect(said.stderr).toMatch(/Error: no task nobody\nHint: task-org ps/);
    expect(said.code).toBe(1);
  }
  expect((await cluster.cli(1, ['node', 'drain', 'nobody'])).stderr).toMatch(
    /Error: no node nobody\nHint: task-org node ls/,
  );
});

test('garbage on the API socket and on the peers port leaves a peer healthy', async () => {
  const agent = cluster.agentPid(2);
  const { port } = (await cluster.node(1, 2))?.address.match(/tcp\/(?<port>\d+)/)?.groups ?? {};
  const noises: readonly (Buffer | string)[] = [
    randomBytes(64 * 1024),
    'GET / HTTP/1.1\r\nhost: x\r\n\r\n',
    '\u0013/multistream/1.0.0\n',
    `\u0013/multistream/1.0.0\n${'\u00ff'.repeat(9)}`,
    Buffer.concat([Buffer.from('\u0013/multistream/1.0.0\n\u0007/noise\n'), randomBytes(300)]),
    Buffer.alloc(1 << 20, 0xff),
    '',
  ];
  const targets = [{ host: '127.0.0.1', port: Number(port) }, { path: `${cluster.dataDir(2)}/api.sock` }];
  const closed = targets.flatMap((target) =>
    noises.map(
      (noise) =>
        new Promise((resolve) => {
          const socket = connect(target as { path: string });
          socket.on('error', () => undefined); // cutting the line is an answer
          socket.once('close', resolve);
          socket.resume().end(noise);
        }),
    ),
  );
  await Promise.all(closed);
  for (const [method, path, body] of [
    ['POST', '/v1/tasks', Buffer.from('{"name":')],
    ['POST', '/v1/tasks', Buffer.alloc((1 << 20) + 1, 32)],
    ['PATCH', '/v1/nonsense', undefined],
    ['GET', `/v1/tasks/${'x'.repeat(4000)}`, undefined],
  ] as const) {
    await expect(cluster.call(2, method, path, body)).rejects.toThrow(/: (4\d\d|0) /);
  }
  await cluster.fleet.untilAlive(3);
  expect(cluster.agentPid(2)).toBe(agent);
  expect((await cluster.task(2, 'keeper'))?.state).toBe('running');
});

test('all the while neither bystander was started again', async () => {
  expect(await bystanders()).toEqual(startedAt);
});

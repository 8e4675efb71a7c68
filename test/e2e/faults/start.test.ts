import { spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { type AddressInfo, createServer } from 'node:net';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { wallMs } from '../../../src/model/ids.ts';
import { decodeToken, encodeToken } from '../../../src/model/token.ts';
import { until } from '../../../src/scenario/until.ts';
import { type Ended, freePort, sleeper, TestCluster, WAIT_MS } from '../../fixtures/cluster.ts';

// What a person sees when a peer cannot start, and that it then neither tries again by itself nor harms what is there.

const FINAL = 78;
const isRoot = process.getuid?.() === 0;
const local = ['--listen', '/ip4/127.0.0.1/tcp/0', '--runtime', 'process'];

/** It said why and what to do, ended for good after one start of the agent, and left no process behind. */
function expectFinal(ended: Ended, why: RegExp, hint: RegExp): void {
  expect(ended.stderr).toMatch(why);
  expect(ended.stderr).toMatch(hint);
  expect(ended.stderr).not.toMatch(/\n\s+at /);
  expect(ended.stderr.match(/"agent started"/g)?.length ?? 0).toBeLessThanOrEqual(1);
  expect(ended.stderr).not.toContain('it is started again');
  expect(ended.code).toBe(FINAL);
}

describe('a peer that cannot start', () => {
  const mounts: string[] = [];
  let cluster: TestCluster;
  beforeAll(async () => {
    cluster = await TestCluster.start(1);
    await cluster.client(1).submit(sleeper('keeper'));
    await cluster.untilRunning(1, 'keeper');
  });
  afterAll(async () => {
    for (const dir of mounts) spawnSync('umount', ['-l', dir]);
    await cluster?.dispose();
  });

  const token = async (): Promise<string> => await cluster.client(1).createToken(1);
  const joiner = (name: string): string => join(cluster.dir, name);

  test('a token that has expired, by its own date: when, and to compare the clocks', async () => {
    const good = decodeToken(await token());
    const expired = encodeToken({ ...good, expiresAt: wallMs(Date.now() - 60_000) });
    const ended = await cluster.attempt(joiner('expired'), [...local, '--join', expired]);
    expectFinal(ended, /join token expired at \d{4}-\d\d-\d\dT/, /task-org token.*clocks/);
    expect(existsSync(join(joiner('expired'), 'cluster.json'))).toBe(false);
  });

  test('a token whose invitation has expired on the member, though the date in it says otherwise', async () => {
    const { token: text } = await cluster.call<{ token: string }>(1, 'POST', '/v1/tokens', {
      uses: 1,
      expiresMs: 1000,
    });
    const issued = decodeToken(text);
    await until('it expires', WAIT_MS, () => Date.now() > issued.expiresAt);
    const forged = encodeToken({ ...issued, expiresAt: wallMs(Date.now() + 3_600_000) });
    const ended = await cluster.attempt(joiner('stale'), [...local, '--join', forged]);
    expectFinal(ended, /expired/, /task-org token/);
  });

  test('a token cut short', async () => {
    const ended = await cluster.attempt(joiner('cut'), [...local, '--join', (await token()).slice(0, -7)]);
    expectFinal(ended, /not a valid join token: it is cut short/, /copy the whole token again/i);
  });

  test('something that is no token', async () => {
    const ended = await cluster.attempt(joiner('none'), [...local, '--join', 'SWMTKN-1-abc']);
    expectFinal(ended, /not a valid join token: it does not start with/, /copy the whole token again/i);
  });

  test('a token of another cluster, on a data directory that belongs to one', async () => {
    const other = encodeToken({ ...decodeToken(await token()), clusterId: 'f00dfeed' as never });
    await cluster.stop(1);
    const ended = await cluster.attempt(cluster.dataDir(1), [...local, '--join', other]);
    expectFinal(ended, /belongs to cluster [0-9a-f]+, the token is for f00dfeed/, /--data-dir/);
    await cluster.restart(1);
    expect((await cluster.task(1, 'keeper'))?.name).toBe('keeper');
  });

  test('a token whose addresses lead to another cluster', async () => {
    const other = encodeToken({ ...decodeToken(await token()), clusterId: 'f00dfeed' as never });
    const ended = await cluster.attempt(joiner('other'), [...local, '--join', other]);
    expectFinal(ended, /another cluster/, /hint/);
  });

  test('a token that is used up', async () => {
    const once_ = await token();
    const first = await cluster.launch(2, once_);
    await first.says(/"peer is up"/);
    const ended = await cluster.attempt(joiner('second'), [...local, '--join', once_]);
    expectFinal(ended, /used up|used already/, /task-org token/);
    await cluster.stop(2);
  });

  test('a data directory in use', async () => {
    const ended = await cluster.attempt(cluster.dataDir(1), local);
    expectFinal(ended, /is in use by the peer with process id \d+/, /stop that peer first \(kill \d+\)/);
    expect((await cluster.untilRunning(1, 'keeper')).slots[0]?.node).toBe('node1');
  });

  test('a file in place of the data directory', async () => {
    writeFileSync(joiner('file'), 'not a directory');
    expectFinal(await cluster.attempt(joiner('file'), local), /the data directory .*file cannot be used/, /--data-dir/);
  });

  test('a damaged key is not replaced', async () => {
    mkdirSync(joiner('key'), { mode: 0o700 });
    writeFileSync(join(joiner('key'), 'identity.key'), 'short');
    const ended = await cluster.attempt(joiner('key'), local);
    expectFinal(ended, /identity\.key is damaged \(5 bytes, 32 expected\)/, /restore it from a copy/);
  });

  test('a port that is taken', async () => {
    const server = createServer().listen(0, '127.0.0.1');
    await once(server, 'listening');
    const { port } = server.address() as AddressInfo;
    const args = ['--listen', `/ip4/127.0.0.1/tcp/${port}`, '--runtime', 'process'];
    const ended = await cluster.attempt(joiner('port'), args);
    expectFinal(ended, new RegExp(`listens? on .*${port}`), /--listen/);
    const asJoiner = await cluster.attempt(joiner('port2'), [...args, '--join', await token()]);
    expectFinal(asJoiner, new RegExp(`listens? on .*${port}`), /--listen/);
    server.close();
  });

  test('--runtime docker where no engine answers', async () => {
    const args = ['--listen', '/ip4/127.0.0.1/tcp/0', '--runtime', 'docker'];
    const none = join(cluster.dir, 'no-engine.sock');
    const ended = await cluster.attempt(joiner('engine'), args, { DOCKER_HOST: `unix://${none}` });
    expectFinal(ended, /no Docker Engine answers here/, /--runtime process/);
  });

  test('settings that are wrong are all named', async () => {
    const ended = await cluster.attempt(joiner('settings'), [
      '--runtime',
      'podman',
      '--priority',
      'high',
      '--set',
      'nonsense=1',
    ]);
    expectFinal(ended, /runtime[\s\S]*priority|priority[\s\S]*runtime/, /nonsense/);
    expectFinal(await cluster.attempt(joiner('flag'), ['--frobnicate']), /frobnicate/, /--help/);
  });

  test('the client says so when no peer runs there', async () => {
    const nobody = await cluster.cli(99, ['ps']);
    expect(nobody.stderr).toMatch(/no peer is running here[\s\S]*task-org-peer/);
    expect(nobody.code).toBe(1);
  });

  // Modes do not bind root, and mounts are root's alone: for others the mode is the test.
  describe.runIf(isRoot)('as root', () => {
    const mount = (dir: string, options: string): void => {
      mkdirSync(dir, { recursive: true });
      const done = spawnSync('mount', ['-t', 'tmpfs', '-o', options, 'tmpfs', dir]);
      expect(done.stderr.toString()).toBe('');
      mounts.push(dir);
    };
    test('a read-only data directory', async () => {
      mount(joiner('ro'), 'ro,size=64k');
      expectFinal(
        await cluster.attempt(joiner('ro'), local),
        /data directory .*ro cannot be used.*(EROFS|read-only)/,
        /--data-dir/,
      );
    });

    test('a full disk', async () => {
      mount(joiner('full'), 'size=64k');
      const filler = spawnSync('dd', ['if=/dev/zero', `of=${join(joiner('full'), 'filler')}`, 'bs=4k']);
      expect(filler.status).toBe(1);
      const ended = await cluster.attempt(joiner('full'), local);
      expectFinal(ended, /disk .*full/, /free some space/);
      expect(readdirSync(joiner('full'))).toContain('filler');
    });
  });

  test('after all of that the cluster is as it was', async () => {
    const running = await cluster.untilRunning(1, 'keeper');
    expect(running.slots).toHaveLength(1);
    expect((await cluster.cluster(1)).quorum.ok).toBe(true);
    expect(await freePort()).toBeGreaterThan(0);
  });
});

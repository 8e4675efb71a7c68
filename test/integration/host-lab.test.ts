import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { untilLine } from '../../src/scenario/follow-file.ts';
import { createHostLab } from '../../src/scenario/hosts/host-lab.ts';
import { whyNoHostLab } from '../../src/scenario/hosts/requirements.ts';
import type { HostLab, HostProcess } from '../../src/scenario/hosts/types.ts';

const why = whyNoHostLab(false);
const PREFIX = 'tolabtest';
const NODE = process.execPath;

const ESTABLISHED = '01';
const CLOSE_WAIT = '08';

/** Says hello by multicast until it has heard two others, and goes on for those that have not. */
const MULTICAST = `
const [address] = process.argv.slice(1);
const socket = require('dgram').createSocket({ type: 'udp4', reuseAddr: true });
const heard = new Set();
socket.on('message', (_, from) => {
  if (from.address === address || heard.has(from.address)) return;
  heard.add(from.address);
  if (heard.size === 2) console.log('heard ' + [...heard].sort().join(' '));
});
socket.bind(5399, () => {
  socket.addMembership('224.0.0.251', address);
  socket.setMulticastInterface(address);
  setInterval(() => socket.send('hello', 5399, '224.0.0.251'), 20);
});`;
const SERVER = `require('net').createServer(() => console.log('accepted')).listen(7000, () => console.log('listening'));`;
const CLIENT = `require('net').connect({ port: 7000, host: process.argv[1], allowHalfOpen: true }, () => console.log('connected')).resume(); setInterval(() => {}, 1000);`;

/** State of host's connection to port 7000 as its own kernel sees it. */
function tcpState(lab: HostLab, host: number): string | undefined {
  const lines = readFileSync(`/proc/${lab.initPid(host)}/net/tcp`, 'utf8').split('\n');
  return lines.map((line) => line.trim().split(/\s+/)).find((fields) => fields[2]?.endsWith(':1B58'))?.[3];
}

async function connect(lab: HostLab, from: number, to: number, name: string): Promise<HostProcess> {
  const server = await lab.spawn(to, `${name}-server`, [NODE, '-e', SERVER]);
  await untilLine(server.logFile, /listening/, 10_000);
  const client = await lab.spawn(from, `${name}-client`, [NODE, '-e', CLIENT, lab.address(to)]);
  await untilLine(client.logFile, /connected/, 10_000);
  await untilLine(server.logFile, /accepted/, 10_000);
  return server;
}

const reaches = async (lab: HostLab, from: number, to: number): Promise<boolean> =>
  (await lab.exec(from, ['busybox', 'ping', '-c', '1', '-W', '1', lab.address(to)])).code === 0;

// Network namespaces need root; elsewhere the one test below states what a person is told instead.
describe.runIf(why === undefined)('three hosts', () => {
  const dir = mkdtempSync(join(tmpdir(), 'tolab-'));
  const options = { hosts: 3, dir: join(dir, 'l'), prefix: PREFIX, subnet: '10.91.7.0/24', docker: false };
  const lab = createHostLab(options);
  beforeAll(async () => await lab.up());
  afterAll(async () => {
    await lab.down();
    rmSync(dir, { recursive: true, force: true });
  });

  test('are machines of their own: name, address, process tree, /run and home', async () => {
    const script =
      'hostname; cat /proc/1/cmdline | tr "\\0" "\\n" | head -1; ls -A /run; echo "$HOSTNAME" >"$HOME/me"; cat /etc/hostname';
    expect(await lab.run(2, ['sh', '-c', script])).toBe(`${PREFIX}-2\nsh\n${PREFIX}-2\n`);
    expect(readFileSync(join(lab.paths(2).home, 'me'), 'utf8')).toBe(`${PREFIX}-2\n`);
    expect((await lab.exec(1, ['sh', '-c', 'echo out; echo err >&2; exit 7'])).code).toBe(7);
    await expect(lab.run(1, ['sh', '-c', 'echo because >&2; exit 7'])).rejects.toThrow(/because/);
  });

  test('hear each other by multicast', async () => {
    const hosts = [1, 2, 3];
    const speakers = await Promise.all(
      hosts.map((host) => lab.spawn(host, 'multicast', [NODE, '-e', MULTICAST, lab.address(host)])),
    );
    const heard = await Promise.all(
      speakers.map(async (speaker) => (await untilLine(speaker.logFile, /heard/, 15_000)).line),
    );
    for (const speaker of speakers) speaker.kill('SIGKILL');
    expect(heard).toEqual(
      hosts.map(
        (host) =>
          `heard ${hosts
            .filter((one) => one !== host)
            .map((one) => lab.address(one))
            .join(' ')}`,
      ),
    );
  });

  test('a process that dies is given away by a FIN; a power cut is silence', async () => {
    const server = await connect(lab, 1, 3, 'fin');
    server.kill('SIGKILL');
    await server.exited;
    expect(tcpState(lab, 1)).toBe(CLOSE_WAIT);
    await connect(lab, 2, 3, 'cut');
    const before = lab.counters(2).rxPackets;
    const at = await lab.kill(3);
    expect(Date.now() - at).toBeLessThan(5_000);
    expect(lab.isUp(3)).toBe(false);
    expect(tcpState(lab, 2)).toBe(ESTABLISHED);
    expect(lab.counters(2).rxPackets - before).toBeLessThan(4);
    await expect(lab.exec(3, ['true'])).rejects.toThrow(/is down: start it first/);
  });

  test('boots again on the same disk, with an empty /run', async () => {
    await lab.start(3);
    await lab.run(3, ['sh', '-c', 'touch "$HOME/kept" /etc/kept /run/lost']);
    await lab.kill(3);
    await lab.start(3);
    expect(await lab.run(3, ['sh', '-c', 'cd /; ls "$HOME/kept" /etc/kept >/dev/null && ls -A /run'])).toBe('');
    await lab.kill(3);
    await lab.wipe(3);
    await lab.start(3);
    expect((await lab.exec(3, ['ls', '/etc/kept'])).code).not.toBe(0);
  });

  test('cut, block and partition stop packets and not the carrier; heal mends them', async () => {
    expect(await reaches(lab, 1, 2)).toBe(true);
    await lab.cut(2);
    expect(await reaches(lab, 1, 2)).toBe(false);
    expect(await lab.run(2, ['cat', '/sys/class/net/eth0/carrier'])).toBe('1\n');
    await lab.heal(2);
    expect(await reaches(lab, 1, 2)).toBe(true);
    await lab.partition([[1, 2], [3]]);
    expect(await Promise.all([reaches(lab, 1, 2), reaches(lab, 1, 3), reaches(lab, 3, 2)])).toEqual([
      true,
      false,
      false,
    ]);
    await lab.heal();
    expect(await reaches(lab, 3, 1)).toBe(true);
  });

  test('a frozen host runs nothing until it is thawed, and can be cut off meanwhile', async () => {
    const ticker = await lab.spawn(2, 'ticker', [
      NODE,
      '-e',
      "process.on('SIGUSR2', () => console.log('woken')); console.log('first'); setInterval(() => {}, 1000)",
    ]);
    await untilLine(ticker.logFile, /first/, 10_000);
    await lab.freeze(2);
    ticker.kill('SIGUSR2');
    expect(await reaches(lab, 1, 2)).toBe(true); // its kernel answers
    expect(readFileSync(ticker.logFile, 'utf8')).toBe('first\n');
    await lab.thaw(2);
    await untilLine(ticker.logFile, /woken/, 10_000);
    await lab.freeze(2);
    await lab.kill(2);
    expect(lab.isUp(2)).toBe(false);
    await lab.start(2);
  });

  test('a new run clears what a crashed one with its prefix left, and down leaves nothing', async () => {
    await lab.freeze(2); // the worst remains: processes that do not die when killed
    const other = mkdtempSync(join(tmpdir(), 'tolab-'));
    const next = createHostLab({ ...options, dir: join(other, 'l') });
    const old = [1, 2, 3].map((host) => lab.initPid(host));
    await next.up();
    expect(old.filter((pid) => existsSync(`/proc/${pid}`))).toEqual([]);
    expect(await reaches(next, 1, 3)).toBe(true);
    await next.down();
    await next.down();
    rmSync(other, { recursive: true, force: true });
    expect(existsSync(join(other, 'l'))).toBe(false);
    expect(existsSync('/run/netns') ? readdirSync('/run/netns').filter((name) => name.startsWith(PREFIX)) : []).toEqual(
      [],
    );
    const cgroups = readdirSync('/sys/fs/cgroup').map((name) => join('/sys/fs/cgroup', name, PREFIX));
    expect([join('/sys/fs/cgroup', PREFIX), ...cgroups].filter((path) => existsSync(path))).toEqual([]);
  });
});

describe.runIf(why !== undefined)('without what it needs', () => {
  test('says what to do', async () => {
    const lab = createHostLab({
      hosts: 1,
      dir: '/tmp/tolab-none',
      prefix: PREFIX,
      subnet: '10.91.7.0/24',
      docker: false,
    });
    await expect(lab.up()).rejects.toThrow(/as root|apt-get install|Linux/);
  });
});

test('options are checked with words', () => {
  const good = { hosts: 1, dir: '/tmp/x', prefix: 'a', subnet: '10.91.7.0/24', docker: false };
  expect(() => createHostLab({ ...good, prefix: 'a-b' })).toThrow(/prefix/);
  expect(() => createHostLab({ ...good, subnet: '10.91.7.0/16' })).toThrow(/subnet/);
  expect(() => createHostLab({ ...good, hosts: 0 })).toThrow(/hosts/);
  expect(() => createHostLab({ ...good, dir: '/var/lib/x' })).toThrow(/dir/);
});

import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { KillTarget } from '../../src/ports/runtime.ts';
import { lives, Machine, never, sh } from './runtime-process-bed.ts';

let m: Machine;
beforeEach(() => {
  m = new Machine();
});
afterEach(() => m.dispose());

const stopOf = (graceMs: number, stopSignal = 'SIGTERM') => ({ stopSignal, graceMs });
const pidOf = (handle: string): number => Number(handle.replace('pid:', ''));
const groupsOf = (target: KillTarget | undefined): readonly string[] => (target?.type === 'cgroup' ? target.paths : []);

describe('start', () => {
  it('runs the command in its work directory with the words about itself', async () => {
    const copy = await m.start(
      sh('echo "$TASKORG_TASK $TASKORG_SLOT $TASKORG_GENERATION $GREETING"; pwd; echo "$TASKORG_WORKDIR"; exit 3', {
        env: { GREETING: 'hi' },
      }),
    );
    expect(copy).toMatchObject({ copyId: 't1.0.1.1.1', runtime: 'process', running: true, exitCode: null, slot: 0 });
    expect(await m.exit(copy.copyId)).toEqual({ type: 'exited', copyId: copy.copyId, exitCode: 3, oomKilled: false });
    const work = join(m.dataDir, 'work', 't1.0');
    expect((await m.output(copy.copyId)).stdout).toBe(`web 0 1.1 hi\n${work}\n${work}\n`);
    expect(await m.runtime.list(never)).toMatchObject([{ copyId: copy.copyId, running: false, exitCode: 3 }]);
    expect(m.exits(copy.copyId)).toBe(1);
  });

  it('registers before any of the command runs', async () => {
    const { desired, id } = m.copy(sh('echo ran; exec sleep 100'));
    let seen = '';
    const copy = await m.runtime.start(
      desired,
      async (target) => {
        m.targets.push(target);
        seen = readFileSync(join(m.dataDir, 'copies', id, 'stdout.log'), 'utf8');
        for (const path of groupsOf(target)) expect(readFileSync(join(path, 'cgroup.procs'), 'utf8')).not.toBe('');
        if (target.type === 'process-group') expect(lives(target.pgid)).toBe(true);
      },
      never,
    );
    expect(m.targets).toHaveLength(1);
    expect(seen).toBe('');
    expect(await m.line(copy.copyId, /ran/)).toBe('ran');
  });

  it.each(['refused', 'called off'])('leaves nothing when registration is %s', async (how) => {
    const { desired, id } = m.copy(sh('echo ran >mark; exec sleep 100'));
    const off = new AbortController();
    let pid = 0;
    const starting = m.runtime.start(
      desired,
      (target) => {
        m.targets.push(target);
        pid = JSON.parse(readFileSync(join(m.dataDir, 'copies', id, 'record.json'), 'utf8')).pid as number;
        if (how === 'refused') return Promise.reject(new Error('no room'));
        off.abort();
        return new Promise(() => {});
      },
      off.signal,
    );
    if (how === 'refused') await expect(starting).rejects.toThrow('no room');
    else await expect(starting).rejects.toMatchObject({ code: 'aborted', retryable: true });
    expect(pid).toBeGreaterThan(1);
    expect(lives(pid)).toBe(false);
    for (const path of groupsOf(m.targets[0])) expect(existsSync(path)).toBe(false);
    expect(existsSync(join(m.dataDir, 'work', 't1.0', 'mark'))).toBe(false);
    expect(readdirSync(join(m.dataDir, 'copies'))).toEqual([]);
    expect(await m.runtime.list(never)).toEqual([]);
  });

  it('is called off by a kill', async () => {
    const { desired, id } = m.copy(sh('exec sleep 100'));
    const registering = Promise.withResolvers<void>();
    const starting = m.runtime.start(
      desired,
      () => {
        registering.resolve();
        return new Promise(() => {});
      },
      never,
    );
    await registering.promise;
    await Promise.all([expect(starting).rejects.toMatchObject({ code: 'aborted' }), m.runtime.kill(id, never)]);
    expect(await m.runtime.list(never)).toEqual([]);
  });

  it('returns a running copy of the same id as it is, and runs an ended one again with its logs kept', async () => {
    const spec = sh('echo run; read x <fifo; exit 4');
    const first = await m.start(sh(`rm -f fifo; mkfifo fifo; ${spec.command[2]}`));
    await m.line(first.copyId, /run/);
    expect(await m.start(spec)).toEqual(first);
    expect(m.targets).toHaveLength(1);
    writeFileSync(join(m.dataDir, 'work', 't1.0', 'fifo'), 'go\n');
    expect((await m.exit(first.copyId)).exitCode).toBe(4);
    const second = await m.start(sh('echo again; exec sleep 100'));
    expect(second.handle).not.toBe(first.handle);
    await m.line(second.copyId, /again/);
    expect((await m.output(second.copyId)).stdout).toBe('run\nagain\n');
  });

  it('says plainly that a command is not there', async () => {
    const { desired } = m.copy(sh('', { command: ['no-such-program', 'x'] }));
    await expect(m.runtime.prepare(desired, never)).rejects.toMatchObject({
      code: 'image_missing',
      retryable: false,
      message: 'command not found: no-such-program',
    });
    const missing = m.copy(sh('', { command: [] })).desired;
    await expect(m.runtime.prepare(missing, never)).rejects.toMatchObject({ code: 'image_missing' });
  });

  it('gives free ports away and refuses one that is taken', async () => {
    const web = { container: 80, host: 0, protocol: 'tcp' as const };
    const copy = await m.start(
      sh('echo "port $PORT $PORT_80 $PORT_53"; exec sleep 100', {
        ports: [web, { container: 53, host: 0, protocol: 'udp' }],
      }),
    );
    expect(copy.ports.map((p) => [p.container, p.protocol])).toEqual([
      [80, 'tcp'],
      [53, 'udp'],
    ]);
    const [tcp, udp] = copy.ports.map((p) => p.host);
    expect(await m.line(copy.copyId, /port/)).toBe(`port ${tcp} ${tcp} ${udp}`);
    const held = m.copy(sh('exec sleep 100', { ports: [{ ...web, host: tcp ?? 0 }] }), { epoch: 1, g: 2 }).desired;
    const refusal = {
      code: 'port_in_use',
      retryable: true,
      message: expect.stringContaining(`tcp port ${tcp} is in use on this machine by the copy`),
    };
    await expect(m.runtime.start(held, async () => {}, never)).rejects.toMatchObject(refusal);
    const server = createServer();
    await new Promise<void>((resolve) => server.listen(0, resolve));
    const { port } = server.address() as { port: number };
    const taken = m.copy(sh('exec sleep 100', { ports: [{ ...web, host: port }] }), { epoch: 1, g: 3 }).desired;
    await expect(m.runtime.start(taken, async () => {}, never)).rejects.toMatchObject({
      code: 'port_in_use',
      message: `tcp port ${port} is in use on this machine`,
    });
    await new Promise((resolve) => server.close(resolve));
    expect(await m.runtime.list(never)).toHaveLength(1);
  });

  it('keeps the work directory and the volumes over generations', async () => {
    const volumes = [{ name: 'my-data', path: '/var/data', readOnly: false }];
    const one = await m.start(sh('echo work >f; echo kept >"$TASKORG_VOLUME_MY_DATA/v"', { volumes }));
    await m.exit(one.copyId);
    await m.runtime.kill(one.copyId, never);
    const two = await m.start(sh('cat f var/data/v', { volumes }), { epoch: 1, g: 2 });
    await m.exit(two.copyId);
    expect((await m.output(two.copyId)).stdout).toBe('work\nkept\n');
    expect(readFileSync(join(m.dataDir, 'volumes', 'my-data', 'v'), 'utf8')).toBe('kept\n');
    expect(readdirSync(join(m.dataDir, 'copies'))).toEqual([two.copyId]);
  });

  it('runs as another user where it may', async () => {
    const { desired } = m.copy(sh('id -u; id -g; id -G; echo mine >f', { user: '4321:4322' }));
    if (process.getuid?.() !== 0) {
      await expect(m.runtime.prepare(desired, never)).rejects.toMatchObject({ code: 'invalid_input' });
      return;
    }
    const copy = await m.start(desired.spec);
    expect((await m.exit(copy.copyId)).exitCode).toBe(0);
    expect((await m.output(copy.copyId)).stdout).toBe('4321\n4322\n4322\n');
    expect(m.warnings).toEqual([expect.stringContaining('only relative paths work')]);
    await expect(m.runtime.prepare(m.copy(sh('', { user: 'nobody-here' })).desired, never)).rejects.toMatchObject({
      code: 'invalid_input',
      message: "there is no user 'nobody-here' on this machine",
    });
  });
});

describe('stop and kill', () => {
  it('signals the whole group, keeps the exit code, removes everything', async () => {
    const copy = await m.start(
      sh(
        `(trap 'echo child; exit 0' TERM; echo ready; while :; do sleep 100 & wait; done) & trap 'wait; echo bye; exit 7' TERM; wait`,
      ),
    );
    await m.line(copy.copyId, /ready/);
    const logs = m.line(copy.copyId, /bye/);
    await m.runtime.stop(copy.copyId, stopOf(5000), never);
    expect((await m.exit(copy.copyId)).exitCode).toBe(7);
    expect(await logs).toBe('bye');
    expect(lives(pidOf(copy.handle))).toBe(false);
    expect(await m.runtime.list(never)).toEqual([]);
    expect(readdirSync(join(m.dataDir, 'copies'))).toEqual([]);
    for (const path of groupsOf(m.targets[0])) expect(existsSync(path)).toBe(false);
    await m.runtime.stop(copy.copyId, stopOf(5000), never);
    await m.runtime.kill(copy.copyId, never);
  });

  it('tells the default effect of the stop signal as a shell does, real-time ones too', async () => {
    const one = await m.start(sh('exec sleep 100'));
    await m.runtime.stop(one.copyId, stopOf(5000), never);
    expect((await m.exit(one.copyId)).exitCode).toBe(143);
    const two = await m.start(sh('exec sleep 100'), { epoch: 1, g: 2 });
    await m.runtime.stop(two.copyId, stopOf(5000, 'SIGRTMIN+3'), never);
    expect((await m.exit(two.copyId)).exitCode).toBe(128 + 37);
  });

  it('kills after the grace what ignores the signal', async () => {
    const copy = await m.start(sh(`trap '' TERM; echo ready; while :; do sleep 0.1; done`));
    await m.line(copy.copyId, /ready/);
    await m.runtime.stop(copy.copyId, stopOf(50), never);
    expect((await m.exit(copy.copyId)).exitCode).toBe(137);
    expect(lives(pidOf(copy.handle))).toBe(false);
  });

  it('kills a daemon that left the group, where there are cgroups', async () => {
    const copy = await m.start(sh(`setsid sh -c 'echo "daemon $$"; exec sleep 100' & exec sleep 100`));
    const daemon = Number((await m.line(copy.copyId, /daemon/)).split(' ')[1]);
    expect(lives(daemon)).toBe(true);
    await m.runtime.kill(copy.copyId, never);
    expect((await m.exit(copy.copyId)).exitCode).toBe(137);
    expect(lives(daemon)).toBe(m.targets[0]?.type === 'process-group');
    if (lives(daemon)) process.kill(daemon, 'SIGKILL');
    for (const path of groupsOf(m.targets[0])) expect(existsSync(path)).toBe(false);
  });

  it('ends with the command what the command left running', async () => {
    const copy = await m.start(
      sh(`rm -f f; mkfifo f; sh -c 'echo "left $$"; echo >f; exec sleep 100' & read x <f; exit 5`),
    );
    const left = Number((await m.line(copy.copyId, /left/)).split(' ')[1]);
    expect((await m.exit(copy.copyId)).exitCode).toBe(5);
    expect(lives(left)).toBe(false);
  });

  it('tells SIGKILL to the group, launcher included, as 137', async () => {
    const copy = await m.start(sh('echo ready; exec sleep 100'));
    await m.line(copy.copyId, /ready/);
    process.kill(-pidOf(copy.handle), 'SIGKILL');
    expect((await m.exit(copy.copyId)).exitCode).toBe(137);
  });
});

describe('limits', () => {
  const own = (controller: string): string | undefined =>
    groupsOf(m.targets[0]).length > 0 && existsSync(`/sys/fs/cgroup/${controller}/cgroup.procs`)
      ? controller
      : undefined;

  it('tells a death for want of memory apart', async () => {
    const copy = await m.start(sh('exec tail /dev/zero', { memoryBytes: 32 << 20 }));
    if (own('memory') === undefined && m.warnings.length > 0) return void (await m.runtime.kill(copy.copyId, never));
    expect(await m.exit(copy.copyId)).toMatchObject({ exitCode: 137, oomKilled: true });
  });

  it('pins whole cores and bounds the number of processes', async () => {
    const copy = await m.start(
      sh('grep Cpus_allowed_list /proc/self/status; grep -h . /proc/self/cgroup; exec sleep 100', { cpus: 1 }),
    );
    const line = await m.line(copy.copyId, /Cpus_allowed_list/);
    if (m.warnings.length > 0) expect(line).toMatch(/:/);
    else expect(line).toMatch(/:\s*\d+$/);
    const pids =
      groupsOf(m.targets[0]).length > 0
        ? readFileSync('/proc/self/mountinfo', 'utf8')
            .split('\n')
            .filter((l) => l.includes('- cgroup ') && l.endsWith('pids'))
        : [];
    if (pids.length > 0) expect(await m.line(copy.copyId, /:pids:/)).toContain(copy.copyId);
  });
});

import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { guardFile } from '../../src/boot/guard.ts';
import { parseBootArguments } from '../../src/boot/options.ts';
import type { KillTarget, SelfTestResult } from '../../src/model/boot-protocol.ts';
import { BootBed } from './boot-bed.ts';

let bed: BootBed;
beforeEach(async () => {
  bed = await new BootBed().listen();
});
afterEach(() => bed.dispose());
const pidIn = (name: string): number => Number(readFileSync(join(bed.dataDir, 'run', name), 'utf8').split(' ')[0]);

describe('boot and its agent', () => {
  it('starts the agent again when it is killed, and gives the registry back', async () => {
    bed.boot();
    const first = await bed.event('hello');
    expect(first.facts).toMatchObject({ agentRestarts: 0, registry: [] });
    const { target } = bed.victim();
    bed.tell({ do: 'register', copyId: 'kept', exclusive: false, targets: [target] });
    await bed.event('registered');
    const deadline = await bed.lease('leased', bed.victim().target, 60_000);
    bed.tell({ do: 'register', copyId: 'forgotten', exclusive: false, targets: [target] });
    await bed.event('registered');
    bed.tell({ do: 'forget', copyId: 'forgotten' });
    bed.tell({ do: 'register', copyId: 'last', exclusive: false, targets: [] });
    await bed.event('registered');
    process.kill(first.pid as number, 'SIGKILL');
    const second = await bed.event('hello');
    expect(second.facts).toMatchObject({ agentRestarts: 1 });
    expect(second.pid).not.toBe(first.pid);
    expect(new Map(second.registered as [string, number | undefined][])).toEqual(
      new Map<string, unknown>([
        ['kept', null],
        ['leased', deadline],
        ['last', null],
      ]),
    );
  });

  it('waits 100 ms before the first restart and twice as long each time', async () => {
    const boot = bed.boot(['3']);
    for (const restartInMs of [100, 200, 400]) {
      expect(await boot.lines.next((l) => l.restartInMs !== undefined)).toMatchObject({ restartInMs, code: 3 });
    }
    boot.process.kill('SIGTERM');
    expect(await boot.exit).toBe(0);
  });

  it('ends when the agent ends by itself, or calls its configuration wrong', async () => {
    expect(await bed.boot(['0']).exit).toBe(0);
    expect(await bed.boot(['78']).exit).toBe(78);
  });

  it('passes a wish to stop on and ends with the agent', async () => {
    const boot = bed.boot();
    await bed.event('hello');
    boot.process.kill('SIGINT');
    boot.process.kill('SIGTERM');
    expect(await boot.exit).toBe(0);
  });

  it('lets the agent finish', async () => {
    const boot = bed.boot();
    await bed.event('hello');
    boot.process.kill('SIGTERM');
    await bed.event('SIGTERM');
    expect(await boot.exit).toBe(0);
  });

  it('outlives what it does not understand', async () => {
    const boot = bed.boot();
    await bed.event('hello');
    for (const message of [
      null,
      7,
      { type: 'x' },
      { type: 'register', seq: 'a' },
      { type: 'deadline', deadlines: [['a']] },
    ]) {
      bed.tell({ do: 'garbage', message });
      await boot.lines.next((l) => String(l.msg).includes('not understood'));
    }
    const path = '/sys/fs/cgroup/x\n1 p 1 1';
    bed.tell({
      do: 'garbage',
      message: {
        type: 'register',
        seq: 1,
        copyId: 'c',
        exclusive: true,
        deadlineMs: null,
        targets: [{ type: 'cgroup', paths: [path] }],
      },
    });
    await boot.lines.next((l) => String(l.msg).includes('not understood'));
  });

  it('refuses a second boot on the same data directory, naming the first', async () => {
    const first = bed.boot();
    await bed.event('hello');
    const second = bed.boot();
    expect(await second.exit).toBe(78);
    expect(second.text()).toContain(
      `task-org-peer: the data directory ${bed.dataDir} is in use by the peer with process id ${first.pid}`,
    );
  });

  it('refuses a data directory that is none', async () => {
    writeFileSync(join(bed.dataDir, 'run'), '');
    const boot = bed.boot();
    expect(await boot.exit).toBe(78);
    expect(boot.text()).toMatch(/the data directory .* cannot be used/);
  });
});

describe('deadlines of exclusive copies', () => {
  it('are enforced while the agent is stopped, and reported when it goes on', async () => {
    bed.boot();
    const agent = (await bed.event('hello')).pid as number;
    const victim = bed.victim();
    const other = bed.victim();
    bed.tell({ do: 'register', copyId: 'available', exclusive: false, targets: [other.target] });
    await bed.event('registered');
    const deadline = await bed.lease('exclusive', victim.target, 1400);
    // A renewal moves it on.
    bed.tell({ do: 'deadline', copyId: 'exclusive', deadlineMs: deadline + 200 });
    bed.tell({ do: 'register', copyId: 'after', exclusive: false, targets: [] });
    await bed.event('registered');
    process.kill(agent, 'SIGSTOP');
    try {
      const endedAt = await victim.ended;
      // Not before deadline - S, and dead by the deadline (S = 1 s; the clock's hundredth counts against the copy).
      expect(endedAt).toBeGreaterThan(deadline + 200 - 1000 - 25);
      expect(endedAt).toBeLessThan(deadline + 200);
    } finally {
      process.kill(agent, 'SIGCONT');
    }
    expect(await bed.event('killed')).toMatchObject({ copyId: 'exclusive' });
    expect(process.kill(other.pid, 0)).toBe(true);
  });

  it('are enforced while no agent runs, and reported to the next', async () => {
    bed.boot();
    const agent = (await bed.event('hello')).pid as number;
    const victim = bed.victim();
    const deadline = await bed.lease('exclusive', victim.target, 1050);
    // Messages keep their order: once this one is answered, boot has the deadline.
    bed.tell({ do: 'register', copyId: 'later', exclusive: false, targets: [bed.victim().target] });
    await bed.event('registered');
    process.kill(agent, 'SIGKILL');
    expect(await victim.ended).toBeLessThan(deadline);
    expect(await bed.event('killed')).toMatchObject({ copyId: 'exclusive' });
  });

  it('a copy is killed at once when asked, whatever its kind, and stays condemned', async () => {
    bed.boot();
    await bed.event('hello');
    const victim = bed.victim();
    bed.tell({ do: 'register', copyId: 'c', exclusive: false, targets: [victim.target] });
    await bed.event('registered');
    bed.tell({ do: 'deadline', copyId: 'c', deadlineMs: null });
    bed.tell({ do: 'deadline', copyId: 'c', deadlineMs: bed.time.nowMs() + 60_000 });
    await bed.event('killed');
    await victim.ended;
  });

  it('an exclusive copy that never gets a deadline is killed after the grace', async () => {
    bed.boot();
    await bed.event('hello');
    const victim = bed.victim();
    bed.tell({ do: 'register', copyId: 'c', exclusive: true, targets: [victim.target] });
    await bed.event('killed');
    await victim.ended;
  });

  it('the self-test says that it can', async () => {
    bed.boot();
    const result = ((await bed.event('hello')).facts as { selfTest: SelfTestResult }).selfTest;
    expect(result.processGroup).toBe(true);
    expect(result.ok).toBe(result.cgroup);
    expect(result.problems).toHaveLength(result.cgroup ? 0 : 1);
  });
});

describe('the guard', () => {
  it('kills exclusive copies by their deadline when boot is killed, and then ends', async () => {
    const boot = bed.boot();
    await bed.event('hello');
    const victim = bed.victim();
    const other = bed.victim();
    bed.tell({ do: 'register', copyId: 'available', exclusive: false, targets: [other.target] });
    await bed.event('registered');
    const deadline = await bed.lease('exclusive', victim.target, 1500);
    bed.tell({ do: 'register', copyId: 'after', exclusive: false, targets: [] });
    await bed.event('registered');
    const guard = pidIn('guard.pid');
    boot.process.kill('SIGKILL');
    const endedAt = await victim.ended;
    expect(endedAt).toBeGreaterThan(deadline - 1000);
    expect(endedAt).toBeLessThan(deadline);
    await bed.gone(guard);
    expect(process.kill(other.pid, 0)).toBe(true);
  });

  it('kills them also when boot and agent are stopped', async () => {
    const boot = bed.boot();
    const agent = (await bed.event('hello')).pid as number;
    const victim = bed.victim();
    const deadline = await bed.lease('exclusive', victim.target, 1500);
    bed.tell({ do: 'register', copyId: 'after', exclusive: false, targets: [] });
    await bed.event('registered');
    process.kill(agent, 'SIGSTOP');
    boot.process.kill('SIGSTOP');
    try {
      expect(await victim.ended).toBeLessThan(deadline);
    } finally {
      boot.process.kill('SIGCONT');
      process.kill(agent, 'SIGCONT');
    }
    expect(await bed.event('killed')).toMatchObject({ copyId: 'exclusive' });
  });

  it('goes on after boot has ended in peace while copies are left, and ends at once when none is', async () => {
    const boot = bed.boot();
    await bed.event('hello');
    const victim = bed.victim();
    const deadline = await bed.lease('exclusive', victim.target, 2500);
    const guard = pidIn('guard.pid');
    boot.process.kill('SIGTERM');
    expect(await boot.exit).toBe(0);
    expect(await victim.ended).toBeLessThan(deadline);
    await bed.gone(guard);
    const again = bed.boot();
    await bed.event('hello');
    const second = pidIn('guard.pid');
    again.process.kill('SIGTERM');
    await again.exit;
    await bed.gone(second);
  });

  it('gives way to a new boot, which takes the registry over and ends the orphaned agent', async () => {
    const first = bed.boot();
    const agent = (await bed.event('hello')).pid as number;
    const victim = bed.victim();
    const deadline = await bed.lease('exclusive', victim.target, 60_000);
    bed.tell({ do: 'register', copyId: 'after', exclusive: false, targets: [] });
    await bed.event('registered');
    const guard = pidIn('guard.pid');
    process.kill(agent, 'SIGSTOP');
    first.process.kill('SIGKILL');
    await bed.gone(first.pid);
    bed.boot();
    const hello = await bed.event('hello');
    await bed.gone(agent);
    await bed.gone(guard);
    expect(hello.registered).toContainEqual(['exclusive', deadline]);
    bed.tell({ do: 'deadline', copyId: 'exclusive', deadlineMs: null });
    expect(await bed.event('killed')).toMatchObject({ copyId: 'exclusive' });
    await victim.ended;
  });
});

describe('arguments of boot', () => {
  it('splits its own from the agent’s', () => {
    const options = parseBootArguments([
      '--data-dir',
      '/d',
      '--agent=/a.js',
      '--agent-node-arg',
      '--x',
      '--probe-port=7',
      '--',
      '--data-dir',
      '/e',
    ]);
    expect(options).toMatchObject({
      dataDir: '/d',
      agentPath: '/a.js',
      agentNodeArgs: ['--x'],
      probePort: 7,
      agentArgs: ['--data-dir', '/e'],
    });
  });
  it('says what is wrong', () => {
    expect(() => parseBootArguments([])).toThrow('--data-dir is missing');
    expect(() => parseBootArguments(['--data-dir', '/d', '--probe-port', '70000'])).toThrow('--probe-port must be');
    expect(() => parseBootArguments(['--data-dri', '/d'])).toThrow("unknown argument '--data-dri'");
  });
});

describe('the guard’s script', () => {
  it('kills cgroups with blanks in their names, and groups whose leader is gone', async () => {
    const victim = bed.victim();
    // The leader goes; its child stays in the group.
    const member = await bed.childOf(victim.pid);
    process.kill(victim.pid, 'SIGKILL');
    await victim.ended;
    const targets: KillTarget[] = [victim.target];
    const inCgroup = bed.cgroupVictim('task-org test');
    if (inCgroup !== undefined) targets.push(inCgroup.target);
    const file = join(bed.dataDir, 'guard-file');
    writeFileSync(file, guardFile([{ targets, killAtMs: bed.time.nowMs() - 2000 }], 1000));
    // A supervisor that does not exist: the guard ends as soon as nothing is left.
    await bed.guard(file);
    await bed.gone(member);
    await inCgroup?.ended;
  });
});

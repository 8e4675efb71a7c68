import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { getPriority, setPriority } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { raisePriority } from '../../src/adapters/host/priority.ts';
import { LogSampler, timeAt } from '../../src/adapters/process/log-files.ts';
import { execOptions, lives, Machine, never, sh } from './runtime-process-bed.ts';

let m: Machine;
beforeEach(() => {
  m = new Machine();
});
afterEach(() => m.dispose());

const pidOf = (handle: string): number => Number(handle.replace('pid:', ''));
const closed = (child: ChildProcess): Promise<void> =>
  new Promise((resolve) => void child.once('close', () => resolve()));
const spare = (name: string): string => new URL(`../../src/${name}`, import.meta.url).pathname;

/** An agent of its own process: starts one copy, says `ready` when `until` is reached, and waits to be killed. */
async function otherAgent(
  script: string,
  until: 'registering' | 'started',
): Promise<{ child: ChildProcess; said: string }> {
  const program = `
    import { createProcessRuntime } from ${JSON.stringify(spare('adapters/process/process-runtime.ts'))};
    const spec = ${JSON.stringify(sh(script))};
    const log = { error() {}, warn() {}, info() {}, debug() {} };
    const runtime = createProcessRuntime({ dataDir: ${JSON.stringify(m.dataDir)}, clusterId: 'test', nodeId: ${JSON.stringify(m.dataDir)}, log });
    const copy = { taskId: 't1', slot: 0, generation: { epoch: 1, g: 1 }, specVersion: 1, spec, exclusive: false };
    const say = (words) => process.stdout.write(words + '\\n');
    const register = async (target) => ${until === 'registering' ? '{ say(JSON.stringify(target)); await new Promise(() => {}); }' : 'undefined'};
    setInterval(() => {}, 1000);
    say((await runtime.start(copy, register, new AbortController().signal)).handle);`;
  const child = spawn(process.execPath, ['--input-type=module-typescript', '-e', program], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  let said = '';
  for await (const data of child.stdout as AsyncIterable<Buffer>) {
    said += data.toString();
    if (said.includes('\n')) break;
  }
  return { child, said: said.trim() };
}

describe('a copy and its peer', () => {
  it.runIf(process.getuid?.() === 0)('a peer goes before its tasks, and they before nobody', async () => {
    const before = getPriority();
    try {
      expect(raisePriority()).toBe(true);
      expect(getPriority()).toBe(-10);
      const copy = await m.start(sh('echo ready; sleep 60'));
      await m.line(copy.copyId, /ready/);
      expect(getPriority(pidOf(copy.handle))).toBe(0);
    } finally {
      setPriority(before);
    }
  });

  it('what a copy that lost has written is set aside, and the next one starts with a directory of its own', async () => {
    const copy = await m.start(sh('echo written > file; echo ready; sleep 60'));
    await m.line(copy.copyId, /ready/);
    await m.runtime.stop(copy.copyId, { stopSignal: 'SIGTERM', graceMs: 1000, keep: true }, never);
    expect(lives(pidOf(copy.handle))).toBe(false);
    expect(await m.runtime.list(never)).toEqual([]);
    const branch = join(m.dataDir, 'branches', copy.copyId);
    expect(readFileSync(join(branch, 'work', 'file'), 'utf8')).toBe('written\n');
    expect(readFileSync(join(branch, 'logs', 'stdout.log'), 'utf8')).toContain('ready');
    const next = await m.start(sh('ls; echo ready; sleep 60'));
    await m.line(next.copyId, /ready/);
    expect(existsSync(join(m.dataDir, 'work', 't1.0', 'file'))).toBe(false);
    await m.restart();
    expect(await m.runtime.list(never)).toHaveLength(1);
  });
});

describe('after the death of the agent', () => {
  it('finds a running copy again and tells its exit at once', async () => {
    const first = await m.start(
      sh('mkfifo f; echo ready; read x <f; exit 9', { ports: [{ container: 80, host: 0, protocol: 'tcp' }] }),
    );
    await m.line(first.copyId, /ready/);
    await m.restart();
    expect(await m.runtime.list(never)).toEqual([first]);
    expect(await m.start(sh('unused'))).toEqual(first);
    writeFileSync(join(m.dataDir, 'work', 't1.0', 'f'), 'go\n');
    expect(await m.exit(first.copyId)).toMatchObject({ exitCode: 9, oomKilled: false });
    expect(m.exits(first.copyId)).toBe(1);
  });

  it('tells the exit that nobody saw', async () => {
    const copy = await m.start(sh('mkfifo f; echo ready; read x <f; exit 6'));
    await m.line(copy.copyId, /ready/);
    const ends = m.exit(copy.copyId).then(
      () => 'told by a closed runtime',
      () => '',
    );
    await m.restart(async () => {
      writeFileSync(join(m.dataDir, 'work', 't1.0', 'f'), 'go\n');
      await expect.poll(() => lives(pidOf(copy.handle)), { interval: 5 }).toBe(false);
    });
    expect(await m.runtime.list(never)).toMatchObject([{ copyId: copy.copyId, running: false, exitCode: 6 }]);
    void ends;
  });

  it('stops and signals a copy it did not start', async () => {
    const copy = await m.start(sh(`trap 'exit 8' TERM; echo ready; while :; do sleep 100 & wait; done`));
    await m.line(copy.copyId, /ready/);
    await m.restart();
    await m.runtime.stop(copy.copyId, { stopSignal: 'SIGTERM', graceMs: 5000 }, never);
    expect((await m.exit(copy.copyId)).exitCode).toBe(8);
    expect(lives(pidOf(copy.handle))).toBe(false);
  });

  it('sees the death of a copy together with its launcher', async () => {
    const copy = await m.start(sh('echo ready; exec sleep 100'));
    await m.line(copy.copyId, /ready/);
    await m.restart();
    await m.runtime.list(never);
    process.kill(-pidOf(copy.handle), 'SIGKILL');
    expect((await m.exit(copy.copyId)).exitCode).toBe(137);
  });

  it('knows a pid of another process, or of an earlier boot, for what it is', async () => {
    const copy = await m.start(sh('echo ready; exec sleep 100'));
    await m.line(copy.copyId, /ready/);
    const path = join(m.dataDir, 'copies', copy.copyId, 'record.json');
    const record = JSON.parse(readFileSync(path, 'utf8')) as Record<string, unknown>;
    await m.restart(() => writeFileSync(path, JSON.stringify({ ...record, bootId: 'an earlier one' })));
    expect(await m.runtime.list(never)).toMatchObject([{ running: false, exitCode: 137 }]);
    expect(lives(pidOf(copy.handle))).toBe(true);
    const startTicks = Number(record.startTicks) - 1;
    await m.restart(() =>
      writeFileSync(path, JSON.stringify({ ...record, startTicks, killPaths: [], cgroupDirs: [] })),
    );
    expect(await m.runtime.list(never)).toMatchObject([{ running: false }]);
    expect(lives(pidOf(copy.handle))).toBe(true);
    await m.restart(() => writeFileSync(path, JSON.stringify(record)));
    await m.runtime.kill(copy.copyId, never);
    expect(lives(pidOf(copy.handle))).toBe(false);
  });

  it('ends and removes a copy whose record is garbage, and says so', async () => {
    const copy = await m.start(sh('echo ready; exec sleep 100'));
    await m.line(copy.copyId, /ready/);
    const path = join(m.dataDir, 'copies', copy.copyId, 'record.json');
    await m.restart(() => writeFileSync(path, readFileSync(path, 'utf8').slice(0, 40)));
    expect(await m.runtime.list(never)).toEqual([]);
    expect(m.warnings).toEqual([expect.stringContaining('record of a process copy cannot be read')]);
    expect(lives(pidOf(copy.handle))).toBe(false);
    expect(readdirSync(join(m.dataDir, 'copies'))).toEqual([]);
  });

  it('finds what a killed agent had started', async () => {
    const { child, said } = await otherAgent('echo ready; exec sleep 100', 'started');
    child.kill('SIGKILL');
    await closed(child);
    await m.restart();
    expect(await m.runtime.list(never)).toMatchObject([{ handle: said, running: true }]);
    await m.line('t1.0.1.1.1', /ready/);
  });

  it('runs nothing of a copy whose agent died while registering it', async () => {
    const { child, said } = await otherAgent('echo ran >mark; exec sleep 100', 'registering');
    const record = JSON.parse(readFileSync(join(m.dataDir, 'copies', 't1.0.1.1.1', 'record.json'), 'utf8')) as {
      pid: number;
    };
    expect(JSON.parse(said)).toHaveProperty('type');
    expect(lives(record.pid)).toBe(true);
    child.kill('SIGKILL');
    await closed(child);
    await expect.poll(() => lives(record.pid), { interval: 5 }).toBe(false);
    await m.restart();
    expect(await m.runtime.list(never)).toEqual([]);
    expect(existsSync(join(m.dataDir, 'work', 't1.0', 'mark'))).toBe(false);
    expect(readdirSync(join(m.dataDir, 'copies'))).toEqual([]);
  });
});

describe('logs', () => {
  it('gives both streams, the last lines, and times', async () => {
    const copy = await m.start(sh('for i in 1 2 3; do echo out$i; done; echo err >&2'));
    await m.exit(copy.copyId);
    expect(await m.output(copy.copyId)).toEqual({ stdout: 'out1\nout2\nout3\n', stderr: 'err\n' });
    expect((await m.output(copy.copyId, 2)).stdout).toBe('out2\nout3\n');
    expect(await m.output(copy.copyId, 0)).toEqual({ stdout: '', stderr: '' });
    const timed = (await m.output(copy.copyId, 1, true)).stdout;
    expect(timed).toMatch(/^\d{4}-\d\d-\d\dT[\d:.]+Z out3\n$/);
    expect(Math.abs(Date.parse(timed.split(' ')[0] ?? '') - Date.now())).toBeLessThan(60_000);
  });

  it('follows until the copy ends, and no longer than its reader wants', async () => {
    const copy = await m.start(sh('mkfifo f; echo first; read x <f; echo last; exit 0'));
    const text: string[] = [];
    for await (const { data } of m.runtime.logs(copy.copyId, { follow: true, tail: 10, timestamps: false }, never)) {
      text.push(new TextDecoder().decode(data));
      if (text.join('') === 'first\n') writeFileSync(join(m.dataDir, 'work', 't1.0', 'f'), 'go\n');
    }
    expect(text.join('')).toBe('first\nlast\n');
    await expect(m.output('t9.0.1.1.1')).rejects.toMatchObject({ code: 'not_found' });
  });

  it('rotates by copying and cutting, without losing a line to a follower', async () => {
    const copy = await m.start(sh('mkfifo f; while read x; do echo "$x"; done <f'));
    const dir = join(m.dataDir, 'copies', copy.copyId);
    const fifo = join(m.dataDir, 'work', 't1.0', 'f');
    const sampler = new LogSampler(dir, 64);
    const numbers = Array.from({ length: 40 }, (_, i) => `line ${i}`);
    const seen: string[] = [];
    await expect.poll(() => existsSync(fifo), { interval: 5 }).toBe(true);
    const writer = spawn('/bin/sh', ['-c', 'exec cat >"$1"', 'sh', fifo], { stdio: ['pipe', 'ignore', 'inherit'] });
    let next = 0;
    writer.stdin.write(`${numbers[next++]}\n`);
    for await (const { data } of m.runtime.logs(copy.copyId, { follow: true, tail: 100, timestamps: false }, never)) {
      seen.push(new TextDecoder().decode(data));
      sampler.sample(1000 + next);
      await sampler.rotate();
      if (next < numbers.length) writer.stdin.write(`${numbers[next++]}\n`);
      else writer.stdin.end();
    }
    expect(seen.join('')).toBe(`${numbers.join('\n')}\n`);
    expect(readFileSync(join(dir, 'stdout.log.1'), 'utf8').length).toBeGreaterThanOrEqual(64);
    expect(readFileSync(join(dir, 'stdout.log'), 'utf8').length).toBeLessThan(64 + 16);
    const kept = (await m.output(copy.copyId)).stdout.split('\n');
    expect(kept.at(-2)).toBe('line 39');
    expect((await m.output(copy.copyId, 8)).stdout).toBe(`${numbers.slice(-8).join('\n')}\n`);
    expect(readdirSync(dir).filter((f) => f.endsWith('.tmp'))).toEqual([]);
  });

  it('finds the time of a byte among the samples', () => {
    const times = [
      { ms: 10, size: 5 },
      { ms: 20, size: 9 },
    ];
    expect([0, 4, 5, 8].map((offset) => timeAt(times, offset).getTime())).toEqual([10, 10, 20, 20]);
    expect(timeAt(times, 9).getTime()).toBeGreaterThan(1e12);
  });
});

describe('beside the copy', () => {
  const spec = sh('echo ready; exec sleep 100', { env: { GREETING: 'hi' } });

  it('runs a command in its surroundings', async () => {
    const copy = await m.start(spec);
    const told = await m.exec(
      copy.copyId,
      execOptions(['/bin/sh', '-c', 'echo "$GREETING $MORE"; pwd; echo wrong >&2; exit 5'], { env: { MORE: 'there' } }),
    );
    expect(told).toEqual({ code: 5, stdout: `hi there\n${join(m.dataDir, 'work', 't1.0')}\n`, stderr: 'wrong\n' });
    await expect(m.runtime.exec(copy.copyId, execOptions(['no-such-program']), never)).rejects.toMatchObject({
      message: 'command not found: no-such-program',
    });
  });

  it('feeds input, and ends with the copy', async () => {
    const copy = await m.start(spec);
    const session = await m.runtime.exec(copy.copyId, execOptions(['cat'], { interactive: true }), never);
    await session.write(Buffer.from('one\n'));
    await session.write(Buffer.from('two\n'));
    session.closeInput();
    let text = '';
    for await (const chunk of session.output) text += new TextDecoder().decode(chunk.data);
    expect(text).toBe('one\ntwo\n');
    expect(await session.exitCode).toBe(0);
    const long = await m.runtime.exec(copy.copyId, execOptions(['sleep', '100']), never);
    await m.runtime.kill(copy.copyId, never);
    expect(await long.exitCode).toBe(137);
    await expect(m.runtime.exec(copy.copyId, execOptions(['true']), never)).rejects.toMatchObject({
      code: 'not_found',
    });
  });

  it('ends a command that is called off, whatever holds its output open', async () => {
    const copy = await m.start(spec);
    const off = new AbortController();
    const session = await m.runtime.exec(
      copy.copyId,
      execOptions(['/bin/sh', '-c', 'echo started; sleep 100 & exit 0']),
      off.signal,
    );
    let text = '';
    for await (const chunk of session.output) {
      text += new TextDecoder().decode(chunk.data);
      await session.exitCode;
      off.abort();
    }
    expect(text).toBe('started\n');
  });

  it('makes a terminal where the machine has what it takes', async () => {
    const copy = await m.start(spec);
    const options = execOptions(['/bin/sh', '-c', 'test -t 0 && test -t 1 && stty size; exit 3'], {
      tty: true,
      size: { columns: 91, rows: 27 },
    });
    if (!existsSync('/usr/bin/script')) {
      await expect(m.runtime.exec(copy.copyId, options, never)).rejects.toMatchObject({
        hint: expect.stringContaining('util-linux'),
      });
      return;
    }
    expect(await m.exec(copy.copyId, options)).toMatchObject({ code: 3, stdout: expect.stringContaining('27 91') });
    const session = await m.runtime.exec(
      copy.copyId,
      execOptions(['/bin/sh', '-c', `trap 'stty size; exit 0' WINCH; echo up; while :; do sleep 0.05; done`], {
        tty: true,
        interactive: true,
      }),
      never,
    );
    let text = '';
    for await (const chunk of session.output) {
      text += new TextDecoder().decode(chunk.data);
      if (/^up\s*$/.test(text)) await session.resize(77, 33);
    }
    expect(text).toContain('33 77');
  });

  it('counts what the copy uses', async () => {
    const copy = await m.start(sh('echo ready; while :; do :; done'));
    await m.line(copy.copyId, /ready/);
    await m.runtime.stats(copy.copyId, never);
    const used = async (): Promise<number> => (await m.runtime.stats(copy.copyId, never)).cpuCores;
    await expect.poll(used, { interval: 50 }).toBeGreaterThan(0.05);
    const stats = await m.runtime.stats(copy.copyId, never);
    expect(stats).toMatchObject({ memoryLimitBytes: null, networkRxBytes: 0, networkTxBytes: 0 });
    expect(stats.pids).toBe(2);
    expect(stats.memoryBytes).toBeGreaterThan(10_000);
    await m.runtime.kill(copy.copyId, never);
    await expect(m.runtime.stats(copy.copyId, never)).rejects.toMatchObject({ code: 'not_found' });
  });
});

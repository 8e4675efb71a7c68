import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { accessSync, existsSync, mkdirSync, rmdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { cgroupMounts } from '../adapters/process/cgroup-fs.ts';
import { readProcStat } from '../adapters/process/proc-fs.ts';
import type { KillTarget, SelfTestResult } from '../model/boot-protocol.ts';

type Kill = (target: KillTarget) => Promise<boolean>;

/**
 * Can this boot do what exclusive tasks rest on? Starts throwaway processes in a group and in a cgroup of their own and
 * kills them the way it would kill a copy. Takes some 10 ms; leaves nothing behind.
 */
export async function selfTest(kill: Kill): Promise<SelfTestResult> {
  const problems: string[] = [];
  try {
    accessSync('/proc/uptime');
  } catch {
    problems.push('there is no clock here that counts suspend (/proc/uptime)');
  }
  const processGroup = await attempt(problems, 'a process group', () => testGroup(kill));
  const cgroup = await attempt(problems, 'a cgroup', () => testCgroup(kill));
  return { ok: problems.length === 0, problems, processGroup, cgroup };
}

async function attempt(problems: string[], what: string, test: () => Promise<string | undefined>): Promise<boolean> {
  const problem = await test().catch((error: unknown) => (error instanceof Error ? error.message : String(error)));
  if (problem !== undefined) problems.push(`${what} cannot be killed: ${problem}`);
  return problem === undefined;
}

function throwaway(): { child: ReturnType<typeof spawn>; ended: Promise<unknown> } {
  const child = spawn('/bin/sh', ['-c', 'sleep 60 & sleep 60'], { detached: true, stdio: 'ignore' });
  return { child, ended: once(child, 'exit') };
}

async function testGroup(kill: Kill): Promise<string | undefined> {
  const { child, ended } = throwaway();
  const pgid = child.pid;
  if (pgid === undefined) return 'no child process could be started';
  const startTicks = readProcStat(pgid)?.startTicks;
  try {
    if (startTicks === undefined) return '/proc does not show processes';
    if (!(await kill({ type: 'process-group', pgid, startTicks }))) return 'a process survived SIGKILL';
    await ended;
    return child.signalCode === 'SIGKILL' ? undefined : `it ended by ${child.signalCode ?? child.exitCode} instead`;
  } finally {
    if (child.signalCode === null) process.kill(-pgid, 'SIGKILL');
  }
}

async function testCgroup(kill: Kill): Promise<string | undefined> {
  const name = `task-org-selftest-${process.pid}`;
  const mounts = cgroupMounts().filter((m) => m.v2 || m.controllers.includes('freezer'));
  if (mounts.length === 0) return 'no cgroup hierarchy is mounted';
  let problem = '';
  for (const mount of mounts) {
    const dir = join(mount.dir, name);
    try {
      mkdirSync(dir);
    } catch (error) {
      problem = `${mount.dir} is not writable (${(error as NodeJS.ErrnoException).code}); run the peer as root, or delegate a cgroup to it`;
      continue;
    }
    try {
      if (!existsSync(join(dir, mount.v2 ? 'cgroup.procs' : 'freezer.state'))) continue;
      const failed = await killOneIn(dir, kill);
      if (failed === undefined) return undefined;
      problem = failed;
    } finally {
      await remove(dir);
    }
  }
  return problem || 'no usable cgroup hierarchy';
}

async function killOneIn(dir: string, kill: Kill): Promise<string | undefined> {
  const { child, ended } = throwaway();
  if (child.pid === undefined) return 'no child process could be started';
  try {
    writeFileSync(join(dir, 'cgroup.procs'), String(child.pid));
    if (!(await kill({ type: 'cgroup', paths: [dir] }))) return 'a process survived SIGKILL';
    await ended;
    return child.signalCode === 'SIGKILL' ? undefined : `it ended by ${child.signalCode ?? child.exitCode} instead`;
  } finally {
    // Also whatever it had started before it was moved.
    try {
      process.kill(-child.pid, 'SIGKILL');
    } catch {
      // gone
    }
  }
}

/** A cgroup can be removed a moment after its last process is gone. */
async function remove(dir: string): Promise<void> {
  for (let i = 0; i < 50; i++) {
    try {
      rmdirSync(dir);
      return;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EBUSY') return;
    }
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import type { KillTarget } from '../../model/boot-protocol.ts';
import { cgroupMounts, cgroupPids, cgroupTree } from './cgroup-fs.ts';
import { isSameProcess, listProcesses, readProcStat } from './proc-fs.ts';

// Kills a copy with neither agent nor engine: SIGKILL to every process of its cgroup (v2: cgroup.kill; v1: freeze, kill,
// thaw), or of its process group and session. Shared by the runtimes and the supervisor, so it imports next to nothing.

/** Longest time one call tries, ms. A process in uninterruptible sleep can outlast it. */
const KILL_TIMEOUT_MS = 2_000;
/** A freezer that does not get there (a process in the kernel) is not waited for: killing and looking again also ends. */
const FREEZE_WAIT_MS = 20;
const FIRST_PAUSE_MS = 1;
const LONGEST_PAUSE_MS = 16;
/** A container's group below an unknown parent is looked for so deep and among so many directories at the most. */
const SEARCH_DEPTH = 8;
const SEARCH_DIRECTORIES = 20_000;
const CONTAINER_GROUP = /^(?:[a-z]+-)?([0-9a-f]{64})(?:\.scope)?$/;

/**
 * Kills all processes of `target` and waits until none is left. True = proven dead; false = something was alive, or could
 * not be seen, when the time was over (call again). Never throws. A copy that is being created may appear right after: the
 * caller repeats until no start is pending.
 */
export async function killTarget(target: KillTarget, timeoutMs = KILL_TIMEOUT_MS): Promise<boolean> {
  const deadline = performance.now() + timeoutMs;
  try {
    if (target.type === 'cgroup') return await killCgroups(target.paths, deadline);
    return await killGroup(target.pgid, target.startTicks, deadline);
  } catch {
    return false;
  }
}

/** Whether a process of the target lives now. Undefined when it cannot be told. */
export function isAlive(target: KillTarget): boolean | undefined {
  if (target.type === 'process-group') return members(target.pgid, target.startTicks).length > 0;
  const dirs = existing(target.paths);
  return dirs && dirs.flatMap(cgroupPids).length > 0;
}

async function killCgroups(paths: readonly string[], deadline: number): Promise<boolean> {
  let pauseMs = FIRST_PAUSE_MS;
  for (;;) {
    const dirs = existing(paths);
    if (dirs === undefined) return false;
    if (dirs.flatMap(cgroupPids).length === 0) return true;
    for (const dir of dirs) if (!writeQuietly(join(dir, 'cgroup.kill'), '1')) await freezeAndKill(dir);
    if (dirs.flatMap(cgroupPids).length === 0) return true;
    if (performance.now() > deadline) return false;
    await pause(pauseMs);
    pauseMs = Math.min(2 * pauseMs, LONGEST_PAUSE_MS);
  }
}

/** v1: while frozen nothing can fork away from the kill. Signals are delivered on thaw; also ends an engine's `pause`. */
async function freezeAndKill(dir: string): Promise<void> {
  const freezer = join(dir, 'freezer.state');
  const frozen = existsSync(freezer) && writeQuietly(freezer, 'FROZEN');
  try {
    const until = performance.now() + FREEZE_WAIT_MS;
    while (frozen && readQuietly(freezer).trim() === 'FREEZING' && performance.now() < until)
      await pause(FIRST_PAUSE_MS);
    for (const pid of cgroupPids(dir)) if (pid > 0) signal(pid);
  } finally {
    if (frozen) for (const each of cgroupTree(dir)) writeQuietly(join(each, 'freezer.state'), 'THAWED');
  }
}

/**
 * The directories of `paths` that exist; where none does and they name a container, its group wherever it stands (the
 * engine's parent group may not have been known). Undefined: no cgroup can be seen here, so nothing is proven.
 */
function existing(paths: readonly string[]): string[] | undefined {
  const found = paths.filter((path) => existsSync(path));
  if (found.length > 0) return found;
  const mounts = cgroupMounts().filter((m) => m.v2 || m.controllers.includes('freezer'));
  if (mounts.length === 0 || paths.length === 0) return undefined;
  const ids = new Set(paths.map((path) => CONTAINER_GROUP.exec(basename(path))?.[1]).filter((id) => id !== undefined));
  if (ids.size === 0) return [];
  let left = SEARCH_DIRECTORIES;
  const search = (dir: string, depth: number): string[] => {
    if (depth > SEARCH_DEPTH || left <= 0) return [];
    const names = subdirectories(dir);
    left -= names.length;
    return names.flatMap((name) => {
      const id = CONTAINER_GROUP.exec(name)?.[1];
      if (id !== undefined) return ids.has(id) ? [join(dir, name)] : [];
      return search(join(dir, name), depth + 1);
    });
  };
  const dirs = mounts.flatMap((m) => search(m.dir, 0));
  return dirs.length === 0 && left <= 0 ? undefined : dirs;
}

function subdirectories(dir: string): string[] {
  try {
    return readdirSync(dir, { withFileTypes: true })
      .filter((e) => e.isDirectory())
      .map((e) => e.name);
  } catch {
    return [];
  }
}

async function killGroup(pgid: number, startTicks: number, deadline: number): Promise<boolean> {
  // 0 and 1 would mean our own group and everything we may signal.
  if (!Number.isInteger(pgid) || pgid <= 1) return false;
  let pauseMs = FIRST_PAUSE_MS;
  for (;;) {
    const left = members(pgid, startTicks);
    if (left.length === 0) return true;
    if (performance.now() > deadline) return false;
    if (left.includes(-pgid)) signal(-pgid);
    for (const pid of left) if (pid > 0) signal(pid);
    await pause(pauseMs);
    pauseMs = Math.min(2 * pauseMs, LONGEST_PAUSE_MS);
  }
}

/**
 * Living processes of the group and of its session, with -pgid first where the group as such may be signalled. A leader
 * with other start ticks is another process that was given the number: then ours is gone, group and all, since the
 * kernel does not reuse a number that still names a group.
 */
function members(pgid: number, startTicks: number): number[] {
  const all = listProcesses();
  if (all.length === 0) return groupExists(pgid) ? [-pgid] : []; // no /proc (macOS): the group only
  const leader = readProcStat(pgid);
  if (leader && leader.startTicks !== startTicks) return [];
  const pids = all
    .filter((p) => (p.pgrp === pgid || p.session === pgid) && p.state !== 'Z' && p.state !== 'X')
    .map((p) => p.pid);
  return isSameProcess(pgid, startTicks) ? [-pgid, ...pids] : pids;
}

function groupExists(pgid: number): boolean {
  try {
    process.kill(-pgid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}

function signal(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch {
    // gone, or not ours: the next look tells
  }
}

function writeQuietly(path: string, text: string): boolean {
  try {
    writeFileSync(path, text, { flag: 'r+' });
    return true;
  } catch {
    return false;
  }
}

function readQuietly(path: string): string {
  try {
    return readFileSync(path, 'latin1');
  } catch {
    return '';
  }
}

const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

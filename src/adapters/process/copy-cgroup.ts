import { existsSync, mkdirSync, readdirSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { type CgroupMount, cgroupMounts, cgroupsOf, cgroupTree, directoryOf } from './cgroup-fs.ts';

// A cgroup per process copy, v1 or v2, beside the agent's own group: not below it, since a service manager that stops the
// agent kills everything below its group, and copies outlive agents.

const CPU_PERIOD_US = 100_000;
const V1_WANTED = ['freezer', 'pids', 'memory', 'cpu', 'cpuacct', 'cpuset'];
const V2_WANTED = ['cpuset', 'cpu', 'memory', 'pids'];
/** Processes and threads of one copy: above what programs need, below what ends a machine. */
const PIDS_MAX = 8192;
const REMOVE_TRIES = 40;
const REMOVE_PAUSE_MS = 5;

export interface CgroupLimits {
  /** Cores, 0 = no limit. */
  readonly cpus: number;
  /** Cores to pin to, `0,2`; undefined = any. */
  readonly pins: string | undefined;
  /** Bytes, 0 = no limit. */
  readonly memoryBytes: number;
}

export interface CopyCgroup {
  /** Every directory made for the copy, over all hierarchies. */
  readonly dirs: readonly string[];
  /** Those that boot kills by: v2 first, then the freezer. */
  readonly killPaths: readonly string[];
  /** Limits asked for that the kernel did not take, in words. */
  readonly unmet: readonly string[];
}

/**
 * Makes the group `PARENT/NAME` in every hierarchy worth one. Undefined where no group can be killed as a whole (not
 * allowed, or no cgroups): then the process group is all there is.
 */
export function createCopyCgroup(parent: string, name: string, limits: CgroupLimits): CopyCgroup | undefined {
  const own = cgroupsOf('self');
  if (!own) return undefined;
  const made: { mount: CgroupMount; dir: string }[] = [];
  for (const mount of cgroupMounts()) {
    const controllers = mount.v2 ? ['v2'] : mount.controllers.filter((c) => V1_WANTED.includes(c));
    const ours = own.get(controllers[0] ?? '');
    const base = ours === undefined ? undefined : directoryOf(mount, join(dirname(ours), parent));
    if (base === undefined) continue;
    try {
      if (mount.v2) {
        delegate(dirname(base));
        mkdirSync(base, { recursive: true });
        delegate(base);
      } else {
        mkdirSync(base, { recursive: true });
        if (mount.controllers.includes('cpuset')) inheritCpuset(base);
      }
      const dir = join(base, name);
      mkdirSync(dir, { recursive: true });
      if (mount.controllers.includes('cpuset')) inheritCpuset(dir);
      made.push({ mount, dir });
    } catch {
      // not allowed in this hierarchy: the others may do
    }
  }
  const killers = made.filter(({ mount, dir }) =>
    mount.v2 ? existsSync(join(dir, 'cgroup.kill')) : mount.controllers.includes('freezer'),
  );
  const dirs = made.map((m) => m.dir);
  if (killers.length === 0) {
    for (const dir of dirs) rmdirQuietly(dir);
    return undefined;
  }
  const killPaths = [...killers].sort((a, b) => Number(b.mount.v2) - Number(a.mount.v2)).map((m) => m.dir);
  return { dirs, killPaths, unmet: applyLimits(dirs, limits) };
}

/**
 * Moves the process into the group, in every hierarchy. Throws where the kernel refuses. Not on the event loop's thread:
 * the first move in a while waits for a grace period of the kernel's RCU, 15 ms and more.
 */
export async function enterCgroup(dirs: readonly string[], pid: number): Promise<void> {
  for (const dir of dirs) await writeFile(join(dir, 'cgroup.procs'), String(pid));
}

/** Removes the group; its processes must be dead. A busy one is tried again for 200 ms, then left to the next call. */
export async function removeCgroup(dirs: readonly string[]): Promise<void> {
  for (const dir of dirs) {
    for (let i = 0; i < REMOVE_TRIES; i++) {
      if (cgroupTree(dir).reverse().every(rmdirQuietly)) break;
      await delay(REMOVE_PAUSE_MS);
    }
  }
}

/** Whether the kernel killed a process of the group for want of memory. */
export function wasOomKilled(dirs: readonly string[]): boolean {
  return dirs.some((dir) => {
    const text = read(dir, 'memory.events') ?? read(dir, 'memory.oom_control') ?? '';
    return Number(/^oom_kill (\d+)$/m.exec(text)?.[1] ?? 0) > 0;
  });
}

/** CPU time (ms), memory in use without inactive file cache (bytes) and its limit; undefined where no controller tells. */
export function cgroupUsage(dirs: readonly string[]): {
  readonly cpuMs: number | undefined;
  readonly memoryBytes: number | undefined;
  readonly memoryLimitBytes: number | undefined;
} {
  let cpuMs: number | undefined;
  let memoryBytes: number | undefined;
  let memoryLimitBytes: number | undefined;
  for (const dir of dirs) {
    const v1Cpu = read(dir, 'cpuacct.usage');
    const v2Cpu = /^usage_usec (\d+)/m.exec(read(dir, 'cpu.stat') ?? '')?.[1];
    if (v1Cpu !== undefined) cpuMs = Number(v1Cpu) / 1e6;
    else if (v2Cpu !== undefined && cpuMs === undefined) cpuMs = Number(v2Cpu) / 1e3;
    const used = read(dir, 'memory.usage_in_bytes') ?? read(dir, 'memory.current');
    if (used === undefined) continue;
    const cache = /^(?:total_)?inactive_file (\d+)$/m.exec(read(dir, 'memory.stat') ?? '')?.[1];
    memoryBytes = Math.max(0, Number(used) - Number(cache ?? 0));
    const limit = Number(read(dir, 'memory.limit_in_bytes') ?? read(dir, 'memory.max') ?? Number.NaN);
    if (Number.isSafeInteger(limit)) memoryLimitBytes = limit;
  }
  return { cpuMs, memoryBytes, memoryLimitBytes };
}

function applyLimits(dirs: readonly string[], limits: CgroupLimits): string[] {
  const unmet: string[] = [];
  const put = (file: string, value: string): boolean =>
    dirs.some((dir) => existsSync(join(dir, file)) && write(join(dir, file), value));
  put('pids.max', String(PIDS_MAX));
  if (limits.memoryBytes > 0) {
    const bytes = String(limits.memoryBytes);
    if (!put('memory.limit_in_bytes', bytes) && !put('memory.max', bytes)) unmet.push('memory');
    // Swap would turn the limit into slowness; where swap is not accounted these files are missing.
    if (!put('memory.memsw.limit_in_bytes', bytes)) put('memory.swap.max', '0');
  }
  if (limits.cpus > 0 && !(limits.pins !== undefined && put('cpuset.cpus', limits.pins))) {
    const quota = String(Math.max(1000, Math.round(limits.cpus * CPU_PERIOD_US)));
    const v1 = put('cpu.cfs_period_us', String(CPU_PERIOD_US)) && put('cpu.cfs_quota_us', quota);
    if (!v1 && !put('cpu.max', `${quota} ${CPU_PERIOD_US}`)) unmet.push('cpus');
  }
  return unmet;
}

/** v2: hands the controllers down. Refused where the group holds processes itself: then limits are unmet, killing works. */
function delegate(dir: string): void {
  const available = (read(dir, 'cgroup.controllers') ?? '').trim().split(' ');
  for (const c of V2_WANTED) if (available.includes(c)) write(join(dir, 'cgroup.subtree_control'), `+${c}`);
}

/** v1 cpusets start empty, and a process cannot enter an empty one. */
function inheritCpuset(dir: string): void {
  for (const file of ['cpuset.cpus', 'cpuset.mems'])
    if ((read(dir, file) ?? '').trim() === '') write(join(dir, file), read(dirname(dir), file) ?? '');
}

function read(dir: string, file: string): string | undefined {
  try {
    return readFileSync(join(dir, file), 'latin1');
  } catch {
    return undefined;
  }
}

function write(path: string, text: string): boolean {
  try {
    writeFileSync(path, text, { flag: 'r+' });
    return true;
  } catch {
    return false;
  }
}

function rmdirQuietly(dir: string): boolean {
  try {
    rmdirSync(dir);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'ENOENT';
  }
}

/** Removes the group above the copies' own, once it is empty; the next copy makes it again. */
export function removeParentCgroup(parent: string): void {
  const own = cgroupsOf('self');
  for (const mount of own ? cgroupMounts() : []) {
    const base = parentOf(mount, own, parent);
    if (base !== undefined) rmdirQuietly(base);
  }
}

const parentOf = (
  mount: CgroupMount,
  own: ReadonlyMap<string, string> | undefined,
  parent: string,
): string | undefined => {
  const ours = own?.get(mount.v2 ? 'v2' : (mount.controllers[0] ?? ''));
  return ours === undefined ? undefined : directoryOf(mount, join(dirname(ours), parent));
};

/** Groups of copies below our parent group, by name: for those that no record knows any more. */
export function copyCgroups(parent: string): Map<string, string[]> {
  const found = new Map<string, string[]>();
  const own = cgroupsOf('self');
  for (const mount of own ? cgroupMounts() : []) {
    const base = parentOf(mount, own, parent);
    if (base === undefined || !existsSync(base)) continue;
    for (const entry of readdirSync(base, { withFileTypes: true }))
      if (entry.isDirectory()) found.set(entry.name, [...(found.get(entry.name) ?? []), join(base, entry.name)]);
  }
  return found;
}

import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

// Where cgroup hierarchies are mounted and which processes stand in them. No heavy imports: boot loads this.

export interface CgroupMount {
  /** `v2`, or the v1 controllers of this hierarchy, e.g. `['freezer']`. */
  readonly controllers: readonly string[];
  readonly v2: boolean;
  readonly dir: string;
  /** The part of the hierarchy that stands at `dir`: `/`, or the container's own group in a cgroup namespace. */
  readonly root: string;
}

/** cgroup mounts of this process, from /proc/self/mountinfo (proc(5)). Empty where there are none. */
export function cgroupMounts(): CgroupMount[] {
  let text: string;
  try {
    text = readFileSync('/proc/self/mountinfo', 'utf8');
  } catch {
    return [];
  }
  const mounts: CgroupMount[] = [];
  for (const line of text.split('\n')) {
    const [left, right] = line.split(' - ');
    const type = right?.split(' ')[0];
    if (type !== 'cgroup' && type !== 'cgroup2') continue;
    const fields = left?.split(' ') ?? [];
    const controllers =
      type === 'cgroup2' ? ['v2'] : (right?.split(' ')[2] ?? '').split(',').map((c) => c.replace('name=', ''));
    mounts.push({ controllers, v2: type === 'cgroup2', dir: fields[4] ?? '', root: fields[3] ?? '/' });
  }
  return mounts;
}

/** Group of a process in each hierarchy: `v2` or v1 controller -> path inside the hierarchy. Undefined when it is gone. */
export function cgroupsOf(pid: number | 'self'): Map<string, string> | undefined {
  let text: string;
  try {
    text = readFileSync(`/proc/${pid}/cgroup`, 'utf8');
  } catch {
    return undefined;
  }
  const groups = new Map<string, string>();
  for (const line of text.trim().split('\n')) {
    const [id, names, ...rest] = line.split(':');
    const path = rest.join(':');
    if (id === '0') groups.set('v2', path);
    else for (const name of (names ?? '').split(',')) groups.set(name.replace('name=', ''), path);
  }
  return groups;
}

/** Absolute directory of a group, or undefined when this mount does not show it. */
export function directoryOf(mount: CgroupMount, group: string): string | undefined {
  if (mount.root === '/') return join(mount.dir, group);
  return group === mount.root || group.startsWith(`${mount.root}/`)
    ? join(mount.dir, group.slice(mount.root.length))
    : undefined;
}

/** The directory and all below it, parents first. Empty when it is gone. */
export function cgroupTree(dir: string): string[] {
  let names: { name: string; isDirectory(): boolean }[];
  try {
    names = readdirSync(dir, { withFileTypes: true });
  } catch {
    return [];
  }
  return [dir, ...names.filter((n) => n.isDirectory()).flatMap((n) => cgroupTree(join(dir, n.name)))];
}

/** Processes in the directory and below it. 0 stands for one that belongs to a pid namespace we do not see. */
export function cgroupPids(dir: string): number[] {
  const pids: number[] = [];
  for (const each of cgroupTree(dir)) {
    try {
      for (const line of readFileSync(join(each, 'cgroup.procs'), 'latin1').split('\n'))
        if (line !== '') pids.push(Number(line));
    } catch {
      // removed meanwhile, or a threaded v2 group, whose processes its parent lists
    }
  }
  return pids;
}

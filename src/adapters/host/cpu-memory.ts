import { join } from 'node:path';
import { list, readNumber, readText } from './sysfs.ts';

/** Jiffies since the machine started. */
export interface CpuTimes {
  readonly busy: number;
  readonly total: number;
}

/** First line of /proc/stat (proc(5)): user nice system idle iowait irq softirq steal; guest time is within user's. */
export function readCpuTimes(root: string): CpuTimes | undefined {
  const line = readText(join(root, 'proc/stat'))?.split('\n')[0];
  if (line === undefined || !line.startsWith('cpu ')) return undefined;
  const [user = 0, nice = 0, system = 0, idle = 0, iowait = 0, irq = 0, softirq = 0, steal = 0] = line
    .trim()
    .split(/\s+/)
    .slice(1)
    .map(Number);
  const busy = user + nice + system + irq + softirq + steal;
  return { busy, total: busy + idle + iowait };
}

/** Share of all cores in use between two readings, 0..1; undefined when no time went by. */
export function cpuUsage(before: CpuTimes, after: CpuTimes): number | undefined {
  const total = after.total - before.total;
  if (total <= 0) return undefined;
  return Math.min(1, Math.max(0, (after.busy - before.busy) / total));
}

export interface Memory {
  readonly totalBytes: number;
  readonly usedBytes: number;
}

/** Used = total - MemAvailable: what new work could not have. */
export function readMemory(root: string): Memory | undefined {
  const text = readText(join(root, 'proc/meminfo'));
  const field = (name: string): number =>
    Number(new RegExp(`^${name}:\\s+(\\d+)`, 'm').exec(text ?? '')?.[1] ?? Number.NaN) * 1024;
  const totalBytes = field('MemTotal');
  const available = field('MemAvailable');
  if (Number.isNaN(totalBytes)) return undefined;
  return { totalBytes, usedBytes: totalBytes - (Number.isNaN(available) ? field('MemFree') : available) };
}

/** MHz of the fastest core now; null where the machine does not tell. */
export function readFrequencyMHz(root: string): number | null {
  const scaled = readNumber(join(root, 'sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq'));
  if (scaled !== undefined) return Math.round(scaled / 1000);
  // Long on many cores, so only where there is nothing else.
  const text = readText(join(root, 'proc/cpuinfo')) ?? '';
  const all = [...text.matchAll(/^cpu MHz\s*:\s*([\d.]+)/gm)].map((m) => Number(m[1]));
  return all.length > 0 ? Math.round(Math.max(...all)) : null;
}

export interface CgroupLimits {
  readonly memoryBytes: number;
  readonly memoryUsedBytes: number | undefined;
  readonly cpus: number;
}

/** Limits of the cgroups that this process stands in, v1 or v2; Infinity = none. A limit of a parent binds as well. */
export function readCgroupLimits(root: string): CgroupLimits {
  const groups = new Map<string, string>();
  for (const line of (readText(join(root, 'proc/self/cgroup')) ?? '').split('\n')) {
    const [id, names, ...path] = line.split(':');
    for (const name of id === '0' ? ['v2'] : (names ?? '').split(',')) groups.set(name, path.join(':'));
  }
  const base = join(root, 'sys/fs/cgroup');
  const v2 = list(base).includes('cgroup.controllers') ? base : join(base, 'unified');
  let memoryBytes = Number.POSITIVE_INFINITY;
  let memoryUsedBytes: number | undefined;
  let cpus = Number.POSITIVE_INFINITY;
  const lower = (limit: number | undefined, used: number | undefined): void => {
    if (limit === undefined || limit <= 0 || limit >= memoryBytes) return;
    memoryBytes = limit;
    memoryUsedBytes = used;
  };
  for (const dir of ancestors(v2, groups.get('v2'))) {
    lower(readNumber(join(dir, 'memory.max')), readNumber(join(dir, 'memory.current')));
    const [quota, period] = (readText(join(dir, 'cpu.max')) ?? '').split(' ').map(Number);
    if (quota && period) cpus = Math.min(cpus, quota / period);
  }
  for (const dir of ancestors(join(base, 'memory'), groups.get('memory'))) {
    lower(readNumber(join(dir, 'memory.limit_in_bytes')), readNumber(join(dir, 'memory.usage_in_bytes')));
  }
  for (const dir of ancestors(join(base, 'cpu'), groups.get('cpu'))) {
    const quota = readNumber(join(dir, 'cpu.cfs_quota_us')) ?? -1;
    const period = readNumber(join(dir, 'cpu.cfs_period_us')) ?? 0;
    if (quota > 0 && period > 0) cpus = Math.min(cpus, quota / period);
  }
  return { memoryBytes, memoryUsedBytes, cpus };
}

/** A group's directory and those above it, as far as this mount shows them; the mount itself last. */
function ancestors(mount: string, group: string | undefined): string[] {
  const parts = (group ?? '/').split('/').filter((p) => p !== '' && p !== '..');
  return Array.from({ length: parts.length + 1 }, (_, i) => join(mount, ...parts.slice(0, parts.length - i)));
}

import { statfs } from 'node:fs/promises';
import { arch, availableParallelism, freemem, hostname, totalmem, type } from 'node:os';
import { join } from 'node:path';
import type { NodeLoad } from '../../model/facts.ts';
import type { HostMetrics } from '../../ports/host.ts';
import { type CpuTimes, cpuUsage, readCgroupLimits, readCpuTimes, readFrequencyMHz, readMemory } from './cpu-memory.ts';
import { type Gpu, GpuReader, readDeviceClasses } from './devices.ts';
import { readBattery, readFansRpm, readTemperatureC } from './sensors.ts';
import { readText } from './sysfs.ts';

export interface HostMetricsOptions {
  /** Its file system is the disk that is reported. */
  readonly dataDir: string;
  /** Where /proc and /sys are found; tests give a tree of their own. Default `/`. */
  readonly root?: string;
  /** PATH that nvidia-smi is looked for in. Default that of this process. */
  readonly path?: string;
  readonly cpus?: number;
}

/**
 * Facts of this machine from /proc and /sys. Where a cgroup limits this peer, the limit is what the machine has: tasks of
 * the process runtime live under it. CPU use is measured between two calls of `load` (since boot, at the first).
 */
export function createHostMetrics(options: HostMetricsOptions): HostMetrics {
  const root = options.root ?? '/';
  const gpus = new GpuReader(root, options.path);
  let before: CpuTimes = { busy: 0, total: 0 };
  let usage = 0;

  const disk = async (): Promise<{ total: number; used: number }> => {
    const fs = await statfs(options.dataDir).catch(() => undefined);
    if (fs === undefined) return { total: 0, used: 0 };
    // As df counts: what root alone may use is neither used nor to be had.
    const used = (fs.blocks - fs.bfree) * fs.bsize;
    return { total: used + fs.bavail * fs.bsize, used };
  };
  const memory = (): { total: number; used: number } => {
    const host = readMemory(root) ?? { totalBytes: totalmem(), usedBytes: totalmem() - freemem() };
    const { memoryBytes, memoryUsedBytes } = readCgroupLimits(root);
    if (memoryBytes >= host.totalBytes) return { total: host.totalBytes, used: host.usedBytes };
    return { total: memoryBytes, used: memoryUsedBytes ?? Math.min(host.usedBytes, memoryBytes) };
  };

  return {
    describe: async () => {
      const [{ total: diskBytes }, cards] = [await disk(), await gpus.read()];
      return {
        resources: {
          cpus: Math.min(options.cpus ?? availableParallelism(), readCgroupLimits(root).cpus),
          memoryBytes: memory().total,
          diskBytes,
          gpus: cards.map(({ name, memoryBytes }) => ({ name, memoryBytes })),
          devices: readDeviceClasses(root, cards.length),
        },
        os: osName(root),
        arch: arch(),
        hostname: readText(join(root, 'proc/sys/kernel/hostname')) ?? hostname(),
      };
    },
    load: async (): Promise<NodeLoad> => {
      const times = readCpuTimes(root);
      if (times !== undefined) {
        usage = cpuUsage(before, times) ?? usage;
        before = times;
      }
      return {
        cpuUsage: Math.round(usage * 1000) / 1000,
        cpuFrequencyMHz: readFrequencyMHz(root),
        memoryUsedBytes: memory().used,
        diskUsedBytes: (await disk()).used,
        temperatureC: readTemperatureC(root),
        battery: readBattery(root),
        fansRpm: readFansRpm(root),
        gpus: (await gpus.read()).map(({ usage: use, memoryUsedBytes, temperatureC }: Gpu) => ({
          usage: use,
          memoryUsedBytes,
          temperatureC,
        })),
      };
    },
  };
}

/** e.g. `Debian GNU/Linux 12`; the kernel's name where no os-release is. */
function osName(root: string): string {
  const release = readText(join(root, 'etc/os-release')) ?? '';
  return /^PRETTY_NAME="?(.*?)"?$/m.exec(release)?.[1] ?? type();
}

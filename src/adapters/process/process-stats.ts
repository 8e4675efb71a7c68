import { readFileSync } from 'node:fs';
import type { CopyStats } from '../../ports/runtime.ts';
import { cgroupPids } from './cgroup-fs.ts';
import { cgroupUsage } from './copy-cgroup.ts';
import type { CopyRecord } from './copy-record.ts';
import { listProcesses, readProcStat, TICKS_PER_SECOND } from './proc-fs.ts';

const PAGE_BYTES = 4096;

export interface CpuSample {
  readonly atMs: number;
  readonly cpuMs: number;
}

/**
 * What the copy uses now: by its cgroup where it has one, else summed over the processes of its session. `cpuCores` is the
 * mean since `last` (or since the start of the copy). The network is the machine's own: not counted.
 */
export function processStats(record: CopyRecord, last: CpuSample | undefined): { stats: CopyStats; sample: CpuSample } {
  const dir = record.killPaths[0];
  const processes =
    dir === undefined
      ? listProcesses().filter((p) => p.session === record.pid)
      : cgroupPids(dir)
          .map(readProcStat)
          .filter((p) => p !== undefined);
  const usage = cgroupUsage(record.cgroupDirs);
  let ticks = 0;
  let rss = 0;
  const io = { read: 0, written: 0 };
  for (const p of processes) {
    ticks += p.cpuTicks;
    rss += p.rssPages * PAGE_BYTES;
    const bytes = ioOf(p.pid);
    io.read += bytes.read;
    io.written += bytes.written;
  }
  const sample: CpuSample = { atMs: Date.now(), cpuMs: usage.cpuMs ?? (ticks * 1000) / TICKS_PER_SECOND };
  const from = last ?? { atMs: record.startedAt, cpuMs: 0 };
  const limit = usage.memoryLimitBytes ?? Number.POSITIVE_INFINITY;
  return {
    sample,
    stats: {
      cpuCores: Math.max(0, sample.cpuMs - from.cpuMs) / Math.max(1, sample.atMs - from.atMs),
      memoryBytes: usage.memoryBytes ?? rss,
      memoryLimitBytes: record.memoryBytes > 0 && Number.isFinite(limit) ? limit : null,
      networkRxBytes: 0,
      networkTxBytes: 0,
      diskReadBytes: io.read,
      diskWriteBytes: io.written,
      pids: processes.length,
    },
  };
}

function ioOf(pid: number): { read: number; written: number } {
  try {
    const text = readFileSync(`/proc/${pid}/io`, 'latin1');
    return {
      read: Number(/^read_bytes: (\d+)$/m.exec(text)?.[1] ?? 0),
      written: Number(/^write_bytes: (\d+)$/m.exec(text)?.[1] ?? 0),
    };
  } catch {
    return { read: 0, written: 0 };
  }
}

import { totalmem } from 'node:os';
import type { CopyStats } from '../../ports/runtime.ts';

interface CpuSample {
  readonly cpu_usage?: { readonly total_usage?: number };
}

/** What we read of `GET /containers/ID/stats?stream=false`: two samples of the CPU, about a second apart. */
export interface EngineStats {
  readonly read: string;
  readonly preread: string;
  readonly cpu_stats?: CpuSample;
  readonly precpu_stats?: CpuSample;
  readonly memory_stats?: { readonly usage?: number; readonly limit?: number; readonly stats?: Readonly<Record<string, number>> };
  readonly networks?: Readonly<Record<string, { readonly rx_bytes: number; readonly tx_bytes: number }>>;
  readonly blkio_stats?: { readonly io_service_bytes_recursive?: readonly { readonly op: string; readonly value: number }[] | null };
  readonly pids_stats?: { readonly current?: number };
}

/** cgroup v1 and v2 name some figures differently. Memory is without the file cache that can be dropped, as `docker stats` shows it. */
export function toCopyStats(s: EngineStats, machineMemoryBytes = totalmem()): CopyStats {
  const seconds = (Date.parse(s.read) - Date.parse(s.preread)) / 1000;
  const used = ((s.cpu_stats?.cpu_usage?.total_usage ?? 0) - (s.precpu_stats?.cpu_usage?.total_usage ?? 0)) / 1e9;
  const memory = s.memory_stats;
  const cache = memory?.stats?.['total_inactive_file'] ?? memory?.stats?.['inactive_file'] ?? 0;
  const limit = memory?.limit ?? 0;
  const networks = Object.values(s.networks ?? {});
  const disk = (op: string): number =>
    sum((s.blkio_stats?.io_service_bytes_recursive ?? []).filter((e) => e.op.toLowerCase() === op).map((e) => e.value));
  return {
    cpuCores: Number.isFinite(seconds) && seconds > 0 && used > 0 ? used / seconds : 0,
    memoryBytes: Math.max(0, (memory?.usage ?? 0) - cache),
    // Without a limit of its own a container is shown the machine's.
    memoryLimitBytes: limit > 0 && limit < machineMemoryBytes ? limit : null,
    networkRxBytes: sum(networks.map((n) => n.rx_bytes)),
    networkTxBytes: sum(networks.map((n) => n.tx_bytes)),
    diskReadBytes: disk('read'),
    diskWriteBytes: disk('write'),
    pids: s.pids_stats?.current ?? 0,
  };
}

const sum = (numbers: readonly number[]): number => numbers.reduce((total, n) => total + n, 0);

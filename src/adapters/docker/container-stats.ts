import { TaskOrgError } from '../../model/errors.ts';
import type { CopyStats } from '../../ports/runtime.ts';
import type { EngineApi } from './engine-api.ts';

export interface CpuSample {
  readonly atMs: number;
  readonly cpuMs: number;
}

/** What is read of GET /containers/ID/stats, on cgroup v1 and v2. */
interface EngineStats {
  readonly read: string;
  readonly preread?: string;
  readonly precpu_stats?: { readonly cpu_usage?: { readonly total_usage?: number } };
  readonly cpu_stats?: { readonly cpu_usage?: { readonly total_usage?: number } };
  readonly memory_stats?: {
    readonly usage?: number;
    readonly limit?: number;
    readonly stats?: { readonly total_inactive_file?: number; readonly inactive_file?: number };
  };
  readonly pids_stats?: { readonly current?: number };
  readonly networks?: Readonly<Record<string, { readonly rx_bytes?: number; readonly tx_bytes?: number }>> | null;
  readonly blkio_stats?: {
    readonly io_service_bytes_recursive?: readonly { readonly op: string; readonly value: number }[] | null;
  };
}

/**
 * One reading; `cpuCores` is the mean since `last`. Without one the engine takes two, about a second apart. `totalMemoryBytes`: what the engine names as limit where there is none.
 */
export async function containerStats(
  api: EngineApi,
  containerId: string,
  last: CpuSample | undefined,
  totalMemoryBytes: number,
  signal: AbortSignal,
): Promise<{ stats: CopyStats; sample: CpuSample }> {
  const s = await api.call<EngineStats>({
    method: 'GET',
    path: `/containers/${containerId}/stats`,
    query: { stream: false, 'one-shot': last !== undefined },
    signal,
  });
  const atMs = Date.parse(s.read);
  // An engine answers for a container that is over with zeros and the year 1.
  if (!(atMs > 0)) throw new TaskOrgError('not_found', 'the copy is not running');
  const sample = { atMs, cpuMs: (s.cpu_stats?.cpu_usage?.total_usage ?? 0) / 1e6 };
  const before = last ?? {
    atMs: Date.parse(s.preread ?? ''),
    cpuMs: (s.precpu_stats?.cpu_usage?.total_usage ?? 0) / 1e6,
  };
  // The engine's year 1 for a first reading that it had not got.
  const elapsedMs = before.atMs > 0 ? sample.atMs - before.atMs : 0;
  const memory = s.memory_stats;
  const cache = memory?.stats?.total_inactive_file ?? memory?.stats?.inactive_file ?? 0;
  const limit = memory?.limit ?? 0;
  const networks = Object.values(s.networks ?? {});
  const io = (op: string): number =>
    (s.blkio_stats?.io_service_bytes_recursive ?? []).reduce(
      (n, e) => n + (e.op.toLowerCase() === op ? e.value : 0),
      0,
    );
  return {
    sample,
    stats: {
      cpuCores: elapsedMs > 0 ? Math.max(0, sample.cpuMs - before.cpuMs) / elapsedMs : 0,
      memoryBytes: Math.max(0, (memory?.usage ?? 0) - cache),
      memoryLimitBytes: limit > 0 && limit < totalMemoryBytes ? limit : null,
      networkRxBytes: networks.reduce((n, e) => n + (e.rx_bytes ?? 0), 0),
      networkTxBytes: networks.reduce((n, e) => n + (e.tx_bytes ?? 0), 0),
      diskReadBytes: io('read'),
      diskWriteBytes: io('write'),
      pids: s.pids_stats?.current ?? 0,
    },
  };
}

import type { CopyId } from '../../core/reconcile/types.ts';
import type { KillTarget } from '../../model/boot-protocol.ts';
import type { WallMs } from '../../model/ids.ts';
import { CpuPins, usableCores } from '../process/cpu-pins.ts';
import { ContainerCgroups } from './container-cgroup.ts';
import type { EngineApi } from './engine-api.ts';

const OPEN_TIMEOUT_MS = 10_000;

/** What the runtime keeps in mind of the engine's containers; all of it can be read back. At most BOOT_LIMITS.copies. */
export interface ContainerRuntimeState {
  readonly containers: Map<CopyId, { readonly id: string; readonly target: KillTarget }>;
  /** By container id. */
  readonly startedAt: Map<string, WallMs>;
}

export interface Engine {
  readonly version: string;
  readonly details: Readonly<Record<string, string>>;
  readonly memoryBytes: number;
  readonly cgroups: ContainerCgroups;
  readonly pins: CpuPins;
}

/** Asks the engine once who it is. */
export async function openEngine(api: EngineApi, signal: AbortSignal): Promise<Engine> {
  const how = { method: 'GET', signal, timeoutMs: OPEN_TIMEOUT_MS } as const;
  const [version, info] = await Promise.all([
    api.call<{ Version?: string; ApiVersion?: string }>({ ...how, path: '/version' }),
    api.call<{ Driver?: string; CgroupDriver?: string; CgroupVersion?: string; NCPU?: number; MemTotal?: number }>({
      ...how,
      path: '/info',
    }),
  ]);
  const cores = usableCores();
  const count = info.NCPU ?? cores.length;
  return {
    version: version.Version ?? 'unknown',
    details: {
      api: version.ApiVersion ?? '',
      storage: info.Driver ?? '',
      cgroup: `v${info.CgroupVersion ?? '1'} (${info.CgroupDriver ?? 'cgroupfs'})`,
    },
    memoryBytes: info.MemTotal ?? 0,
    cgroups: new ContainerCgroups(info.CgroupDriver ?? 'cgroupfs'),
    // An engine elsewhere (a virtual machine) counts its own cores from 0.
    pins: new CpuPins(cores.length === count ? cores : Array.from({ length: count }, (_, core) => core)),
  };
}

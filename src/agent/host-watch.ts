import { networkInterfaces } from 'node:os';
import type { HostFacts } from '../core/peer/types.ts';
import type { PeerSettings } from '../model/config-schema.ts';
import { VERSION } from '../model/version.ts';
import { RECORDS_VERSION } from '../model/wire.ts';
import type { HostMetrics } from '../ports/host.ts';
import type { Log } from '../ports/log.ts';
import type { Runtime } from '../ports/runtime.ts';

/** Image references told to others, at most. */
const MAX_IMAGES = 256;
const IMAGES_EVERY_MS = 10_000;

/** Where this machine's boot can be probed: every address others may reach, loopback only when there is no other. */
export function probeAddresses(port: number, loopback: boolean): string[] {
  if (port === 0) return [];
  const all = Object.values(networkInterfaces())
    .flatMap((list) => list ?? [])
    .filter((a) => a.family === 'IPv4');
  const outside = all.filter((a) => !a.internal).map((a) => a.address);
  const chosen = loopback || outside.length === 0 ? ['127.0.0.1'] : outside;
  return chosen.map((a) => `${a}:${port}`);
}

export interface HostWatch {
  /** Tells the facts again soon (addresses or runtimes changed). */
  changed(): void;
  stop(): void;
}

/** Gathers what this machine is and how loaded, and hands it on as facts. */
export async function watchHost(options: {
  readonly settings: PeerSettings;
  readonly name: string;
  readonly everyMs: number;
  readonly metrics: HostMetrics;
  readonly runtimes: readonly Runtime[];
  /** Those that answer now. */
  readonly available: () => readonly Runtime['kind'][];
  readonly addresses: () => readonly string[];
  readonly bootProbe: () => readonly string[];
  readonly problems: () => readonly string[];
  readonly canFence: () => boolean;
  readonly log: Log;
  readonly post: (head: HostFacts) => void;
}): Promise<HostWatch> {
  const { settings } = options;
  const described = await options.metrics.describe();
  const { resources } = described;
  let images: readonly string[] = [];
  let imagesAt = Number.NEGATIVE_INFINITY;
  let stopped = false;
  let busy = false;

  async function look(): Promise<void> {
    if (stopped || busy) return;
    busy = true;
    try {
      const load = await options.metrics.load();
      if (performance.now() - imagesAt > IMAGES_EVERY_MS) {
        const lists = await Promise.all(
          options.runtimes.map((r) => r.images(AbortSignal.timeout(2000)).catch(() => [])),
        );
        images = lists.flat().slice(0, MAX_IMAGES);
        imagesAt = performance.now();
      }
      if (stopped) return;
      options.post({
        name: options.name,
        addresses: options.addresses(),
        bootProbe: options.bootProbe(),
        agentVersion: VERSION,
        wireVersion: RECORDS_VERSION,
        os: described.os,
        arch: described.arch,
        runtimes: options.available(),
        problems: options.problems(),
        canFence: options.canFence(),
        resources: {
          ...resources,
          cpus: Math.max(0, resources.cpus - settings.reserved.cpus),
          memoryBytes: Math.max(0, resources.memoryBytes - settings.reserved.memoryBytes),
        },
        load,
        labels: settings.labels,
        priority: settings.priority,
        witness: settings.witness,
        images,
      });
    } catch (error) {
      options.log.warn({ error: String(error) }, 'host facts not read');
    } finally {
      busy = false;
    }
  }

  await look();
  const timer = setInterval(() => void look(), options.everyMs);
  return {
    changed: () => {
      imagesAt = Number.NEGATIVE_INFINITY;
      void look();
    },
    stop: () => {
      stopped = true;
      clearInterval(timer);
    },
  };
}

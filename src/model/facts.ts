import type { Generation } from './generation.ts';
import type { Incarnation, NodeId, TaskId, WallMs } from './ids.ts';

// Observed facts: gossiped, one document per peer, owned by it. Last writer wins per (incarnation, version).

export interface NodeResources {
  readonly cpus: number;
  readonly memoryBytes: number;
  readonly diskBytes: number;
  readonly gpus: readonly { readonly name: string; readonly memoryBytes: number }[];
  /** Device classes present, e.g. `fpga`. */
  readonly devices: readonly string[];
}

export interface NodeLoad {
  /** 0..1 over all cores. */
  readonly cpuUsage: number;
  readonly cpuFrequencyMHz: number | null;
  readonly memoryUsedBytes: number;
  readonly diskUsedBytes: number;
  readonly temperatureC: number | null;
  readonly battery: { readonly percent: number; readonly charging: boolean } | null;
  readonly fansRpm: readonly number[];
  readonly gpus: readonly {
    readonly usage: number | null;
    readonly memoryUsedBytes: number | null;
    readonly temperatureC: number | null;
  }[];
}

/**
 * What a copy (one container or process of one slot and generation) is doing on its machine.
 * `finished`/`failed` are final for that generation: the restart policy does not start it again.
 */
export type CopyState =
  | 'preparing'
  | 'starting'
  | 'running'
  | 'backoff'
  | 'stopping'
  | 'stopped'
  | 'finished'
  | 'failed';

export interface CopyFact {
  readonly taskId: TaskId;
  readonly slot: number;
  readonly generation: Generation;
  readonly state: CopyState;
  readonly health: 'none' | 'starting' | 'healthy' | 'unhealthy';
  readonly startedAt: WallMs | null;
  readonly exitCode: number | null;
  readonly restarts: number;
  /** Plain words; empty when all is well. */
  readonly error: string;
  /** Engine's id of the container, or `pid:N`. */
  readonly handle: string;
  /** Published ports: container port -> host port as bound. */
  readonly ports: readonly { readonly container: number; readonly host: number; readonly protocol: 'tcp' | 'udp' }[];
}

/** Of a cluster that was recovered: which epoch a peer is of, and which went before it, oldest first. */
export interface EpochFact {
  readonly number: number;
  readonly id: string;
  readonly parents: readonly string[];
}

export interface NodeFacts {
  readonly nodeId: NodeId;
  readonly incarnation: Incarnation;
  /** Raised with every change within one incarnation. */
  readonly version: number;
  readonly name: string;
  readonly addresses: readonly string[];
  /** UDP address of boot's probe responder, `ip:port` candidates. */
  readonly bootProbe: readonly string[];
  readonly agentVersion: string;
  readonly wireVersion: number;
  readonly os: string;
  readonly arch: string;
  readonly runtimes: readonly ('docker' | 'process')[];
  /** Why a runtime or exclusive tasks are not to be had here. */
  readonly problems: readonly string[];
  /** False when the fencing self-test failed: no exclusive tasks here. */
  readonly canFence: boolean;
  readonly resources: NodeResources;
  readonly load: NodeLoad;
  readonly labels: Readonly<Record<string, string>>;
  readonly priority: number;
  readonly witness: boolean;
  /** Image references present in the local engine (bounded list). */
  readonly images: readonly string[];
  /** Absent in a cluster that was never recovered. */
  readonly epoch?: EpochFact;
  readonly copies: readonly CopyFact[];
}

import type { NodeId } from '../../model/ids.ts';
import type { TaskSpec } from '../../model/task-spec.ts';

/** A candidate machine as the master sees it now. */
export interface Candidate {
  readonly id: NodeId;
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly os: string;
  readonly arch: string;
  readonly cpus: number;
  readonly memoryBytes: number;
  readonly gpus: number;
  readonly devices: readonly string[];
  readonly runtimes: readonly string[];
  readonly images: readonly string[];
  readonly canFence: boolean;
  /** Reserved by assignments that stand (this batch's included as it goes on). */
  readonly used: { cpus: number; memoryBytes: number; gpus: number; copies: number; hostPorts: Set<string> };
  /** Copies of each task already here. */
  readonly copiesOf: Map<string, number>;
  /** 0..1, from its newest load fact; 0 when unknown. */
  readonly load: number;
}

/** Slots to place, in order. */
export interface PlacementRequest {
  readonly taskId: string;
  readonly slot: number;
  readonly spec: TaskSpec;
  /** Machines not to be used for this slot (e.g. the one just lost or drained), with the reason. */
  readonly avoid: ReadonlyMap<NodeId, string>;
}

/** swarmkit's Explain: why a machine was left out. */
export interface Rejection {
  readonly node: NodeId;
  readonly filter: string;
  readonly reason: string;
}

export type Placement =
  | {
      readonly ok: true;
      readonly request: PlacementRequest;
      readonly node: NodeId;
      readonly reason: string;
      readonly evidence: readonly string[];
    }
  | {
      readonly ok: false;
      readonly request: PlacementRequest;
      readonly reason: string;
      readonly rejections: readonly Rejection[];
    };

/*
 * place(requests, candidates): Placement[]    pure; changes only `used` and `copiesOf` of the candidates given.
 * Filters in order: availability (done by the caller), constraints, runtime, fence, image, cpu, memory, gpu, device, host
 * port. Scores: fewest copies of the same task, then image present, then lowest reserved share, then load, then fewest
 * copies, then id.
 */

import type { NodeLoad, NodeResources } from '../model/facts.ts';

/** Facts of this machine. Adapters: host (real), fake. */
export interface HostMetrics {
  describe(): Promise<{
    readonly resources: NodeResources;
    readonly os: string;
    readonly arch: string;
    readonly hostname: string;
  }>;
  load(): Promise<NodeLoad>;
}

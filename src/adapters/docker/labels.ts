import { type CopyName, formatCopyId, parseCopyId } from '../../core/reconcile/copy-id.ts';
import type { CopyId } from '../../core/reconcile/types.ts';
import { formatGeneration } from '../../model/generation.ts';
import type { ClusterId, NodeId } from '../../model/ids.ts';

/** What our containers are known by. An engine may serve several peers, of several clusters: both words are asked for. */
const PREFIX = 'org.task-org.';
export const LABEL = {
  cluster: `${PREFIX}cluster`,
  node: `${PREFIX}node`,
  task: `${PREFIX}task`,
  slot: `${PREFIX}slot`,
  generation: `${PREFIX}generation`,
  specVersion: `${PREFIX}spec-version`,
  copy: `${PREFIX}copy`,
  /** Cores it is pinned to, so that the next agent knows which are taken. */
  cpuset: `${PREFIX}cpuset`,
} as const;

export interface Owner {
  readonly clusterId: ClusterId;
  readonly nodeId: NodeId;
}

export function labelsOf(owner: Owner, copy: CopyName, cpuset: string | undefined): Record<string, string> {
  return {
    [LABEL.cluster]: owner.clusterId,
    [LABEL.node]: owner.nodeId,
    [LABEL.task]: copy.taskId,
    [LABEL.slot]: String(copy.slot),
    [LABEL.generation]: formatGeneration(copy.generation),
    [LABEL.specVersion]: String(copy.specVersion),
    [LABEL.copy]: formatCopyId(copy),
    ...(cpuset === undefined ? {} : { [LABEL.cpuset]: cpuset }),
  };
}

/** The engine's label filter for this peer's containers, or for one copy's. */
export function ourLabels(owner: Owner, copyId?: CopyId): string[] {
  const of = [`${LABEL.cluster}=${owner.clusterId}`, `${LABEL.node}=${owner.nodeId}`];
  return copyId === undefined ? of : [...of, `${LABEL.copy}=${copyId}`];
}

/** Which of this peer's copies a container is; undefined when it is none. */
export function copyOf(owner: Owner, labels: Readonly<Record<string, string>>): (CopyName & { readonly copyId: CopyId }) | undefined {
  if (labels[LABEL.cluster] !== owner.clusterId || labels[LABEL.node] !== owner.nodeId) return undefined;
  const copyId = labels[LABEL.copy] ?? '';
  const name = parseCopyId(copyId);
  return name && { ...name, copyId };
}

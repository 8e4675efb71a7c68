import { createHash } from 'node:crypto';
import { formatCopyId } from '../../core/reconcile/copy-id.ts';
import type { CopyId, DesiredCopy, ObservedCopy } from '../../core/reconcile/types.ts';
import { formatGeneration, parseGeneration } from '../../model/generation.ts';
import { type ClusterId, type NodeId, taskId, type WallMs } from '../../model/ids.ts';
import type { TaskSpec } from '../../model/task-spec.ts';
import { deviceMappings } from './devices.ts';

// A copy's specification as the engine wants it, and its labels read back. Field by field: what is not named here is never
// set, so no task gets privileged mode, a namespace of the host, a path of the host or the engine's socket.

const PREFIX = 'org.task-org.';
export const LABEL = {
  cluster: `${PREFIX}cluster`,
  node: `${PREFIX}node`,
  task: `${PREFIX}task`,
  slot: `${PREFIX}slot`,
  generation: `${PREFIX}generation`,
  specVersion: `${PREFIX}spec-version`,
  copy: `${PREFIX}copy`,
  /** Cores the copy is pinned to, for the next agent's count. */
  cpuset: `${PREFIX}cpuset`,
} as const;

const LOG_MAX_SIZE = '10m';
const LOG_MAX_FILES = '2';
const NANO = 1e9;

export interface Owner {
  readonly clusterId: ClusterId;
  readonly nodeId: NodeId;
}

/** `taskorg-NAME-SLOT-SHORT`; SHORT tells copies and machines apart, so a second create of the same copy is refused. */
export function containerName(owner: Owner, copy: DesiredCopy): string {
  const short = createHash('sha256')
    .update(`${owner.clusterId} ${owner.nodeId} ${formatCopyId(copy)}`)
    .digest('hex')
    .slice(0, 6);
  return `taskorg-${copy.spec.name}-${copy.slot}-${short}`;
}

const BRANCH = 'taskorg-branch-';
/** Of the container of a copy that lost against another of its slot: kept, stopped, for what it wrote. */
export const branchName = (copyId: CopyId): string => BRANCH + copyId.replaceAll(/[^A-Za-z0-9_.-]/g, '-');
export const isBranch = (summary: ContainerSummary): boolean =>
  summary.Names?.some((name) => name.startsWith(`/${BRANCH}`)) === true;

/** Volumes belong to a cluster, so that two on one engine do not meet. */
export const volumeName = (clusterId: ClusterId, name: string): string => `taskorg-${clusterId.slice(0, 8)}-${name}`;

export function ownLabels(owner: Owner): Record<string, string> {
  return { [LABEL.cluster]: owner.clusterId, [LABEL.node]: owner.nodeId };
}

/** Body of POST /containers/create. `pins`: cores for a whole-number CPU share, else a quota is set. */
export function containerBody(owner: Owner, copy: DesiredCopy, pins: string | undefined): object {
  const { spec } = copy;
  return {
    Image: spec.image,
    ...(spec.command.length > 0 ? { Entrypoint: spec.command } : {}),
    ...(spec.args.length > 0 ? { Cmd: spec.args } : {}),
    Env: Object.entries({ ...spec.env, ...copyEnv(copy) }).map(([name, value]) => `${name}=${value}`),
    ...(spec.workdir ? { WorkingDir: spec.workdir } : {}),
    ...(spec.user ? { User: spec.user } : {}),
    StopSignal: spec.stopSignal,
    Tty: false,
    OpenStdin: false,
    AttachStdout: false,
    AttachStderr: false,
    ExposedPorts: Object.fromEntries(spec.ports.map((p) => [`${p.container}/${p.protocol}`, {}])),
    Labels: {
      ...spec.labels,
      ...ownLabels(owner),
      [LABEL.task]: copy.taskId,
      [LABEL.slot]: String(copy.slot),
      [LABEL.generation]: formatGeneration(copy.generation),
      [LABEL.specVersion]: String(copy.specVersion),
      [LABEL.copy]: formatCopyId(copy),
      ...(pins === undefined ? {} : { [LABEL.cpuset]: pins }),
    },
    HostConfig: hostConfig(owner, spec, pins),
  };
}

/** What a copy is told of itself. */
const copyEnv = (copy: DesiredCopy): Record<string, string> => ({
  TASKORG_TASK: copy.spec.name,
  TASKORG_SLOT: String(copy.slot),
  TASKORG_GENERATION: formatGeneration(copy.generation),
});

function hostConfig(owner: Owner, spec: TaskSpec, pins: string | undefined): object {
  const bindings = new Map<string, { HostPort: string }[]>();
  for (const p of spec.ports) {
    const key = `${p.container}/${p.protocol}`;
    bindings.set(key, [...(bindings.get(key) ?? []), { HostPort: p.host === 0 ? '' : String(p.host) }]);
  }
  return {
    // Only the agent starts copies.
    RestartPolicy: { Name: 'no' },
    Privileged: false,
    PortBindings: Object.fromEntries(bindings),
    ...(pins !== undefined ? { CpusetCpus: pins } : spec.cpus > 0 ? { NanoCpus: Math.round(spec.cpus * NANO) } : {}),
    // As much swap as memory would let a task have twice its limit.
    ...(spec.memoryBytes > 0 ? { Memory: spec.memoryBytes, MemorySwap: spec.memoryBytes } : {}),
    Mounts: spec.volumes.map((v) => ({
      Type: 'volume',
      Source: volumeName(owner.clusterId, v.name),
      Target: v.path,
      ReadOnly: v.readOnly,
      VolumeOptions: { Labels: { [LABEL.cluster]: owner.clusterId } },
    })),
    LogConfig: { Type: 'json-file', Config: { 'max-size': LOG_MAX_SIZE, 'max-file': LOG_MAX_FILES } },
    ...deviceMappings(spec),
  };
}

/** One element of GET /containers/json. */
export interface ContainerSummary {
  readonly Id: string;
  readonly Names?: readonly string[];
  readonly Labels: Readonly<Record<string, string>>;
  readonly State: string;
  readonly Status: string;
  readonly Ports?:
    | readonly { readonly PrivatePort: number; readonly PublicPort?: number; readonly Type: string }[]
    | null;
}

/** Undefined when the labels are not those of a copy. */
export function readSummary(summary: ContainerSummary, startedAt: WallMs | null): ObservedCopy | undefined {
  const name = readLabels(summary.Labels);
  if (!name) return undefined;
  const exit = /^Exited \((\d+)\)/.exec(summary.Status)?.[1];
  const running = isRunning(summary.State);
  return {
    ...name,
    runtime: 'docker',
    handle: summary.Id,
    running,
    startedAt,
    exitCode: running || exit === undefined ? null : Number(exit),
    ports: boundPorts(
      (summary.Ports ?? []).map((p) => ({ container: p.PrivatePort, host: p.PublicPort, protocol: p.Type })),
    ),
  };
}

export const isRunning = (state: string): boolean =>
  state === 'running' || state === 'paused' || state === 'restarting';

type CopyName = Pick<ObservedCopy, 'copyId' | 'taskId' | 'slot' | 'generation' | 'specVersion'>;

export function readLabels(labels: Readonly<Record<string, string>>): CopyName | undefined {
  const generation = parseGeneration(labels[LABEL.generation] ?? '');
  const task = labels[LABEL.task];
  const slot = Number(labels[LABEL.slot] ?? Number.NaN);
  const specVersion = Number(labels[LABEL.specVersion] ?? Number.NaN);
  if (generation === undefined || task === undefined || !Number.isInteger(slot) || !Number.isInteger(specVersion))
    return undefined;
  const name = { taskId: taskId(task), slot, generation, specVersion };
  const copyId: CopyId = formatCopyId(name);
  return labels[LABEL.copy] === copyId ? { copyId, ...name } : undefined;
}

/** Bound ports, each once (engines list IPv4 and IPv6 apart). */
export function boundPorts(
  found: readonly { readonly container: number; readonly host: number | undefined; readonly protocol: string }[],
): ObservedCopy['ports'] {
  const ports = new Map<string, ObservedCopy['ports'][number]>();
  for (const { container, host, protocol } of found) {
    if (host === undefined || (protocol !== 'tcp' && protocol !== 'udp')) continue;
    const key = `${container}/${protocol}`;
    if (!ports.has(key)) ports.set(key, { container, host, protocol });
  }
  return [...ports.values()];
}

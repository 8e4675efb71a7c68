import { type Constraint, matchesConstraint, parseConstraint } from '../../model/constraint.ts';
import { formatBytes } from '../../model/human-units.ts';
import { normalizeImage } from '../../model/image-reference.ts';
import { isExclusive, type TaskSpec } from '../../model/task-spec.ts';
import type { Candidate, PlacementRequest } from './types.ts';

// What keeps a machine from running a slot, in the order in which it is asked (swarmkit's pipeline of filters). A filter
// says whether it passes; its words are made only when somebody must be told.

export interface Filter {
  readonly name: string;
  passes(request: Prepared, machine: Machine): boolean;
  /** Of one machine: 'needs 4 cores, 1.5 free'. */
  reason(request: Prepared, machine: Machine): string;
  /** Of many: '3 of 5 machines lack memory (2 GiB wanted)'. `one`: the verb for a single machine. */
  summary(request: Prepared, one: boolean): string;
}

/** A request with what is worth working out once. */
export interface Prepared {
  readonly request: PlacementRequest;
  readonly spec: TaskSpec;
  readonly constraints: readonly Constraint[];
  /** Constraints that cannot be read: nothing matches them. */
  readonly badConstraint: string | undefined;
  readonly image: string;
  readonly hostPorts: readonly string[];
}

/** A candidate with what is worth working out once. */
export interface Machine {
  readonly candidate: Candidate;
  readonly images: ReadonlySet<string>;
}

/** As kept in `used.hostPorts`: `8080/tcp`. */
export const hostPortKey = (port: { readonly host: number; readonly protocol: string }): string =>
  `${port.host}/${port.protocol}`;

export function prepare(request: PlacementRequest): Prepared {
  const { spec } = request;
  const parsed = spec.constraints.map(parseConstraint);
  const bad = parsed.find((p) => !p.ok);
  return {
    request,
    spec,
    constraints: parsed.flatMap((p) => (p.ok ? [p.constraint] : [])),
    badConstraint: bad?.ok === false ? bad.error : undefined,
    image: spec.image === '' ? '' : normalizeImage(spec.image),
    hostPorts: spec.ports.filter((p) => p.host !== 0).map(hostPortKey),
  };
}

export const prepareMachine = (candidate: Candidate): Machine => ({
  candidate,
  images: new Set(candidate.images.map(normalizeImage)),
});

const plural = (n: number, one: string): string => `${number(n)} ${one}${n === 1 ? '' : 's'}`;
const number = (n: number): string => String(Math.round(n * 100) / 100);
const free = (total: number, used: number): number => Math.max(0, total - used);
/** Sums of shares such as 0.1 are not exact. */
const EPSILON = 1e-9;
const verb = (one: boolean, singular: string, other: string): string => (one ? singular : other);

const failing = (r: Prepared, c: Candidate): Constraint | undefined =>
  r.constraints.find((x) => !matchesConstraint(x, c));
const missingDevices = (r: Prepared, c: Candidate): string[] => r.spec.devices.filter((d) => !c.devices.includes(d));
const takenPorts = (r: Prepared, c: Candidate): string[] => r.hostPorts.filter((p) => c.used.hostPorts.has(p));

const avoid: Filter = {
  name: 'avoid',
  passes: (r, { candidate }) => !r.request.avoid.has(candidate.id),
  reason: (r, { candidate }) => r.request.avoid.get(candidate.id) ?? 'not to be used',
  summary: (_r, one) => `${verb(one, 'is', 'are')} not to be used for it now`,
};

const constraint: Filter = {
  name: 'constraint',
  passes: (r, { candidate }) => r.badConstraint === undefined && failing(r, candidate) === undefined,
  reason: (r, { candidate }) => r.badConstraint ?? `does not match ${failing(r, candidate)?.text ?? ''}`,
  summary: (r, one) =>
    r.badConstraint ?? `${verb(one, 'does', 'do')} not match ${r.constraints.map((x) => x.text).join(', ')}`,
};

const runtime: Filter = {
  name: 'runtime',
  passes: (r, { candidate }) => candidate.runtimes.includes(r.spec.runtime),
  reason: (r) => `has no ${r.spec.runtime} runtime`,
  summary: (r, one) => `${verb(one, 'has', 'have')} no ${r.spec.runtime} runtime`,
};

const fence: Filter = {
  name: 'fence',
  passes: (r, { candidate }) => candidate.canFence || !isExclusive(r.spec),
  reason: () => 'cannot guarantee to stop a copy in time (its self-test failed), which onPartition: stop needs',
  summary: (_r, one) => `${verb(one, 'has', 'have')} failed the self-test that onPartition: stop needs`,
};

const image: Filter = {
  name: 'image',
  passes: (r, m) => r.spec.runtime !== 'docker' || m.images.has(r.image),
  reason: (r) => `has no image ${r.spec.image}`,
  summary: (r, one) => `${verb(one, 'lacks', 'lack')} the image ${r.spec.image}`,
};

const cpu: Filter = {
  name: 'cpu',
  passes: (r, { candidate: c }) => r.spec.cpus <= EPSILON || c.used.cpus + r.spec.cpus <= c.cpus + EPSILON,
  reason: (r, { candidate: c }) => `needs ${plural(r.spec.cpus, 'core')}, ${number(free(c.cpus, c.used.cpus))} free`,
  summary: (r, one) => `${verb(one, 'lacks', 'lack')} cores (${number(r.spec.cpus)} wanted)`,
};

const memory: Filter = {
  name: 'memory',
  passes: (r, { candidate: c }) => r.spec.memoryBytes === 0 || c.used.memoryBytes + r.spec.memoryBytes <= c.memoryBytes,
  reason: (r, { candidate: c }) =>
    `needs ${formatBytes(r.spec.memoryBytes)} of memory, ${formatBytes(free(c.memoryBytes, c.used.memoryBytes))} free`,
  summary: (r, one) => `${verb(one, 'lacks', 'lack')} memory (${formatBytes(r.spec.memoryBytes)} wanted)`,
};

const gpu: Filter = {
  name: 'gpu',
  passes: (r, { candidate: c }) => r.spec.gpus === 0 || c.used.gpus + r.spec.gpus <= c.gpus,
  reason: (r, { candidate: c }) => `needs ${plural(r.spec.gpus, 'GPU')}, ${free(c.gpus, c.used.gpus)} free`,
  summary: (r, one) => `${verb(one, 'lacks', 'lack')} GPUs (${r.spec.gpus} wanted)`,
};

const device: Filter = {
  name: 'device',
  passes: (r, { candidate }) => r.spec.devices.length === 0 || missingDevices(r, candidate).length === 0,
  reason: (r, { candidate }) => `has no ${missingDevices(r, candidate).join(', ')}`,
  summary: (r, one) => `${verb(one, 'lacks', 'lack')} a device (${r.spec.devices.join(', ')} wanted)`,
};

const hostPort: Filter = {
  name: 'host port',
  passes: (r, { candidate }) => r.hostPorts.length === 0 || takenPorts(r, candidate).length === 0,
  reason: (r, { candidate }) => `its port ${takenPorts(r, candidate).join(', ')} is taken`,
  summary: (r, one) => `${verb(one, 'has', 'have')} the port ${r.hostPorts.join(' or ')} taken`,
};

export const FILTERS: readonly Filter[] = [
  avoid,
  constraint,
  runtime,
  fence,
  image,
  cpu,
  memory,
  gpu,
  device,
  hostPort,
];

import { type Static, Type } from 'typebox';

// The task document after parsing: units resolved (bytes, milliseconds), defaults filled in.
// `parseTaskDocument` (task-document.ts) turns what a person writes (YAML/JSON, '64m', '1.5s') into this.

const closed = { additionalProperties: false } as const;
const Str = (max = 4096) => Type.String({ maxLength: max });
const Int = (minimum: number, maximum: number) => Type.Integer({ minimum, maximum });

export const NAME_PATTERN = '^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,62}$';

export const PortSpec = Type.Object(
  { container: Int(1, 65535), host: Int(0, 65535), protocol: Type.Union([Type.Literal('tcp'), Type.Literal('udp')]) },
  closed,
);
export const VolumeMount = Type.Object(
  { name: Type.String({ pattern: NAME_PATTERN }), path: Str(), readOnly: Type.Boolean() },
  closed,
);
export const RestartPolicy = Type.Object(
  {
    /** `always`: after any exit; `on-failure`: after a non-zero exit; `no`: one run, then finished. */
    policy: Type.Union([Type.Literal('always'), Type.Literal('on-failure'), Type.Literal('no')]),
    /** 0 = no limit. */
    maxAttempts: Int(0, 1_000_000),
    backoffMs: Int(10, 3_600_000),
    backoffCapMs: Int(10, 3_600_000),
  },
  closed,
);
export const HealthCheck = Type.Object(
  {
    check: Type.Union([
      Type.Object({ type: Type.Literal('command'), command: Type.Array(Str(), { minItems: 1, maxItems: 64 }) }, closed),
      Type.Object({ type: Type.Literal('http'), port: Int(1, 65535), path: Str(1024) }, closed),
      Type.Object({ type: Type.Literal('tcp'), port: Int(1, 65535) }, closed),
    ]),
    intervalMs: Int(50, 3_600_000),
    timeoutMs: Int(50, 600_000),
    retries: Int(1, 1000),
    startPeriodMs: Int(0, 3_600_000),
  },
  closed,
);

export const TaskSpec = Type.Object(
  {
    name: Type.String({ pattern: NAME_PATTERN }),
    runtime: Type.Union([Type.Literal('docker'), Type.Literal('process')]),
    /** docker: the image reference. process: empty. */
    image: Str(512),
    /** docker: overrides the image's entrypoint when not empty. process: argv[0] and on. */
    command: Type.Array(Str(), { maxItems: 256 }),
    args: Type.Array(Str(), { maxItems: 256 }),
    env: Type.Record(Type.String({ pattern: '^[A-Za-z_][A-Za-z0-9_]{0,127}$' }), Str(32768)),
    workdir: Str(),
    user: Str(64),
    /** CPU share in cores, 0 = no limit. A whole number pins that many cores (cpuset). */
    cpus: Type.Number({ minimum: 0, maximum: 4096 }),
    /** Bytes, 0 = no limit. */
    memoryBytes: Int(0, Number.MAX_SAFE_INTEGER),
    gpus: Int(0, 64),
    /** Device classes wanted, e.g. `fpga`, as listed by the machine's facts. */
    devices: Type.Array(Str(128), { maxItems: 32 }),
    ports: Type.Array(PortSpec, { maxItems: 64 }),
    volumes: Type.Array(VolumeMount, { maxItems: 32 }),
    replicas: Int(0, 500),
    restart: RestartPolicy,
    stopSignal: Type.String({ pattern: '^SIG[A-Z0-9+-]{2,12}$' }),
    stopGraceMs: Int(0, 600_000),
    healthCheck: Type.Optional(HealthCheck),
    /** `stop` = exclusive (at most one copy anywhere); `keep` = available (any side revives it). */
    onPartition: Type.Union([Type.Literal('stop'), Type.Literal('keep')]),
    /** `reschedule`: run elsewhere; `wait`: stay down until the machine is back. */
    onNodeLoss: Type.Union([Type.Literal('reschedule'), Type.Literal('wait')]),
    /** Docker's form, all must hold: `node.labels.x==y`, `node.name!=n`, `node.id==..`, `node.platform.arch==..`. */
    constraints: Type.Array(Str(256), { maxItems: 32 }),
    /** Higher first when not all fit. */
    priority: Int(-1000, 1000),
    /** Free words of the user, shown and filterable. */
    labels: Type.Record(Type.String({ maxLength: 128 }), Str(1024)),
  },
  closed,
);
export type TaskSpec = Static<typeof TaskSpec>;

/** Exclusive: at most one copy at any time, lease-fenced. */
export const isExclusive = (spec: TaskSpec): boolean => spec.onPartition === 'stop';

import { type Static, type TSchema, Type } from 'typebox';
import { DURATION_PATTERN, SIZE_PATTERN } from './human-units.ts';
import { NAME_PATTERN } from './task-spec.ts';

// The task document as people write it. One schema: the types, the checks (schema-check.ts) and the documentation.

const Text = (description: string, options: Readonly<Record<string, unknown>> = {}) =>
  Type.String({ maxLength: 4096, description, ...options });
const Whole = (minimum: number, maximum: number, description: string) =>
  Type.Integer({ minimum, maximum, description });
const OneOf = <const T extends readonly string[]>(values: T, description: string) =>
  Type.Unsafe<T[number]>({
    anyOf: values.map((v) => ({ const: v, type: 'string' })),
    description,
    expected: `one of ${values.join(', ')}`,
  } as TSchema);

/** Bytes in human units; minimum and maximum are in bytes. */
export const Size = (minimum: number, maximum: number, description: string) =>
  Type.Unsafe<string | number>({
    type: ['integer', 'string'],
    pattern: SIZE_PATTERN,
    unit: 'bytes',
    minimum,
    maximum,
    description,
    examples: ['64m', '1.5g'],
  } as TSchema);
/** A duration in human units; minimum and maximum are in milliseconds. */
export const Duration = (minimum: number, maximum: number, description: string) =>
  Type.Unsafe<string | 0>({
    type: ['string', 'integer'],
    pattern: DURATION_PATTERN,
    unit: 'duration',
    minimum,
    maximum,
    description,
    examples: ['250ms', '1.5s', '1h30m'],
  } as TSchema);

const closed = { additionalProperties: false } as const;

const Words = (description: string) =>
  Type.Union([Type.String({ maxLength: 32768 }), Type.Array(Type.String({ maxLength: 4096 }), { maxItems: 256 })], {
    description,
    expected: 'a command line or a list of texts',
  });

const Port = Type.Union(
  [
    Type.String({ maxLength: 64 }),
    Type.Integer({ minimum: 1, maximum: 65535 }),
    Type.Object(
      {
        container: Whole(1, 65535, 'Port the task listens on.'),
        host: Type.Optional(Whole(0, 65535, 'Port of the machine; 0 or left out means a free one.')),
        protocol: Type.Optional(OneOf(['tcp', 'udp'], 'tcp unless said otherwise.')),
      },
      { ...closed, aliases: { target: 'container', published: 'host' } },
    ),
  ],
  { expected: "a port such as 80, '8080:80' or '8080:80/udp', or {container, host, protocol}" },
);

const Volume = Type.Union(
  [
    Type.String({ maxLength: 4200 }),
    Type.Object(
      {
        name: Type.String({ maxLength: 4096, description: 'Name of the volume.', expected: 'the name of a volume' }),
        path: Text('Where the task sees it.', { expected: 'an absolute path inside the container' }),
        readOnly: Type.Optional(Type.Boolean({ description: 'false unless said otherwise.' })),
      },
      { ...closed, aliases: { source: 'name', target: 'path', read_only: 'readOnly' } },
    ),
  ],
  { expected: "a volume such as 'data:/var/lib/data' or 'data:/data:ro', or {name, path, readOnly}" },
);

const Restart = Type.Union(
  [
    Type.String({ maxLength: 32 }),
    Type.Literal(false),
    Type.Object(
      {
        policy: Type.Optional(
          Type.Union([OneOf(['always', 'on-failure', 'no'], ''), Type.Literal(false)], {
            description: 'always (default): after every exit; on-failure: after a non-zero exit; no: one run.',
            expected: 'one of always, on-failure, no',
          }),
        ),
        maxAttempts: Type.Optional(
          Whole(0, 1_000_000, 'Restarts before the task counts as failed; 0 (default): no limit.'),
        ),
        backoff: Type.Optional(
          Duration(10, 3_600_000, 'Wait before the first restart, doubled each time; 100ms unless said otherwise.'),
        ),
        backoffCap: Type.Optional(Duration(10, 3_600_000, 'Longest wait between restarts; 30s unless said otherwise.')),
      },
      { ...closed, aliases: { condition: 'policy', delay: 'backoff', max_attempts: 'maxAttempts', cap: 'backoffCap' } },
    ),
  ],
  {
    description: 'What happens when the task ends by itself.',
    expected: 'always, on-failure, on-failure:N, no, or {policy, maxAttempts, backoff, backoffCap}',
  },
);

const HealthCheckDoc = Type.Object(
  {
    command: Type.Optional(Words('Run inside the copy; healthy when it exits with 0.')),
    http: Type.Optional(
      Type.Union(
        [
          Type.String({ maxLength: 1100 }),
          Type.Integer({ minimum: 1, maximum: 65535 }),
          Type.Object(
            {
              port: Whole(1, 65535, 'Port of the task.'),
              path: Type.Optional(Type.String({ maxLength: 1024, description: '/ unless said otherwise.' })),
            },
            closed,
          ),
        ],
        {
          description: 'Healthy when GET answers 200 to 399.',
          expected: "a port and path such as '80/health', or {port, path}",
        },
      ),
    ),
    tcp: Type.Optional(
      Type.Union(
        [
          Type.Integer({ minimum: 1, maximum: 65535 }),
          Type.Object({ port: Whole(1, 65535, 'Port of the task.') }, closed),
        ],
        { description: 'Healthy when the port takes a connection.', expected: 'a port from 1 to 65535' },
      ),
    ),
    interval: Type.Optional(Duration(50, 3_600_000, 'Between two checks; 10s unless said otherwise.')),
    timeout: Type.Optional(Duration(50, 600_000, 'A check that takes longer has failed; 3s unless said otherwise.')),
    retries: Type.Optional(Whole(1, 1000, 'Failures in a row that make the task unhealthy; 3 unless said otherwise.')),
    startPeriod: Type.Optional(
      Duration(0, 3_600_000, 'Failures do not count for this long after the start; 0 unless said otherwise.'),
    ),
  },
  {
    ...closed,
    description: 'One of command, http and tcp, and how often.',
    aliases: { test: 'command', start_period: 'startPeriod', cmd: 'command' },
  },
);

const Name = Type.String({
  pattern: NAME_PATTERN,
  description: 'Unique among the live tasks of the cluster.',
  expected: 'a name of 1 to 63 letters, digits, _ . and -, the first a letter or digit',
});

const Strings = (max: number, maxLength: number, description: string) =>
  Type.Array(Type.String({ maxLength }), { maxItems: max, description });
const Scalar = Type.Union([Type.String({ maxLength: 32768 }), Type.Number(), Type.Boolean()], {
  expected: 'text, a number or true or false',
});

export const TaskDocument = Type.Object(
  {
    name: Name,
    runtime: Type.Optional(OneOf(['docker', 'process'], 'docker when an image is given, else process.')),
    image: Type.Optional(
      Type.String({
        minLength: 1,
        maxLength: 512,
        description: 'docker: the image to run.',
        expected: 'an image such as nginx:1.27',
      }),
    ),
    command: Type.Optional(
      Words("docker: replaces the image's entrypoint. process: the program and its first arguments."),
    ),
    args: Type.Optional(Words('Arguments after the command.')),
    env: Type.Optional(
      Type.Union(
        [
          Type.Record(Type.String({ pattern: '^[A-Za-z_][A-Za-z0-9_]{0,127}$' }), Scalar, {
            names: 'a name of letters, digits and _',
          }),
          Strings(1000, 33_000, ''),
        ],
        {
          description: 'Environment: a map, or a list of NAME=VALUE.',
          expected: 'a map of names to values, or a list of NAME=VALUE',
        },
      ),
    ),
    workdir: Type.Optional(Text('Working directory; the image decides unless said otherwise.')),
    user: Type.Optional(
      Type.Union([Type.String({ maxLength: 64 }), Type.Integer({ minimum: 0, maximum: 4_294_967_295 })], {
        description: 'User, or user:group, by name or number.',
        expected: 'a user name or number',
      }),
    ),
    cpus: Type.Optional(
      Type.Union([Type.Number({ minimum: 0, maximum: 4096 }), Type.String({ pattern: '^\\d{1,4}(\\.\\d{1,6})?$' })], {
        description: 'Cores; a whole number pins that many (cpuset); 0 or left out: no limit.',
        expected: 'a number of cores from 0 to 4096',
      }),
    ),
    memory: Type.Optional(Size(0, Number.MAX_SAFE_INTEGER, 'Most memory it may use; 0 or left out: no limit.')),
    gpus: Type.Optional(Whole(0, 64, 'GPUs wanted.')),
    devices: Type.Optional(Strings(32, 128, 'Device classes the machine must have, such as fpga.')),
    nodeLabels: Type.Optional(
      Type.Record(Type.String({ pattern: '^[A-Za-z0-9][A-Za-z0-9_./-]{0,62}$' }), Scalar, {
        names: 'a label of letters, digits and _ . / -',
        description:
          'Labels the machine must have, with these values; the same as constraints node.labels.NAME==VALUE.',
      }),
    ),
    constraints: Type.Optional(
      Strings(
        32,
        256,
        "Machines that will do, in Docker's form: node.labels.x==y, node.name!=n, node.platform.arch==arm64. All must hold.",
      ),
    ),
    ports: Type.Optional(Type.Array(Port, { maxItems: 64, description: 'Ports to publish.' })),
    volumes: Type.Optional(
      Type.Array(Volume, {
        maxItems: 32,
        description: 'Named volumes. Paths of the machine are refused: data must be able to move with the task.',
      }),
    ),
    replicas: Type.Optional(Whole(0, 500, 'Copies wanted; 1 unless said otherwise.')),
    restart: Type.Optional(Restart),
    stopSignal: Type.Optional(
      Type.Union([Type.String({ maxLength: 16 })], {
        description: 'Signal that asks the task to end; SIGTERM unless said otherwise.',
        expected: 'a signal such as SIGTERM',
      }),
    ),
    stopGrace: Type.Optional(
      Duration(0, 600_000, 'Time to end after the signal, before it is killed; 10s unless said otherwise.'),
    ),
    healthCheck: Type.Optional(HealthCheckDoc),
    onPartition: Type.Optional(
      OneOf(
        ['stop', 'keep'],
        'stop (default with volumes): never two copies at once. keep: each side of a cut network runs it.',
      ),
    ),
    onNodeLoss: Type.Optional(
      OneOf(
        ['reschedule', 'wait'],
        'reschedule (default): run elsewhere when its machine dies. wait: stay down until it is back.',
      ),
    ),
    priority: Type.Optional(Whole(-1000, 1000, 'Higher first when not all fit; 0 unless said otherwise.')),
    labels: Type.Optional(
      Type.Record(Type.String({ pattern: '^.{1,128}$' }), Scalar, {
        names: 'a label of 1 to 128 characters',
        description: 'Free words of yours, shown and filterable.',
      }),
    ),
  },
  {
    ...closed,
    description: 'A task: what to run, with what, and what to do when things break.',
    aliases: {
      environment: 'env',
      container_name: 'name',
      working_dir: 'workdir',
      workingDir: 'workdir',
      mem_limit: 'memory',
      mem: 'memory',
      memoryBytes: 'memory, such as 64m',
      entrypoint: 'command',
      restart_policy: 'restart',
      stop_grace_period: 'stopGrace',
      stopGraceMs: 'stopGrace, such as 10s',
      grace: 'stopGrace',
      stop_signal: 'stopSignal',
      scale: 'replicas',
      healthcheck: 'healthCheck',
      placement: 'constraints, a list at the top',
    },
  },
);
export type TaskDocument = Static<typeof TaskDocument>;

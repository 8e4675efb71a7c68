import { type Static, type TObject, type TSchema, type TUnsafe, Type } from 'typebox';
import { DURATION_PATTERN, SIZE_PATTERN } from './human-units.ts';
import type { Brand, DurationMs } from './ids.ts';

// The peer's config as people write it: one schema for the types, the checks, the defaults and `config show`. Durations and
// sizes carry units. What a duration `x` is written as is read as `xMs`, a size `x` as `xBytes`.

type DurationText = Brand<string, 'duration'>;
type SizeText = Brand<string | number, 'bytes'>;
type TDuration = TUnsafe<DurationText>;
type TSize = TUnsafe<SizeText>;

/** The config as the program reads it. */
export type Resolved<T extends TSchema> =
  T extends TObject<infer P>
    ? {
        readonly [K in keyof P as P[K] extends TDuration
          ? `${K & string}Ms`
          : P[K] extends TSize
            ? `${K & string}Bytes`
            : K]: P[K] extends TDuration
          ? DurationMs
          : P[K] extends TSize
            ? number
            : P[K] extends TObject
              ? Resolved<P[K]>
              : Static<P[K]>;
      }
    : never;

const duration = (value: string, minimum: number, maximum: number, description: string): TDuration =>
  Type.Unsafe<DurationText>({
    type: ['string', 'integer'],
    pattern: DURATION_PATTERN,
    unit: 'duration',
    minimum,
    maximum,
    default: value,
    description,
  } as TSchema);
const size = (value: string, description: string): TSize =>
  Type.Unsafe<SizeText>({
    type: ['string', 'integer'],
    pattern: SIZE_PATTERN,
    unit: 'bytes',
    minimum: 0,
    maximum: Number.MAX_SAFE_INTEGER,
    default: value,
    description,
  } as TSchema);
const whole = (value: number, minimum: number, maximum: number, description: string) =>
  Type.Integer({ default: value, minimum, maximum, description });
const number = (value: number, minimum: number, maximum: number, description: string) =>
  Type.Number({ default: value, minimum, maximum, description });
const text = (value: string, description: string, options: Readonly<Record<string, unknown>> = {}) =>
  Type.String({ default: value, maxLength: 4096, description, ...options });
const flag = (value: boolean, description: string) => Type.Boolean({ default: value, description });
const oneOf = <const T extends readonly string[]>(values: T, value: T[number], description: string) =>
  Type.Unsafe<T[number]>({
    anyOf: values.map((v) => ({ const: v, type: 'string' })),
    default: value,
    description,
    expected: `one of ${values.join(', ')}`,
  } as TSchema);
const section = <P extends Record<string, TSchema>>(description: string, properties: P) =>
  Type.Object(properties, { additionalProperties: false, description });

const HOUR = 3_600_000;

export const PeerConfigSchema = section('One peer of task-org.', {
  dataDir: text(
    '',
    'Where this peer keeps its identity, log and state. One process at a time. Empty: ~/.task-org, or /var/lib/task-org for root.',
  ),
  name: text(
    '',
    "Human name of this peer, unique in the cluster (-2, -3 ... is added where it is taken). Empty: the host's name.",
    {
      pattern: '^([a-zA-Z0-9][a-zA-Z0-9_.-]{0,62})?$',
      expected: 'a name of 1 to 63 letters, digits, _ . and -',
    },
  ),
  listen: Type.Array(
    Type.String({ pattern: '^/[a-z0-9]+/\\S+$', maxLength: 512, expected: 'an address such as /ip4/0.0.0.0/tcp/7420' }),
    {
      default: ['/ip4/0.0.0.0/tcp/7420', '/ip6/::/tcp/7420'],
      minItems: 1,
      maxItems: 32,
      description: 'Addresses to listen on, as multiaddrs; port 0 means a free one.',
      expected: 'a list of addresses such as /ip4/0.0.0.0/tcp/7420',
    },
  ),
  announce: Type.Array(
    Type.String({
      pattern: '^/[a-z0-9]+/\\S+$',
      maxLength: 512,
      expected: 'an address such as /ip4/203.0.113.7/tcp/7420',
    }),
    {
      default: [],
      maxItems: 32,
      description: 'Addresses others are told, where they differ from those listened on (a forwarded port).',
      expected: 'a list of addresses',
    },
  ),
  join: text('', 'Join token. Read once, when the data directory belongs to no cluster yet. Empty: found a cluster.', {
    maxLength: 16_384,
  }),
  runtime: oneOf(
    ['auto', 'docker', 'process', 'both', 'none'],
    'auto',
    'What runs tasks here. auto: docker where an engine answers, and processes; none: this peer only votes and serves.',
  ),
  labels: Type.Record(
    Type.String({ pattern: '^[A-Za-z0-9][A-Za-z0-9_./-]{0,62}$' }),
    Type.String({ maxLength: 1024 }),
    {
      default: {},
      maxProperties: 256,
      names: 'a label of letters, digits and _ . / -',
      description: 'Labels of this machine for constraints such as node.labels.zone==eu; zone also spreads the voters.',
    },
  ),
  priority: whole(0, -1000, 1000, 'Bully rank: the highest-ranked healthy, caught-up voter becomes the master.'),
  witness: flag(false, 'Votes, runs nothing. Makes two machines as good as three.'),
  mdns: flag(true, 'Find peers of the same cluster on the LAN.'),
  logLevel: oneOf(['error', 'warn', 'info', 'debug'], 'info', 'Least severe lines logged.'),
  reserved: section('Kept free of tasks for the machine itself.', {
    cpus: number(0, 0, 4096, 'Cores.'),
    memory: size('0', 'Memory.'),
  }),
  membership: section(
    'Detection of failures (SWIM with Lifeguard). Shorter is faster and accuses more of the healthy.',
    {
      probeInterval: duration('200ms', 10, HOUR, 'Between two probes of one member.'),
      ackTimeout: duration('250ms', 10, HOUR, 'Answer awaited before others are asked and boot is probed.'),
      bootProbeTimeout: duration('40ms', 5, HOUR, 'Answer of a boot process awaited, per attempt.'),
      bootProbeAttempts: whole(3, 1, 20, 'Attempts to reach a boot process.'),
      indirectProbes: whole(3, 0, 50, 'Others asked to probe a silent member.'),
      suspicionMin: duration('60ms', 0, HOUR, 'Shortest time from accusation to death, with all accusers agreeing.'),
      suspicionMax: duration('1s', 10, HOUR, 'Longest time from accusation to death, with one accuser.'),
      agentDown: duration(
        '5s',
        0,
        HOUR,
        'Agent silent, boot answering: nothing of the machine is revived for this long.',
      ),
      fullMeshPeers: whole(20, 2, 1000, 'Up to this many peers everybody probes everybody.'),
      monitors: whole(8, 1, 100, 'Beyond that, peers that probe each member, besides the voters.'),
      maxLocalHealth: whole(8, 0, 100, 'Most that a slow peer stretches its own deadlines by, as a factor less one.'),
      lateTick: duration(
        '100ms',
        1,
        HOUR,
        'A timer later than this is a stall of this machine: it accuses nobody in that turn.',
      ),
    },
  ),
  consensus: section('The replicated log and the election of the master (Raft).', {
    electionTimeoutMin: duration(
      '600ms',
      20,
      HOUR,
      'Election timeout, drawn between min and max. At least three heartbeats, and well over a round trip with a disk flush.',
    ),
    electionTimeoutMax: duration('1s', 20, HOUR, 'See electionTimeoutMin; at least as long.'),
    heartbeat: duration('150ms', 5, HOUR, 'Between two heartbeats of the master.'),
    maxAppendEntries: whole(512, 1, 512, 'Entries in one message to a follower.'),
    maxAppendBytes: whole(786_432, 65_536, 786_432, 'Bytes of commands in one message to a follower.'),
    maxInFlight: whole(32, 1, 1024, 'Messages to one follower not yet answered.'),
    maxProposals: whole(4096, 1, 4096, 'Changes waiting for commit; more are refused as busy.'),
    logRetained: whole(
      8192,
      64,
      1_000_000,
      'Applied entries kept for peers that lag; beyond them a peer fetches the whole state.',
    ),
    directLearners: whole(2, 0, 100, 'Peers without a vote that the master sends entries to itself.'),
    transferTimeout: duration('1s', 50, HOUR, 'A handover of mastery that takes longer is given up.'),
  }),
  lease: section('Leases of tasks that may run only once. All peers of a cluster must agree on these.', {
    lease: duration(
      '4s',
      500,
      HOUR,
      'L: how long a copy may run after its last acknowledged renewal was sent; also the wait before it runs elsewhere.',
    ),
    renewEvery: duration('400ms', 20, HOUR, 'Between two renewals. Several must fit into a lease.'),
    clockRateError: number(0.01, 0, 0.2, 'r: most by which two clocks may run apart, as a part of one.'),
    stopAllowance: duration(
      '1s',
      10,
      HOUR,
      'S: time that killing a copy may take; it begins this long before its deadline.',
    ),
  }),
});
export type PeerSettings = Resolved<typeof PeerConfigSchema>;

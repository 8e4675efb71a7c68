import { type Static, type TSchema, Type } from 'typebox';
import { Compile } from 'typebox/compile';
import type { ClusterId, Incarnation, LogIndex, NodeId, TaskId, Term, WallMs } from './ids.ts';
import { LIMITS } from './limits.ts';
import { TaskSpec } from './task-spec.ts';

// Schemas of what stands in the log and travels between peers. Each has the type of its counterpart in records.ts and
// facts.ts (test/model/schema-types.test.ts holds them together).

export const CLOSED = { additionalProperties: false } as const;
const MAX = Number.MAX_SAFE_INTEGER;

export const Whole = (minimum = 0, maximum: number = MAX) => Type.Integer({ minimum, maximum });
export const Str = (maxLength: number) => Type.String({ maxLength });
export const Null = <T extends TSchema>(schema: T) => Type.Union([schema, Type.Null()]);
export const Bytes = Type.Refine(
  Type.Unsafe<Uint8Array>(Type.Unknown()),
  (v) => v instanceof Uint8Array,
  () => 'must be bytes',
);
const Id = <T>(pattern: string) => Type.Unsafe<T>(Type.String({ pattern }));
const Num = <T>(minimum = 0) => Type.Unsafe<T>(Type.Integer({ minimum, maximum: MAX }));

export const NodeIdSchema = Id<NodeId>('^[A-Za-z0-9_.-]{1,128}$');
export const TaskIdSchema = Id<TaskId>('^[A-Za-z0-9_.-]{1,64}$');
export const ClusterIdSchema = Id<ClusterId>('^[A-Za-z0-9_.-]{1,128}$');
export const TermSchema = Num<Term>();
export const IndexSchema = Num<LogIndex>();
export const IncarnationSchema = Num<Incarnation>();
export const WallSchema = Num<WallMs>();
export const SlotNumber = Whole(0, LIMITS.replicasPerTask - 1);

export const GenerationSchema = Type.Object(
  {
    epoch: Whole(0, 999_999_999),
    g: Whole(0, 999_999_999_999_999),
    provisional: Type.Optional(Type.Object({ caretaker: NodeIdSchema, n: Whole(0, 999_999_999) }, CLOSED)),
  },
  CLOSED,
);

const LABELS = 256;
export const Labels = Type.Record(Str(128), Str(1024), { maxProperties: LABELS });
export const PeerName = Type.String({ pattern: '^[^\\u0000-\\u001f/]{1,128}$' });
export const Addresses = Type.Array(Str(512), { maxItems: 64 });
export const Availability = Type.Union([Type.Literal('active'), Type.Literal('drain')]);
/** A sentence for people, and the facts a decision rests on. */
export const Reason = Str(2048);
export const Evidence = Type.Array(Str(1024), { maxItems: 64 });

const EpochId = Str(128);
const Epoch = Whole(0, 999_999_999);
const EpochIds = Type.Array(EpochId, { maxItems: LIMITS.epochs });
const Nodes = Type.Array(NodeIdSchema, { maxItems: LIMITS.peers });
export const ClusterSchema = Type.Object(
  {
    clusterId: ClusterIdSchema,
    epoch: Epoch,
    epochId: EpochId,
    name: Str(128),
    parents: Type.Optional(EpochIds),
    unsettled: Type.Optional(Type.Object({ voters: Nodes, accounted: Nodes }, CLOSED)),
  },
  CLOSED,
);
export const EpochFields = { epoch: Epoch, epochId: EpochId, voters: Nodes, dead: Nodes } as const;
export const NodeList = Nodes;
/** Stamp of consensus messages; absent where the cluster was never recovered. */
export const EpochStamp = Type.Optional(EpochId);
const EpochFact = Type.Object({ number: Epoch, id: EpochId, parents: EpochIds }, CLOSED);

/** A peer as it asks to be admitted (PeerRecord without admittedAt). */
export const PeerSchema = Type.Object(
  {
    nodeId: NodeIdSchema,
    name: PeerName,
    addresses: Addresses,
    labels: Labels,
    priority: Type.Integer({ minimum: -1_000_000, maximum: 1_000_000 }),
    witness: Type.Boolean(),
    availability: Availability,
  },
  CLOSED,
);

export const InvitationSchema = Type.Object(
  {
    id: Type.String({ pattern: '^[A-Za-z0-9_-]{1,128}$' }),
    key: Str(128),
    expiresAt: WallSchema,
    usesLeft: Whole(0, 1_000_000),
  },
  CLOSED,
);

export const SubmissionSchema = Type.Object(
  { id: TaskIdSchema, spec: TaskSpec, nonce: Str(128), expiresAt: WallSchema, from: NodeIdSchema },
  CLOSED,
);

const CopyStateSchema = Type.Union([
  Type.Literal('preparing'),
  Type.Literal('starting'),
  Type.Literal('running'),
  Type.Literal('backoff'),
  Type.Literal('stopping'),
  Type.Literal('stopped'),
  Type.Literal('finished'),
  Type.Literal('failed'),
]);
const HealthSchema = Type.Union([
  Type.Literal('none'),
  Type.Literal('starting'),
  Type.Literal('healthy'),
  Type.Literal('unhealthy'),
]);
export const ExitCode = Null(Type.Integer({ minimum: -2_147_483_648, maximum: 4_294_967_295 }));

export const CopyFactSchema = Type.Object(
  {
    taskId: TaskIdSchema,
    slot: SlotNumber,
    generation: GenerationSchema,
    state: CopyStateSchema,
    health: HealthSchema,
    startedAt: Null(WallSchema),
    exitCode: ExitCode,
    restarts: Whole(),
    error: Str(8192),
    handle: Str(256),
    ports: Type.Array(
      Type.Object(
        {
          container: Whole(0, 65535),
          host: Whole(0, 65535),
          protocol: Type.Union([Type.Literal('tcp'), Type.Literal('udp')]),
        },
        CLOSED,
      ),
      { maxItems: 256 },
    ),
  },
  CLOSED,
);

const Amount = Type.Number({ minimum: 0 });
const Resources = Type.Object(
  {
    cpus: Amount,
    memoryBytes: Amount,
    diskBytes: Amount,
    gpus: Type.Array(Type.Object({ name: Str(256), memoryBytes: Amount }, CLOSED), { maxItems: 64 }),
    devices: Type.Array(Str(128), { maxItems: 256 }),
  },
  CLOSED,
);
const Load = Type.Object(
  {
    cpuUsage: Type.Number(),
    cpuFrequencyMHz: Null(Type.Number()),
    memoryUsedBytes: Type.Number(),
    diskUsedBytes: Type.Number(),
    temperatureC: Null(Type.Number()),
    battery: Null(Type.Object({ percent: Type.Number(), charging: Type.Boolean() }, CLOSED)),
    fansRpm: Type.Array(Type.Number(), { maxItems: 64 }),
    gpus: Type.Array(
      Type.Object(
        { usage: Null(Type.Number()), memoryUsedBytes: Null(Type.Number()), temperatureC: Null(Type.Number()) },
        CLOSED,
      ),
      { maxItems: 64 },
    ),
  },
  CLOSED,
);

const FACTS_HEAD = {
  nodeId: NodeIdSchema,
  incarnation: IncarnationSchema,
  version: Whole(),
  name: Str(128),
  addresses: Addresses,
  bootProbe: Addresses,
  agentVersion: Str(64),
  wireVersion: Whole(),
  os: Str(64),
  arch: Str(64),
  runtimes: Type.Array(Type.Union([Type.Literal('docker'), Type.Literal('process')]), { maxItems: 8 }),
  problems: Type.Array(Str(2048), { maxItems: 64 }),
  canFence: Type.Boolean(),
  resources: Resources,
  load: Load,
  labels: Labels,
  priority: Type.Number(),
  witness: Type.Boolean(),
  epoch: Type.Optional(EpochFact),
  images: Type.Array(Str(512), { maxItems: 4096 }),
} as const;
export const FactsHeadSchema = Type.Object(FACTS_HEAD, CLOSED);
export const NodeFactsSchema = Type.Object(
  { ...FACTS_HEAD, copies: Type.Array(CopyFactSchema, { maxItems: LIMITS.tasks }) },
  CLOSED,
);

export type Checked<T> = { readonly ok: true; readonly value: T } | { readonly ok: false; readonly error: string };

/** Larger values are refused without a reason: to find it takes some 0.8 us a byte, half a second for a frame. */
const EXPLAINED_BYTES = 16 * 1024;

/** Compiled on first use: what a peer never receives costs it nothing. `sizeBytes`: of the value as it came. */
export function checker<S extends TSchema>(schema: S): (value: unknown, sizeBytes?: number) => Checked<Static<S>> {
  let compiled:
    | { Check(value: unknown): boolean; Errors(value: unknown): { instancePath: string; message: string }[] }
    | undefined;
  return (value, sizeBytes = 0) => {
    compiled ??= Compile(schema);
    if (compiled.Check(value)) return { ok: true, value: value as Static<S> };
    if (sizeBytes > EXPLAINED_BYTES) return { ok: false, error: 'does not fit its schema' };
    const first = compiled.Errors(value)[0];
    return {
      ok: false,
      error: first === undefined ? 'does not fit its schema' : `${first.instancePath || 'message'} ${first.message}`,
    };
  };
}

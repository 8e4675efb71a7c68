import { Type } from 'typebox';
import {
  type Checked,
  ClusterSchema,
  checker,
  GenerationSchema,
  IndexSchema,
  InvitationSchema,
  NodeIdSchema,
  Null,
  PeerSchema,
  Str,
  TaskIdSchema,
  WallSchema,
  Whole,
} from './record-schemas.ts';
import { TaskSpec } from './task-spec.ts';

// The records of the replicated state as they come from another peer in a snapshot. What does not fit must not reach the
// store: a peer that kept it could not start again. Texts and lists have no limits of their own here; the log had them.

const ended = {
  node: NodeIdSchema,
  exitCode: Null(Type.Integer()),
  error: Type.String(),
  at: WallSchema,
};
const SlotState = Type.Union([
  Type.Object({ kind: Type.Literal('pending'), reason: Type.String() }),
  Type.Object({
    kind: Type.Literal('assigned'),
    node: NodeIdSchema,
    at: WallSchema,
    adopted: Type.Optional(GenerationSchema),
  }),
  Type.Object({ kind: Type.Literal('closed'), node: NodeIdSchema, at: WallSchema, reason: Type.String() }),
  Type.Object({ kind: Type.Literal('finished'), ...ended }),
  Type.Object({ kind: Type.Literal('failed'), ...ended }),
]);

const RECORDS = {
  cluster: ClusterSchema,
  peer: Type.Object({ ...PeerSchema.properties, admittedAt: IndexSchema }),
  invitation: InvitationSchema,
  setting: Str(4096),
  verdict: Type.Object({
    id: TaskIdSchema,
    verdict: Type.Union([Type.Literal('accepted'), Type.Literal('refused'), Type.Literal('removed')]),
    code: Null(Type.String()),
    index: IndexSchema,
    reason: Type.String(),
    forgetAt: WallSchema,
  }),
  event: Type.Object({
    index: IndexSchema,
    at: WallSchema,
    type: Type.String(),
    subject: Type.String(),
    message: Type.String(),
  }),
  task: Type.Object({
    id: TaskIdSchema,
    spec: TaskSpec,
    specVersion: Whole(),
    desired: Type.Union([Type.Literal('running'), Type.Literal('stopped')]),
    acceptedAt: WallSchema,
    acceptedIndex: IndexSchema,
    submittedBy: NodeIdSchema,
  }),
  slot: Type.Object({
    slot: Whole(),
    generation: GenerationSchema,
    state: SlotState,
    dropped: Type.Optional(GenerationSchema),
  }),
  decision: Type.Object({
    at: WallSchema,
    index: IndexSchema,
    slot: Whole(-1),
    by: NodeIdSchema,
    what: Type.String(),
    generation: Null(GenerationSchema),
    node: Null(NodeIdSchema),
    reason: Type.String(),
    evidence: Type.Array(Type.String()),
  }),
};

const checks = new Map<string, (value: unknown) => Checked<unknown>>(
  Object.entries(RECORDS).map(([kind, schema]) => [kind, checker(schema)]),
);

/** Whether a pair is one that a peer of this version keeps. Never throws. */
export function checkStatePair(
  key: unknown,
  value: unknown,
): Checked<{ readonly key: string; readonly value: unknown }> {
  if (typeof key !== 'string' || key.length > 1024) return { ok: false, error: 'a key is not a text' };
  const at = key.indexOf('/');
  const kind = at < 0 ? key : key.slice(0, at);
  const check = checks.get(kind);
  if (check === undefined || (kind === 'cluster') !== at < 0)
    return { ok: false, error: `a record of an unknown kind: ${key.slice(0, 64)}` };
  const checked = check(value);
  return checked.ok
    ? { ok: true, value: { key, value } }
    : { ok: false, error: `${key.slice(0, 64)}: ${checked.error}` };
}

import { type Static, type TSchema, Type } from 'typebox';
import { decodeCbor, encodeCbor } from './cbor.ts';
import { COMMAND_SCHEMAS } from './command-codec.ts';
import type { Command } from './commands.ts';
import { LIMITS } from './limits.ts';
import {
  Bytes,
  type Checked,
  CLOSED,
  CopyFactSchema,
  checker,
  FactsHeadSchema,
  GenerationSchema,
  IncarnationSchema,
  EpochStamp,
  IndexSchema,
  NodeFactsSchema,
  NodeIdSchema,
  Null,
  Reason,
  SlotNumber,
  Str,
  SubmissionSchema,
  TaskIdSchema,
  TermSchema,
  Whole,
} from './record-schemas.ts';
import { describeValue } from './schema-check.ts';
import { type WIRE_CHANNELS, type WIRE_TOPICS, WIRE_VERSION } from './wire.ts';

// Messages between peers as bytes: dag-cbor of [wire version, message]. Everything a peer receives is checked here, once,
// against a compiled schema; what does not fit is a value with a reason, never an exception.

type Channel = (typeof WIRE_CHANNELS)[number];
type Topic = (typeof WIRE_TOPICS)[number];

/** Leases in one renewal. */
const LEASES = 8192;
/** Removed copies named in one delta. */
const REMOVED = LIMITS.tasks;

const define = <const T extends string, P extends Record<string, TSchema>>(type: T, fields: P) =>
  Type.Object({ type: Type.Literal(type), ...fields }, CLOSED);
const Literals = <const T extends readonly string[]>(values: T) =>
  Type.Unsafe<T[number]>({ anyOf: values.map((v) => ({ const: v })) } as TSchema);
const list = <T extends TSchema>(item: T, maxItems: number) => Type.Array(item, { maxItems });

// ---- membership ------------------------------------------------------------------------------------------------------

const MemberUpdate = Type.Object(
  {
    id: NodeIdSchema,
    status: Literals(['alive', 'suspect', 'agent-down', 'dead', 'left']),
    incarnation: IncarnationSchema,
    accusers: list(NodeIdSchema, LIMITS.peers),
  },
  CLOSED,
);
// Push-pull carries the whole list; the others a few.
const updates = { updates: list(MemberUpdate, LIMITS.peers) } as const;
const probe = { seq: Whole(), incarnation: IncarnationSchema, ...updates } as const;
const MEMBERSHIP = {
  ping: define('ping', probe),
  ack: define('ack', probe),
  'ping-req': define('ping-req', { seq: Whole(), target: NodeIdSchema }),
  'ping-req-ack': define('ping-req-ack', {
    seq: Whole(),
    target: NodeIdSchema,
    agent: Type.Boolean(),
    boot: Type.Boolean(),
  }),
  updates: define('updates', updates),
  'push-pull': define('push-pull', { reply: Type.Boolean(), ...updates }),
};

// ---- consensus -------------------------------------------------------------------------------------------------------

const Voters = list(NodeIdSchema, 64);
const Membership = Type.Object({ voters: Voters, outgoing: Null(Voters) }, CLOSED);
const LogEntry = Type.Object(
  {
    index: IndexSchema,
    term: TermSchema,
    payload: Type.Union([
      Type.Object({ kind: Type.Literal('command'), bytes: Bytes }, CLOSED),
      Type.Object({ kind: Type.Literal('noop') }, CLOSED),
      Type.Object({ kind: Type.Literal('membership'), membership: Membership }, CLOSED),
    ]),
  },
  CLOSED,
);
const entries = { entries: list(LogEntry, LIMITS.appendEntries) } as const;
/** Consensus messages carry the epoch of a recovered cluster: logs of different epochs never mix. */
const raft = <const T extends string, P extends Record<string, TSchema>>(type: T, fields: P) =>
  define(type, { ...fields, epoch: EpochStamp });
const RAFT = {
  'vote-request': raft('vote-request', {
    term: TermSchema,
    preVote: Type.Boolean(),
    transfer: Type.Boolean(),
    lastIndex: IndexSchema,
    lastTerm: TermSchema,
    rank: Type.Number(),
  }),
  'vote-reply': raft('vote-reply', { term: TermSchema, preVote: Type.Boolean(), granted: Type.Boolean() }),
  append: raft('append', {
    term: TermSchema,
    prevIndex: IndexSchema,
    prevTerm: TermSchema,
    ...entries,
    commit: IndexSchema,
    round: Whole(),
    learner: Type.Boolean(),
  }),
  'append-reply': raft('append-reply', {
    term: TermSchema,
    ok: Type.Boolean(),
    index: IndexSchema,
    hintTerm: TermSchema,
    round: Whole(),
    applied: IndexSchema,
    mayVote: Type.Boolean(),
  }),
  'snapshot-offer': raft('snapshot-offer', {
    term: TermSchema,
    index: IndexSchema,
    lastTerm: TermSchema,
    membership: Membership,
  }),
  'timeout-now': raft('timeout-now', { term: TermSchema }),
  'read-request': raft('read-request', { id: Whole() }),
  'read-reply': raft('read-reply', { id: Whole(), index: IndexSchema, ok: Type.Boolean() }),
};
const CommittedEntries = Type.Object(
  { prevIndex: IndexSchema, prevTerm: TermSchema, ...entries, commit: IndexSchema, epoch: EpochStamp },
  CLOSED,
);

// ---- leases ----------------------------------------------------------------------------------------------------------

const Leases = list(
  Type.Object({ taskId: TaskIdSchema, slot: SlotNumber, generation: GenerationSchema }, CLOSED),
  LEASES,
);
const LEASE = {
  'lease-renew': define('lease-renew', { seq: Whole(), leases: Leases, released: Leases }),
  'lease-ack': define('lease-ack', { seq: Whole(), acked: Leases, refused: Leases }),
};

// ---- facts -----------------------------------------------------------------------------------------------------------

const Delta = Type.Object(
  {
    nodeId: NodeIdSchema,
    incarnation: IncarnationSchema,
    base: Whole(),
    version: Whole(),
    head: Null(FactsHeadSchema),
    changedCopies: list(CopyFactSchema, LIMITS.tasks),
    removedCopies: list(Str(512), REMOVED),
  },
  CLOSED,
);
const FACTS = {
  'facts-full': define('facts-full', { facts: NodeFactsSchema }),
  'facts-delta': define('facts-delta', { delta: Delta }),
  'facts-digest': define('facts-digest', {
    digest: list(Type.Tuple([NodeIdSchema, IncarnationSchema, Whole()]), LIMITS.peers),
    reply: Type.Boolean(),
  }),
  'facts-want': define('facts-want', { nodes: list(NodeIdSchema, LIMITS.peers) }),
};

// ---- control ---------------------------------------------------------------------------------------------------------

/** Commands as they stand in the log, without its version. */
const CommandMessage = Type.Unsafe<Command>(
  Type.Union(
    Object.values(COMMAND_SCHEMAS).map(({ properties: { v: _v, ...fields } }) =>
      Type.Object(fields as unknown as Record<string, TSchema>, CLOSED),
    ),
  ),
);
const ApplyResult = Type.Union([
  Type.Object({ ok: Type.Literal(true) }, CLOSED),
  Type.Object(
    {
      ok: Type.Literal(false),
      code: Literals(['name_in_use', 'not_found', 'stale', 'already_exists', 'refused', 'limit']),
      reason: Reason,
    },
    CLOSED,
  ),
]);
const PROVISIONAL = { taskId: TaskIdSchema, slot: SlotNumber, generation: GenerationSchema };
const CONTROL = {
  'caretaker-bid': define('caretaker-bid', { term: TermSchema, index: IndexSchema, rank: Type.Number() }),
  'caretaker-orders': define('caretaker-orders', {
    starts: list(Type.Object({ ...PROVISIONAL, reason: Reason }, CLOSED), LIMITS.caretakerOrders),
    drops: list(Type.Object(PROVISIONAL, CLOSED), LIMITS.caretakerOrders),
  }),
  submission: define('submission', { submission: SubmissionSchema }),
  'submission-verdict': define('submission-verdict', {
    id: TaskIdSchema,
    verdict: Literals(['accepted', 'refused', 'busy']),
    index: IndexSchema,
    reason: Reason,
  }),
  propose: define('propose', { requestId: Whole(), command: CommandMessage }),
  'propose-result': define('propose-result', {
    requestId: Whole(),
    ok: Type.Boolean(),
    index: IndexSchema,
    result: Null(ApplyResult),
    reason: Reason,
  }),
};

// ---- what goes where -------------------------------------------------------------------------------------------------

type MessageOf<T extends Record<string, TSchema>> = { [K in keyof T]: Static<T[K]> }[keyof T];
const CHANNELS = {
  membership: MEMBERSHIP,
  raft: RAFT,
  lease: LEASE,
  facts: FACTS,
  control: CONTROL,
} as const satisfies Record<Channel, Record<string, TSchema>>;
export type WireMessage = {
  [C in Channel]: { readonly channel: C; readonly message: MessageOf<(typeof CHANNELS)[C]> };
}[Channel];

const MEMBERS = { updates: MEMBERSHIP.updates, 'facts-delta': FACTS['facts-delta'] };
export type WireGossip =
  | { readonly topic: 'tasks'; readonly message: Static<typeof SubmissionSchema> }
  | { readonly topic: 'members'; readonly message: MessageOf<typeof MEMBERS> }
  | { readonly topic: 'log'; readonly message: Static<typeof CommittedEntries> };

type Check = (value: unknown, sizeBytes: number) => Checked<unknown>;
const byType = (schemas: Record<string, TSchema>): Check => {
  const checks = new Map<string, Check>(Object.entries(schemas).map(([type, schema]) => [type, checker(schema)]));
  return (value, sizeBytes) => {
    const type =
      typeof value === 'object' && value !== null && 'type' in value && typeof value.type === 'string'
        ? value.type
        : '';
    const check = checks.get(type);
    return check === undefined
      ? { ok: false, error: `unknown message '${type.slice(0, 64)}'` }
      : check(value, sizeBytes);
  };
};
const channelChecks: Readonly<Record<Channel, Check>> = {
  membership: byType(MEMBERSHIP),
  raft: byType(RAFT),
  lease: byType(LEASE),
  facts: byType(FACTS),
  control: byType(CONTROL),
};
const topicChecks: Readonly<Record<Topic, Check>> = {
  tasks: checker(SubmissionSchema),
  members: byType(MEMBERS),
  log: checker(CommittedEntries),
};

/** The channel is not in the bytes: the transport carries it. */
export function encodeMessage(_channel: Channel, message: object): Uint8Array {
  return encodeCbor([WIRE_VERSION, message]);
}

/** Never throws; bytes over LIMITS.rpcFrameBytes are refused unread. */
export function decodeMessage(channel: Channel, bytes: Uint8Array): Checked<WireMessage> {
  const checked = open(bytes, channelChecks[channel]);
  return checked.ok ? { ok: true, value: { channel, message: checked.value } as WireMessage } : checked;
}

export function encodeGossip(gossip: { readonly topic: Topic; readonly message: object }): Uint8Array {
  return encodeCbor([WIRE_VERSION, gossip.message]);
}

/**
 * Never throws. The transport holds gossip to LIMITS.gossipFrameBytes; here the limit is that of a frame, since a range of
 * the log is answered in the same form.
 */
export function decodeGossip(topic: Topic, bytes: Uint8Array): Checked<WireGossip> {
  const checked = open(bytes, topicChecks[topic]);
  return checked.ok ? { ok: true, value: { topic, message: checked.value } as WireGossip } : checked;
}

function open(bytes: Uint8Array, check: Check): Checked<unknown> {
  const decoded = decodeCbor(bytes, LIMITS.rpcFrameBytes);
  if (!decoded.ok) return decoded;
  if (!Array.isArray(decoded.value) || decoded.value.length !== 2)
    return { ok: false, error: 'is not [version, message]' };
  const [version, message] = decoded.value as [unknown, unknown];
  return version === WIRE_VERSION
    ? check(message, bytes.length)
    : { ok: false, error: `wire version ${describeValue(version)}, this peer speaks ${WIRE_VERSION}` };
}

import { type TSchema, Type } from 'typebox';
import { decodeCbor, encodeCbor } from './cbor.ts';
import { COMMAND_VERSION, type Command, type CommandType } from './commands.ts';
import { LIMITS } from './limits.ts';
import {
  Addresses,
  Availability,
  type Checked,
  CLOSED,
  ClusterSchema,
  checker,
  EpochFields,
  Evidence,
  ExitCode,
  GenerationSchema,
  InvitationSchema,
  Labels,
  NodeIdSchema,
  NodeList,
  Null,
  PeerName,
  PeerSchema,
  Reason,
  SlotNumber,
  Str,
  SubmissionSchema,
  TaskIdSchema,
  WallSchema,
} from './record-schemas.ts';
import { TaskSpec } from './task-spec.ts';

// Commands as bytes of a log entry: dag-cbor of {v: 1, ...command}. What does not decode is an entry all the same: it is
// applied as nothing, on every peer alike.

/** Longest command, bytes: a task document at its limit and what goes with it. */
export const COMMAND_BYTES = LIMITS.gossipFrameBytes;

const InvitationId = Type.String({ pattern: '^[A-Za-z0-9_-]{1,128}$' });
const meta = { v: Type.Literal(COMMAND_VERSION), by: NodeIdSchema, at: WallSchema } as const;
const define = <const T extends CommandType, P extends Record<string, TSchema>>(type: T, fields: P) =>
  Type.Object({ ...meta, type: Type.Literal(type), ...fields }, CLOSED);
const slot = { taskId: TaskIdSchema, slot: SlotNumber, generation: GenerationSchema, reason: Reason } as const;

/** One schema per type of command. */
export const COMMAND_SCHEMAS = {
  'cluster.init': define('cluster.init', { cluster: ClusterSchema, founder: PeerSchema }),
  'cluster.recover': define('cluster.recover', EpochFields),
  'cluster.account': define('cluster.account', {
    nodes: NodeList,
    how: Type.Union([Type.Literal('named dead'), Type.Literal('of this epoch')]),
  }),
  'peer.admit': define('peer.admit', { peer: PeerSchema, invitationId: Null(InvitationId) }),
  'peer.update': define('peer.update', {
    nodeId: NodeIdSchema,
    patch: Type.Object(
      {
        name: Type.Optional(PeerName),
        addresses: Type.Optional(Addresses),
        labels: Type.Optional(Labels),
        priority: Type.Optional(PeerSchema.properties.priority),
        availability: Type.Optional(Availability),
      },
      CLOSED,
    ),
  }),
  'peer.remove': define('peer.remove', { nodeId: NodeIdSchema }),
  'invitation.add': define('invitation.add', { invitation: InvitationSchema }),
  'invitation.remove': define('invitation.remove', { id: InvitationId }),
  'task.submit': define('task.submit', { submission: SubmissionSchema }),
  'task.refuse': define('task.refuse', { id: TaskIdSchema, reason: Reason, expiresAt: WallSchema }),
  'task.update': define('task.update', { taskId: TaskIdSchema, spec: TaskSpec }),
  'task.desire': define('task.desire', {
    taskId: TaskIdSchema,
    desired: Type.Union([Type.Literal('running'), Type.Literal('stopped')]),
    restart: Type.Boolean(),
  }),
  'task.remove': define('task.remove', { taskId: TaskIdSchema }),
  'slot.assign': define('slot.assign', {
    ...slot,
    node: NodeIdSchema,
    adopts: Type.Optional(GenerationSchema),
    evidence: Evidence,
  }),
  'slot.drop': define('slot.drop', { ...slot, evidence: Evidence }),
  'slot.close': define('slot.close', { ...slot, evidence: Evidence }),
  'slot.release': define('slot.release', slot),
  'slot.end': define('slot.end', {
    taskId: TaskIdSchema,
    slot: SlotNumber,
    generation: GenerationSchema,
    outcome: Type.Union([Type.Literal('finished'), Type.Literal('failed')]),
    exitCode: ExitCode,
    error: Str(8192),
  }),
  'setting.set': define('setting.set', {
    key: Type.String({ pattern: '^[A-Za-z0-9][A-Za-z0-9_./-]{0,127}$' }),
    value: Str(4096),
  }),
} as const satisfies Record<CommandType, TSchema>;

const checks = new Map<string, (value: unknown, sizeBytes: number) => Checked<unknown>>(
  Object.entries(COMMAND_SCHEMAS).map(([type, schema]) => [type, checker(schema as TSchema)]),
);

/** Canonical: equal commands give equal bytes. Texts over their limits are cut here, so that a long error is not a lost command. */
export function encodeCommand(command: Command): Uint8Array {
  return encodeCbor({ v: COMMAND_VERSION, ...cutTexts(command), at: Math.max(0, Math.floor(command.at)) });
}

export type DecodedCommand =
  | { readonly ok: true; readonly command: Command }
  | { readonly ok: false; readonly error: string };

/** Never throws. */
export function decodeCommand(bytes: Uint8Array): DecodedCommand {
  const decoded = decodeCbor(bytes, COMMAND_BYTES);
  if (!decoded.ok) return decoded;
  const checked = checkCommand(decoded.value, bytes.length);
  if (!checked.ok) return checked;
  const { v: _v, ...command } = checked.value as unknown as Command & { readonly v: number };
  return { ok: true, command: command as Command };
}

function checkCommand(value: unknown, sizeBytes: number): Checked<unknown> {
  const type =
    typeof value === 'object' && value !== null && 'type' in value && typeof value.type === 'string' ? value.type : '';
  const check = checks.get(type);
  return check === undefined ? { ok: false, error: `unknown command '${type.slice(0, 64)}'` } : check(value, sizeBytes);
}

/** Whether a command fits its schema, before it is proposed (it may come from a client or another peer). */
export function validateCommand(
  command: Command,
): { readonly ok: true } | { readonly ok: false; readonly error: string } {
  const bytes = encodeCommand(command);
  const decoded = decodeCommand(bytes);
  return decoded.ok ? { ok: true } : decoded;
}

function cutTexts(command: Command): Command {
  switch (command.type) {
    case 'slot.assign':
    case 'slot.drop':
    case 'slot.close':
      return {
        ...command,
        reason: cut(command.reason, 2048),
        evidence: command.evidence.slice(0, 64).map((e) => cut(e, 1024)),
      };
    case 'slot.release':
    case 'task.refuse':
      return { ...command, reason: cut(command.reason, 2048) };
    case 'slot.end':
      return { ...command, error: cut(command.error, 8192) };
    default:
      return command;
  }
}

const cut = (text: string, max: number): string => (text.length <= max ? text : `${text.slice(0, max - 3)}...`);

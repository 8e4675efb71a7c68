import type { Static } from 'typebox';
import { expect, expectTypeOf, it } from 'vitest';
import type { RaftMessage } from '../../src/core/consensus/types.ts';
import type { LeaseMessage } from '../../src/core/lease/types.ts';
import type { MembershipMessage } from '../../src/core/membership/types.ts';
import type { CommittedEntries, GossipMessage } from '../../src/core/peer/types.ts';
import { COMMAND_SCHEMAS } from '../../src/model/command-codec.ts';
import type { Command, CommandType } from '../../src/model/commands.ts';
import type { NodeFacts } from '../../src/model/facts.ts';
import type { WireGossip, WireMessage } from '../../src/model/message-schemas.ts';
import type { ControlMessage, FactsMessage } from '../../src/model/peer-messages.ts';
import type { NodeFactsSchema, PeerSchema, SubmissionSchema } from '../../src/model/record-schemas.ts';
import type { PeerRecord, Submission } from '../../src/model/records.ts';

// The model imports nothing of the cores, so the schemas of their messages stand beside the types. Here both are held
// together, in both directions, by the type checker.

type Deep<T> = T extends Uint8Array | string | number | boolean | null | undefined
  ? T
  : T extends readonly [infer A, infer B, infer C]
    ? [Deep<A>, Deep<B>, Deep<C>]
    : T extends readonly (infer I)[]
      ? Deep<I>[]
      : { -readonly [K in keyof T]: Deep<T[K]> };
type Message<C extends WireMessage['channel']> = Extract<WireMessage, { channel: C }>['message'];

it('schemas and types say the same', () => {
  expectTypeOf<Message<'membership'>>().toExtend<MembershipMessage>();
  expectTypeOf<Deep<MembershipMessage>>().toExtend<Message<'membership'>>();
  expectTypeOf<Message<'raft'>>().toExtend<RaftMessage>();
  expectTypeOf<Deep<RaftMessage>>().toExtend<Message<'raft'>>();
  expectTypeOf<Message<'lease'>>().toExtend<LeaseMessage>();
  expectTypeOf<Deep<LeaseMessage>>().toExtend<Message<'lease'>>();
  expectTypeOf<Message<'facts'>>().toExtend<FactsMessage>();
  expectTypeOf<Deep<FactsMessage>>().toExtend<Message<'facts'>>();
  expectTypeOf<Message<'control'>['type']>().toEqualTypeOf<ControlMessage['type']>();
  expectTypeOf<WireGossip['topic']>().toEqualTypeOf<GossipMessage['topic']>();
  expectTypeOf<Deep<CommittedEntries>>().toExtend<Extract<WireGossip, { topic: 'log' }>['message']>();
  expectTypeOf<Static<typeof NodeFactsSchema>>().toExtend<NodeFacts>();
  expectTypeOf<Deep<NodeFacts>>().toExtend<Static<typeof NodeFactsSchema>>();
  expectTypeOf<Static<typeof PeerSchema>>().toExtend<Omit<PeerRecord, 'admittedAt'>>();
  expectTypeOf<Static<typeof SubmissionSchema>>().toExtend<Submission>();
  expectTypeOf<
    { [K in CommandType]: Omit<Static<(typeof COMMAND_SCHEMAS)[K]>, 'v'> }[CommandType]
  >().toExtend<Command>();
  expect(Object.keys(COMMAND_SCHEMAS)).toHaveLength(19);
});

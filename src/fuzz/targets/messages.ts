import { applyEntry, createState, dumpState, restoreState, stateDigest } from '../../core/state/state.ts';
import { COMMAND_BYTES, decodeCommand, encodeCommand } from '../../model/command-codec.ts';
import { logIndex } from '../../model/ids.ts';
import { LIMITS } from '../../model/limits.ts';
import { decodeGossip, decodeMessage, encodeGossip, encodeMessage } from '../../model/message-schemas.ts';
import { WIRE_CHANNELS, WIRE_TOPICS } from '../../model/wire.ts';
import * as samples from '../samples.ts';
import { FuzzFailure, type FuzzTarget, LIMIT_MS, sameValue, type Verdict } from '../target.ts';

// What peers say to each other on channels and topics, and the commands in their log.

type Decoded = { readonly ok: true; readonly value: unknown } | { readonly ok: false; readonly error: string };

/** What was accepted, written and read again, is the same. */
export function sameAgain(
  bytes: Uint8Array,
  decode: (bytes: Uint8Array) => Decoded,
  encode: (value: never) => Uint8Array,
): Verdict {
  const first = decode(bytes);
  if (!first.ok) return 'refused';
  const second = decode(encode(first.value as never));
  if (!second.ok) throw new FuzzFailure(`what was accepted is refused when it is sent on: ${second.error}`);
  if (!sameValue(first.value, second.value))
    throw new FuzzFailure('what was accepted reads otherwise when it is sent on');
  return 'accepted';
}

const SAMPLES = {
  membership: samples.membershipMessages,
  // Of a cluster that was never recovered, and of one that was.
  raft: () => [...samples.raftMessages(), ...samples.raftMessages().map((m) => ({ ...m, epoch: 'e2' }))],
  lease: samples.leaseMessages,
  facts: samples.factsMessages,
  control: samples.controlMessages,
} as const;

const channels = WIRE_CHANNELS.map(
  (channel): FuzzTarget => ({
    name: `channel-${channel}`,
    grammar: 'cbor',
    seeds: SAMPLES[channel]().map((message) => encodeMessage(channel, message)),
    weight: 12,
    maxBytes: LIMITS.rpcFrameBytes,
    limitMs: LIMIT_MS,
    decode: (bytes) =>
      sameAgain(
        bytes,
        (b) => decodeMessage(channel, b),
        (value: { message: object }) => encodeMessage(channel, value.message),
      ),
  }),
);

const GOSSIP: Readonly<Record<(typeof WIRE_TOPICS)[number], () => readonly object[]>> = {
  tasks: () => samples.specs().map(samples.submission),
  members: () => [...samples.membershipMessages().slice(4, 5), ...samples.factsMessages().slice(1, 3)],
  log: () => [samples.committed(), { ...samples.committed(), entries: [], epoch: 'e2' }],
};

const topics = WIRE_TOPICS.map(
  (topic): FuzzTarget => ({
    name: `gossip-${topic}`,
    grammar: 'cbor',
    seeds: GOSSIP[topic]().map((message) => encodeGossip({ topic, message })),
    weight: 8,
    maxBytes: LIMITS.gossipFrameBytes,
    limitMs: LIMIT_MS,
    decode: (bytes) =>
      sameAgain(
        bytes,
        (b) => decodeGossip(topic, b),
        (value: { message: object }) => encodeGossip({ topic, message: value.message }),
      ),
  }),
);

const command: FuzzTarget = {
  name: 'command',
  grammar: 'cbor',
  seeds: samples.commands().map(encodeCommand),
  weight: 12,
  maxBytes: COMMAND_BYTES,
  limitMs: LIMIT_MS,
  decode: (bytes) =>
    sameAgain(
      bytes,
      (b) => {
        const decoded = decodeCommand(b);
        return decoded.ok ? { ok: true, value: decoded.command } : decoded;
      },
      encodeCommand,
    ),
};

/** Commands applied one after another to one state: never throws, and the records can be put away and taken back. */
function stateMachine(): FuzzTarget {
  const own = samples.commands().map(encodeCommand);
  let state = createState();
  let index = 0;
  return {
    name: 'apply-entry',
    grammar: 'cbor',
    seeds: own,
    weight: 8,
    maxBytes: COMMAND_BYTES,
    limitMs: LIMIT_MS,
    decode: (bytes) => {
      if (index % 400 === 0) {
        const again = restoreState(structuredClone([...dumpState(state)]), state.applied);
        if (stateDigest(again) !== stateDigest(state)) throw new FuzzFailure('records differ when they are taken back');
        state = createState();
        index = 0;
        for (const b of own) applyEntry(state, logIndex(++index), b);
      }
      const { result } = applyEntry(state, logIndex(++index), bytes);
      return result.ok ? 'accepted' : 'refused';
    },
  };
}

export const messageTargets = (): FuzzTarget[] => [...channels, ...topics, command, stateMachine()];

import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { decodeCbor, encodeCbor } from '../../src/model/cbor.ts';
import { decodeCommand, encodeCommand, validateCommand } from '../../src/model/command-codec.ts';
import type { Command } from '../../src/model/commands.ts';
import { clusterId, nodeId, taskId, wallMs } from '../../src/model/ids.ts';
import { LIMITS } from '../../src/model/limits.ts';
import { decodeGossip, decodeMessage, encodeGossip, encodeMessage } from '../../src/model/message-schemas.ts';
import { WIRE_CHANNELS, WIRE_TOPICS, WIRE_VERSION } from '../../src/model/wire.ts';
import { taskSpec } from './fixtures.ts';

type Channel = (typeof WIRE_CHANNELS)[number];
const n1 = nodeId('12D3KooWA');
const meta = { by: n1, at: wallMs(1_700_000_000_000) };
const generation = { epoch: 1, g: 7 };
const key = { taskId: taskId('t1'), slot: 0, generation };
const submission = {
  id: taskId('t1'),
  spec: taskSpec({
    healthCheck: { check: { type: 'tcp', port: 1 }, intervalMs: 50, timeoutMs: 50, retries: 1, startPeriodMs: 0 },
  }),
  nonce: 'n',
  expiresAt: wallMs(5),
  from: n1,
};
const peer = {
  nodeId: n1,
  name: 'node1',
  addresses: ['/ip4/1.1.1.1/tcp/1'],
  labels: { zone: 'eu' },
  priority: -1,
  witness: false,
  availability: 'active' as const,
};

const commands: Command[] = [
  {
    ...meta,
    type: 'cluster.init',
    cluster: { clusterId: clusterId('c'), epoch: 1, epochId: 'e', name: 'home' },
    founder: peer,
  },
  { ...meta, type: 'peer.admit', peer, invitationId: null },
  { ...meta, type: 'peer.update', nodeId: n1, patch: { availability: 'drain' } },
  { ...meta, type: 'peer.remove', nodeId: n1 },
  { ...meta, type: 'invitation.add', invitation: { id: 'i', key: 'k', expiresAt: wallMs(1), usesLeft: 1 } },
  { ...meta, type: 'invitation.remove', id: 'i' },
  { ...meta, type: 'task.submit', submission },
  { ...meta, type: 'task.refuse', id: taskId('t1'), reason: 'no', expiresAt: wallMs(1) },
  { ...meta, type: 'task.update', taskId: taskId('t1'), spec: taskSpec() },
  { ...meta, type: 'task.desire', taskId: taskId('t1'), desired: 'stopped', restart: false },
  { ...meta, type: 'task.remove', taskId: taskId('t1') },
  { ...meta, type: 'slot.assign', ...key, node: n1, reason: 'r', evidence: ['e'] },
  { ...meta, type: 'slot.close', ...key, reason: 'r', evidence: [] },
  { ...meta, type: 'slot.release', ...key, reason: 'r' },
  { ...meta, type: 'slot.end', ...key, outcome: 'failed', exitCode: null, error: 'e' },
  { ...meta, type: 'setting.set', key: 'a/b', value: '' },
];

describe('commands', () => {
  it.each(commands.map((c) => [c.type, c] as const))('%s comes back as it went', (_type, command) => {
    expect(decodeCommand(encodeCommand(command))).toEqual({ ok: true, command });
    expect(validateCommand(command)).toEqual({ ok: true });
  });
  it('have one form: equal commands are equal bytes, whatever the order of their keys', () => {
    for (const c of commands)
      expect(encodeCommand(Object.fromEntries(Object.entries(c).reverse()) as unknown as Command)).toEqual(
        encodeCommand(c),
      );
  });
  it.each<[string, unknown, string]>([
    ['a newer version', { v: 2, ...commands[3] }, '/v'],
    ['no version', commands[3], 'v'],
    ['an unknown type', { v: 1, ...meta, type: 'x' }, "unknown command 'x'"],
    ['an unknown field', { v: 1, ...commands[3], extra: 1 }, 'extra'],
    ['a missing field', { v: 1, ...meta, type: 'peer.remove' }, 'nodeId'],
    ['an id that would break a key', { v: 1, ...meta, type: 'task.remove', taskId: 'a/b' }, '/taskId'],
    ['a slot beyond the limit', { v: 1, ...commands[13], slot: 500 }, '/slot'],
    [
      'a wrong spec',
      { v: 1, ...meta, type: 'task.update', taskId: 't', spec: { ...taskSpec(), replicas: 501 } },
      '/spec/replicas',
    ],
    ['not an object', 'x', 'unknown command'],
    ['a key named like a prototype', { v: 1, ...meta, type: 'constructor' }, 'unknown command'],
  ])('with %s are refused', (_name, value, message) => {
    const r = decodeCommand(encodeCbor(value));
    expect(r.ok ? '' : r.error).toContain(message);
  });
  it('over the limit are refused unread', () =>
    expect(decodeCommand(new Uint8Array(LIMITS.gossipFrameBytes + 1))).toMatchObject({
      ok: false,
      error: expect.stringContaining('more than'),
    }));
  it('with long words for people are cut, not lost', () => {
    const r = decodeCommand(
      encodeCommand({ ...meta, type: 'slot.end', ...key, outcome: 'failed', exitCode: 1, error: 'x'.repeat(100_000) }),
    );
    expect(r.ok && r.command.type === 'slot.end' && r.command.error.length).toBe(8192);
  });
  it('with undefined fields and times that are not whole are made sound', () => {
    const r = decodeCommand(
      encodeCommand({
        ...meta,
        at: wallMs(1.5),
        type: 'peer.update',
        nodeId: n1,
        patch: { name: undefined, priority: 3 },
      } as unknown as Command),
    );
    expect(r).toEqual({
      ok: true,
      command: { ...meta, at: 1, type: 'peer.update', nodeId: n1, patch: { priority: 3 } },
    });
  });
});

const copy = {
  taskId: taskId('t1'),
  slot: 1,
  generation: { ...generation, provisional: { caretaker: n1, n: 2 } },
  state: 'running',
  health: 'none',
  startedAt: 5,
  exitCode: null,
  restarts: 0,
  error: '',
  handle: 'pid:1',
  ports: [{ container: 80, host: 8080, protocol: 'tcp' }],
};
const head = {
  nodeId: n1,
  incarnation: 3,
  version: 9,
  name: 'node1',
  addresses: [],
  bootProbe: ['1.1.1.1:1'],
  agentVersion: '0.1.0',
  wireVersion: 1,
  os: 'linux',
  arch: 'x64',
  runtimes: ['docker'],
  problems: [],
  canFence: true,
  resources: { cpus: 2, memoryBytes: 1e9, diskBytes: 1e12, gpus: [{ name: 'g', memoryBytes: 1 }], devices: [] },
  load: {
    cpuUsage: 0.25,
    cpuFrequencyMHz: null,
    memoryUsedBytes: 5,
    diskUsedBytes: 5.5,
    temperatureC: -3.5,
    battery: { percent: 50, charging: false },
    fansRpm: [1200],
    gpus: [{ usage: null, memoryUsedBytes: null, temperatureC: null }],
  },
  labels: { a: 'b' },
  priority: 0,
  witness: false,
  images: ['busybox:latest'],
};
const update = { id: n1, status: 'agent-down', incarnation: 2, accusers: [n1] };
const membership = { voters: [n1], outgoing: null };
const entries = [
  { index: 1, term: 1, payload: { kind: 'noop' } },
  { index: 2, term: 1, payload: { kind: 'command', bytes: new Uint8Array([1, 2]) } },
  { index: 3, term: 1, payload: { kind: 'membership', membership: { voters: [n1], outgoing: [n1] } } },
];

const messages: readonly (readonly [Channel, object])[] = [
  ['membership', { type: 'ping', seq: 1, incarnation: 2, updates: [update] }],
  ['membership', { type: 'ack', seq: 1, incarnation: 2, updates: [] }],
  ['membership', { type: 'ping-req', seq: 1, target: n1 }],
  ['membership', { type: 'ping-req-ack', seq: 1, target: n1, agent: false, boot: true }],
  ['membership', { type: 'updates', updates: [update] }],
  ['membership', { type: 'push-pull', reply: true, updates: [update] }],
  ['raft', { type: 'vote-request', term: 2, preVote: true, transfer: false, lastIndex: 5, lastTerm: 1, rank: 0.5 }],
  ['raft', { type: 'vote-reply', term: 2, preVote: true, granted: false }],
  ['raft', { type: 'append', term: 2, prevIndex: 0, prevTerm: 0, entries, commit: 1, round: 3, learner: false }],
  ['raft', { type: 'append-reply', term: 2, ok: false, index: 1, hintTerm: 1, round: 3, applied: 1, mayVote: true }],
  ['raft', { type: 'snapshot-offer', term: 2, index: 9, lastTerm: 2, membership }],
  ['raft', { type: 'timeout-now', term: 2 }],
  ['raft', { type: 'read-request', id: 4 }],
  ['raft', { type: 'read-reply', id: 4, index: 9, ok: true }],
  ['lease', { type: 'lease-renew', seq: 1, leases: [key], released: [] }],
  ['lease', { type: 'lease-ack', seq: 1, acked: [key], refused: [key] }],
  ['facts', { type: 'facts-full', facts: { ...head, copies: [copy] } }],
  [
    'facts',
    {
      type: 'facts-delta',
      delta: {
        nodeId: n1,
        incarnation: 1,
        base: 1,
        version: 2,
        head,
        changedCopies: [copy],
        removedCopies: ['t.0.1.1'],
      },
    },
  ],
  [
    'facts',
    {
      type: 'facts-delta',
      delta: { nodeId: n1, incarnation: 1, base: 1, version: 2, head: null, changedCopies: [], removedCopies: [] },
    },
  ],
  ['facts', { type: 'facts-digest', digest: [[n1, 1, 2]], reply: false }],
  ['facts', { type: 'facts-want', nodes: [n1] }],
  ['control', { type: 'submission', submission }],
  ['control', { type: 'submission-verdict', id: 't1', verdict: 'busy', index: 0, reason: '' }],
  ...commands.map((command) => ['control', { type: 'propose', requestId: 1, command }] as const),
  [
    'control',
    {
      type: 'propose-result',
      requestId: 1,
      ok: true,
      index: 3,
      result: { ok: false, code: 'stale', reason: 'r' },
      reason: '',
    },
  ],
  ['control', { type: 'propose-result', requestId: 1, ok: true, index: 3, result: { ok: true }, reason: '' }],
  ['control', { type: 'propose-result', requestId: 1, ok: false, index: 3, result: null, reason: 'busy' }],
];

describe('messages', () => {
  it.each(messages.map(([channel, message]) => [channel, (message as { type: string }).type, message] as const))(
    '%s %s comes back as it went',
    (channel, _type, message) => {
      expect(decodeMessage(channel, encodeMessage(channel, message))).toEqual({
        ok: true,
        value: { channel, message },
      });
    },
  );
  it('are refused on another channel, with another version, or when a field is added or taken away', () => {
    for (const [channel, message] of messages) {
      for (const other of WIRE_CHANNELS)
        if (other !== channel) expect(decodeMessage(other, encodeMessage(channel, message)).ok).toBe(false);
      expect(decodeMessage(channel, encodeCbor([WIRE_VERSION + 1, message]))).toMatchObject({
        ok: false,
        error: expect.stringContaining('wire version'),
      });
      expect(decodeMessage(channel, encodeMessage(channel, { ...message, extra: 1 })).ok).toBe(false);
      for (const field of Object.keys(message)) {
        const { [field]: _gone, ...rest } = message as Record<string, unknown>;
        expect(decodeMessage(channel, encodeMessage(channel, rest)).ok).toBe(false);
      }
    }
  });
  it('of any bytes never throw', () => {
    const broken = fc
      .tuple(fc.constantFrom(...messages), fc.nat(), fc.integer({ min: 0, max: 255 }))
      .map(([[channel, message], at, byte]) => {
        const bytes = encodeMessage(channel, message).slice();
        bytes[at % bytes.length] = byte;
        return [channel, bytes] as const;
      });
    const noise = fc.tuple(fc.constantFrom(...WIRE_CHANNELS), fc.uint8Array({ maxLength: 64 }));
    fc.assert(
      fc.property(fc.oneof(broken, noise), ([channel, bytes]) => {
        const r = decodeMessage(channel, bytes);
        // What is taken is sound: it goes out again and comes back the same.
        if (r.ok) expect(decodeMessage(channel, encodeMessage(channel, r.value.message))).toEqual(r);
        for (const topic of WIRE_TOPICS) decodeGossip(topic, bytes);
        decodeCommand(bytes);
      }),
      { numRuns: 1500 },
    );
  });
  it('over the limit of a frame are refused unread', () =>
    expect(decodeMessage('raft', new Uint8Array(LIMITS.rpcFrameBytes + 1)).ok).toBe(false));
  it('do not take numbers that are none', () => {
    const r = decodeMessage(
      'facts',
      encodeMessage('facts', {
        type: 'facts-full',
        facts: { ...head, load: { ...head.load, cpuUsage: Number.NaN }, copies: [] },
      }),
    );
    expect(r).toMatchObject({ ok: true, value: { message: { facts: { load: { cpuUsage: 0 } } } } });
  });
  it('cannot set a prototype', () => {
    const labels = JSON.parse('{"__proto__": "x"}') as Record<string, string>;
    const r = decodeMessage(
      'facts',
      encodeMessage('facts', { type: 'facts-full', facts: { ...head, labels, copies: [] } }),
    );
    if (r.ok)
      expect(Object.getPrototypeOf((r.value.message as unknown as { facts: { labels: object } }).facts.labels)).toBe(
        Object.prototype,
      );
  });
});

it.each([
  ['tasks', submission],
  ['members', { type: 'updates', updates: [update] }],
  [
    'members',
    {
      type: 'facts-delta',
      delta: { nodeId: n1, incarnation: 1, base: 1, version: 2, head, changedCopies: [copy], removedCopies: [] },
    },
  ],
  ['log', { prevIndex: 0, prevTerm: 0, entries, commit: 3 }],
] as const)('gossip on %s comes back as it went', (topic, message) => {
  expect(decodeGossip(topic, encodeGossip({ topic, message }))).toEqual({ ok: true, value: { topic, message } });
  for (const other of WIRE_TOPICS)
    if (other !== topic) expect(decodeGossip(other, encodeGossip({ topic, message })).ok).toBe(false);
});

it('cbor is canonical and bounded', () => {
  expect(encodeCbor({ b: 1, a: undefined, c: [Number.NaN, undefined] })).toEqual(encodeCbor({ c: [0, null], b: 1 }));
  expect(decodeCbor(new Uint8Array(5), 4)).toMatchObject({ ok: false });
});

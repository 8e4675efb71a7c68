import type { RaftMessage } from '../core/consensus/types.ts';
import type { LeaseMessage } from '../core/lease/types.ts';
import type { MembershipMessage } from '../core/membership/types.ts';
import type { CommittedEntries, HostFacts } from '../core/peer/types.ts';
import { encodeCommand } from '../model/command-codec.ts';
import type { Command } from '../model/commands.ts';
import type { CopyFact, NodeFacts } from '../model/facts.ts';
import { clusterId, incarnation, logIndex, nodeId, taskId, term, wallMs } from '../model/ids.ts';
import type { ControlMessage, FactsMessage } from '../model/peer-messages.ts';
import type { PeerRecord, Submission } from '../model/records.ts';
import { parseTaskDocument } from '../model/task-document.ts';
import type { TaskSpec } from '../model/task-spec.ts';

// One sound value of every kind that peers send or keep: where mutations start from. Names fit the simulated machines, so that
// a real peer takes what is made of them for a neighbour's word.

export const NODES = [0, 1, 2].map((i) => nodeId(`12D3Sim00${i}`));
const [N0, N1, N2] = NODES as [PeerRecord['nodeId'], PeerRecord['nodeId'], PeerRecord['nodeId']];
const AT = wallMs(1_700_000_000_000);
export const GENERATION = { epoch: 1, g: 7 };
export const PROVISIONAL = { epoch: 1, g: 7, provisional: { caretaker: N1, n: 2 } };
const TASK = taskId('t-web');

/** Every field of the task document is in use. */
export const DOCUMENTS: readonly Readonly<Record<string, unknown>>[] = [
  {
    name: 'web',
    image: 'nginx:1.27',
    command: ['nginx', '-g', 'daemon off;'],
    args: '--verbose "two words"',
    env: { LANG: 'C.UTF-8', PORT: 80 },
    workdir: '/srv',
    user: '1000:1000',
    cpus: 1.5,
    memory: '256m',
    gpus: 1,
    devices: ['fpga'],
    ports: ['8080:80', { container: 53, host: 5353, protocol: 'udp' }, 9000],
    volumes: ['data:/var/lib/data', { name: 'conf', path: '/etc/conf', readOnly: true }],
    replicas: 3,
    restart: { policy: 'on-failure', maxAttempts: 5, backoff: '200ms', backoffCap: '1m' },
    stopSignal: 'SIGTERM',
    stopGrace: '10s',
    healthCheck: { http: { port: 80, path: '/health' }, interval: '5s', timeout: '1s', retries: 3, startPeriod: '10s' },
    onPartition: 'stop',
    onNodeLoss: 'wait',
    constraints: ['node.labels.zone==eu', 'node.name!=node3'],
    priority: 10,
    labels: { team: 'a', 'app.kubernetes.io/name': 'web' },
  },
  { name: 'tick', command: 'sh -c "while :; do date; sleep 1; done"', env: ['A=1', 'B='], restart: 'on-failure:3' },
  { name: 'one', runtime: 'process', command: ['true'], restart: false, healthCheck: { tcp: 80 }, memory: 0 },
];

export function specs(): TaskSpec[] {
  return DOCUMENTS.flatMap((document) => {
    const parsed = parseTaskDocument(document);
    return parsed.ok ? [parsed.spec] : [];
  });
}

export const submission = (spec: TaskSpec): Submission => ({
  id: taskId(`t-${spec.name}`),
  spec,
  nonce: 'bm9uY2U',
  expiresAt: wallMs(AT + 86_400_000),
  from: N1,
});

const peer = (id: PeerRecord['nodeId'], name: string): Omit<PeerRecord, 'admittedAt'> => ({
  nodeId: id,
  name,
  addresses: ['/ip4/10.0.0.1/tcp/7420', '/sim/1'],
  labels: { zone: 'attic' },
  priority: 10,
  witness: false,
  availability: 'active',
});

export function commands(): Command[] {
  const by = N0;
  const meta = { by, at: AT };
  const slot = { taskId: TASK, slot: 0, generation: GENERATION, reason: 'best of 2 machines that fit' };
  const evidence = ['2 of 2 machines fit', 'node2 silent for 900 ms'];
  const spec = specs()[0] as TaskSpec;
  return [
    {
      ...meta,
      type: 'cluster.init',
      cluster: { clusterId: clusterId('c1'), epoch: 1, epochId: 'e1', name: 'home' },
      founder: peer(N0, 'node1'),
    },
    { ...meta, type: 'cluster.recover', epoch: 2, epochId: 'e2', voters: [N0, N1, N2], dead: [N2] },
    { ...meta, type: 'cluster.account', nodes: [N1], how: 'of this epoch' },
    { ...meta, type: 'peer.admit', peer: peer(N1, 'node2'), invitationId: 'inv-1' },
    { ...meta, type: 'peer.admit', peer: peer(N2, 'node3'), invitationId: null },
    {
      ...meta,
      type: 'peer.update',
      nodeId: N1,
      patch: { name: 'attic', labels: { zone: 'a' }, addresses: [], priority: 5, availability: 'drain' },
    },
    { ...meta, type: 'peer.remove', nodeId: N2 },
    {
      ...meta,
      type: 'invitation.add',
      invitation: { id: 'inv-1', key: 'A'.repeat(43), expiresAt: AT, usesLeft: 1 },
    },
    { ...meta, type: 'invitation.remove', id: 'inv-1' },
    { ...meta, type: 'task.submit', submission: submission(spec) },
    { ...meta, type: 'task.refuse', id: TASK, reason: 'the name is in use', expiresAt: AT },
    { ...meta, type: 'task.update', taskId: TASK, spec: { ...spec, replicas: 1 } },
    { ...meta, type: 'task.desire', taskId: TASK, desired: 'stopped', restart: false },
    { ...meta, type: 'task.remove', taskId: TASK },
    { ...meta, type: 'slot.assign', ...slot, node: N1, evidence },
    { ...meta, type: 'slot.assign', ...slot, node: N1, adopts: PROVISIONAL, evidence },
    { ...meta, type: 'slot.drop', ...slot, generation: PROVISIONAL, evidence },
    { ...meta, type: 'slot.close', ...slot, evidence },
    { ...meta, type: 'slot.release', ...slot },
    {
      ...meta,
      type: 'slot.end',
      taskId: TASK,
      slot: 0,
      generation: GENERATION,
      outcome: 'failed',
      exitCode: 137,
      error: 'killed',
    },
    { ...meta, type: 'setting.set', key: 'user.colour', value: 'green' },
  ];
}

export const copyFact: CopyFact = {
  taskId: TASK,
  slot: 0,
  generation: GENERATION,
  state: 'running',
  health: 'healthy',
  startedAt: AT,
  exitCode: null,
  restarts: 1,
  error: '',
  handle: 'pid:4711',
  ports: [{ container: 80, host: 8080, protocol: 'tcp' }],
};

export const hostFacts: HostFacts = {
  name: 'node2',
  addresses: ['/ip4/10.0.0.2/tcp/7420'],
  bootProbe: ['10.0.0.2:7421', '[fe80::1]:7421'],
  agentVersion: '0.1.0',
  wireVersion: 1,
  os: 'linux',
  arch: 'x64',
  runtimes: ['docker', 'process'],
  problems: ['no GPU found'],
  canFence: true,
  labels: { zone: 'attic' },
  priority: 0,
  witness: false,
  images: ['nginx:1.27'],
  resources: {
    cpus: 8,
    memoryBytes: 2 ** 34,
    diskBytes: 2 ** 40,
    gpus: [{ name: 'A2000', memoryBytes: 2 ** 33 }],
    devices: ['fpga'],
  },
  load: {
    cpuUsage: 0.25,
    cpuFrequencyMHz: 3200,
    memoryUsedBytes: 2 ** 30,
    diskUsedBytes: 2 ** 39,
    temperatureC: 51.5,
    battery: { percent: 80, charging: true },
    fansRpm: [900],
    gpus: [{ usage: 0.5, memoryUsedBytes: 1, temperatureC: null }],
  },
};

export const nodeFacts: NodeFacts = {
  nodeId: N1,
  incarnation: incarnation(3),
  version: 12,
  ...hostFacts,
  copies: [copyFact, { ...copyFact, slot: 1, generation: PROVISIONAL, state: 'backoff', exitCode: 1 }],
};

const { copies: _copies, ...factsHead } = nodeFacts;

const updates = [
  { id: N1, status: 'alive' as const, incarnation: incarnation(3), accusers: [] },
  { id: N2, status: 'suspect' as const, incarnation: incarnation(2), accusers: [N0, N1] },
  { id: N0, status: 'dead' as const, incarnation: incarnation(1), accusers: [N2] },
];

export function membershipMessages(): MembershipMessage[] {
  return [
    { type: 'ping', seq: 9, incarnation: incarnation(3), updates },
    { type: 'ack', seq: 9, incarnation: incarnation(3), updates: [] },
    { type: 'ping-req', seq: 10, target: N2 },
    { type: 'ping-req-ack', seq: 10, target: N2, agent: false, boot: true },
    { type: 'updates', updates },
    { type: 'push-pull', reply: true, updates },
  ];
}

const entries = (): CommittedEntries['entries'] => [
  { index: logIndex(8), term: term(2), payload: { kind: 'noop' } },
  {
    index: logIndex(9),
    term: term(2),
    payload: { kind: 'command', bytes: encodeCommand(commands()[12] as Command) },
  },
  {
    index: logIndex(10),
    term: term(2),
    payload: { kind: 'membership', membership: { voters: [N0, N1, N2], outgoing: [N0] } },
  },
];

export const committed = (): CommittedEntries => ({
  prevIndex: logIndex(7),
  prevTerm: term(2),
  entries: entries(),
  commit: logIndex(10),
});

export function raftMessages(): RaftMessage[] {
  const t = term(2);
  return [
    {
      type: 'vote-request',
      term: term(3),
      preVote: true,
      transfer: false,
      lastIndex: logIndex(10),
      lastTerm: t,
      rank: 0.5,
    },
    {
      type: 'vote-request',
      term: term(3),
      preVote: false,
      transfer: true,
      lastIndex: logIndex(10),
      lastTerm: t,
      rank: 0.5,
    },
    { type: 'vote-reply', term: term(3), preVote: false, granted: true },
    {
      type: 'append',
      term: t,
      prevIndex: logIndex(7),
      prevTerm: t,
      entries: entries(),
      commit: logIndex(9),
      round: 4,
      learner: false,
    },
    {
      type: 'append',
      term: t,
      prevIndex: logIndex(10),
      prevTerm: t,
      entries: [],
      commit: logIndex(10),
      round: 5,
      learner: true,
    },
    {
      type: 'append-reply',
      term: t,
      ok: true,
      index: logIndex(10),
      hintTerm: t,
      round: 5,
      applied: logIndex(9),
      mayVote: true,
    },
    {
      type: 'append-reply',
      term: t,
      ok: false,
      index: logIndex(3),
      hintTerm: t,
      round: 5,
      applied: logIndex(3),
      mayVote: false,
    },
    {
      type: 'snapshot-offer',
      term: t,
      index: logIndex(50),
      lastTerm: t,
      membership: { voters: [N0, N1], outgoing: null },
    },
    { type: 'timeout-now', term: t },
    { type: 'read-request', id: 5 },
    { type: 'read-reply', id: 5, index: logIndex(9), ok: true },
  ];
}

const lease = { taskId: TASK, slot: 0, generation: GENERATION };

export function leaseMessages(): LeaseMessage[] {
  return [
    { type: 'lease-renew', seq: 4, leases: [lease, { ...lease, slot: 1 }], released: [{ ...lease, slot: 2 }] },
    { type: 'lease-ack', seq: 4, acked: [lease], refused: [{ ...lease, slot: 1 }] },
  ];
}

export function factsMessages(): FactsMessage[] {
  const delta = { nodeId: N1, incarnation: incarnation(3), base: 11, version: 12 };
  return [
    { type: 'facts-full', facts: nodeFacts },
    { type: 'facts-delta', delta: { ...delta, head: factsHead, changedCopies: [], removedCopies: [] } },
    { type: 'facts-delta', delta: { ...delta, head: null, changedCopies: [copyFact], removedCopies: ['t-web.1.1.7'] } },
    {
      type: 'facts-digest',
      digest: [
        [N1, incarnation(3), 12],
        [N2, incarnation(1), 0],
      ],
      reply: true,
    },
    { type: 'facts-want', nodes: [N1, N2] },
  ];
}

export function controlMessages(): ControlMessage[] {
  return [
    { type: 'caretaker-bid', term: term(2), index: logIndex(10), rank: 0.5 },
    {
      type: 'caretaker-orders',
      starts: [{ taskId: TASK, slot: 0, generation: PROVISIONAL, reason: 'its machine is out of reach' }],
      drops: [{ taskId: TASK, slot: 1, generation: PROVISIONAL }],
    },
    { type: 'submission', submission: submission(specs()[1] as TaskSpec) },
    { type: 'submission-verdict', id: TASK, verdict: 'refused', index: logIndex(9), reason: 'the name is in use' },
    ...commands().map((command, i): ControlMessage => ({ type: 'propose', requestId: i, command })),
    { type: 'propose-result', requestId: 3, ok: true, index: logIndex(9), result: { ok: true }, reason: '' },
    {
      type: 'propose-result',
      requestId: 3,
      ok: true,
      index: logIndex(9),
      result: { ok: false, code: 'stale', reason: 'an older generation' },
      reason: '',
    },
  ];
}

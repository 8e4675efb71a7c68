import { EventEmitter } from 'node:events';
import { IpcBootLink } from '../../adapters/boot-probe/ipc-boot-link.ts';
import {
  decodeRequest,
  encodeReply,
  encodeRequest,
  openReply,
  verifyRequest,
} from '../../adapters/boot-probe/packet.ts';
import { parseRecord } from '../../adapters/process/copy-record.ts';
import { parseAgentMessage } from '../../boot/agent-messages.ts';
import { guardFile } from '../../boot/guard.ts';
import { parseRegistry } from '../../boot/registry.ts';
import type { CopyId } from '../../core/reconcile/types.ts';
import { BOOT_PROTOCOL_VERSION } from '../../model/boot-protocol.ts';
import { bytesOf, FuzzFailure, type FuzzTarget, LIMIT_MS, textOf } from '../target.ts';

// Boot and what stands around it: probes from the network, words of the agent and to it, the lease registry, copy records.

const NAMES = { clusterId: 'c1', prober: '12D3Sim001', target: '12D3Sim000' };
const KEY = Buffer.alloc(32, 9);
const NONCE = new Uint8Array(16).fill(4);

const probe: FuzzTarget = {
  name: 'boot-probe',
  grammar: 'bytes',
  seeds: [Uint8Array.from(encodeRequest(KEY, NAMES, NONCE)), Uint8Array.from(encodeReply(KEY, NAMES, NONCE, 1))],
  weight: 5,
  maxBytes: 1500,
  limitMs: LIMIT_MS,
  decode: (bytes) => {
    const packet = Buffer.from(bytes);
    const request = decodeRequest(packet);
    if (request !== undefined)
      return verifyRequest(KEY, NAMES.clusterId, NAMES.target, request) ? 'accepted' : 'refused';
    return openReply(KEY, NAMES, packet) === undefined ? 'refused' : 'accepted';
  },
};

const COPIES = ['t-web.0.1.7.1', 't-web.1.1.7~2@12D3Sim001.1'];
const TARGETS = [
  { type: 'cgroup', paths: ['/sys/fs/cgroup/pids/task-org/a', '/sys/fs/cgroup/freezer/task-org/a'] },
  { type: 'process-group', pgid: 4711, startTicks: 123_456 },
];

const json = (bytes: Uint8Array): unknown => {
  try {
    return JSON.parse(textOf(bytes));
  } catch {
    return undefined;
  }
};

const agentWords: FuzzTarget = {
  name: 'boot-from-agent',
  grammar: 'json',
  seeds: [
    { type: 'attach', stopAllowanceMs: 1000 },
    { type: 'identity', clusterId: 'c1', nodeId: '12D3Sim000', keys: [KEY.toString('base64')] },
    { type: 'register', seq: 1, copyId: COPIES[0], exclusive: true, targets: TARGETS, deadlineMs: null },
    {
      type: 'deadline',
      deadlines: [
        [COPIES[0], 5000],
        [COPIES[1], null],
      ],
    },
    { type: 'forget', copyIds: COPIES },
  ].map((m) => bytesOf(JSON.stringify(m))),
  weight: 6,
  maxBytes: 64 * 1024,
  limitMs: LIMIT_MS,
  decode: (bytes) => {
    const message = parseAgentMessage(json(bytes));
    if (message === undefined) return 'refused';
    if (message.type === 'register') linesOf([{ targets: message.targets, killAtMs: message.deadlineMs ?? 0 }]);
    return 'accepted';
  },
};

/** The guard's file holds what the shell script can read: whole numbers, and one path a line. */
function linesOf(copies: Parameters<typeof guardFile>[0], stopAllowanceMs = 1000): void {
  const [head = '', ...lines] = guardFile(copies, stopAllowanceMs).trimEnd().split('\n');
  if (!/^\d+ \d+ \d+\.\d\d$/.test(head)) throw new FuzzFailure(`the guard cannot read '${head}'`);
  for (const line of lines)
    if (!/^\d+ (p \d+ \d+|c \/.*)$/.test(line)) throw new FuzzFailure(`the guard cannot read '${line}'`);
}

const registry: FuzzTarget = {
  name: 'boot-registry',
  grammar: 'json',
  seeds: [
    {
      bootId: 'b',
      stopAllowanceMs: 1000,
      copies: COPIES.map((copyId, i) => ({
        copyId,
        exclusive: i === 0,
        targets: TARGETS,
        deadlineMs: 5000,
        registeredAtMs: 1,
        killedAtMs: null,
        condemned: false,
      })),
    },
    { bootId: 'b', stopAllowanceMs: 0, copies: [] },
  ].map((m) => bytesOf(JSON.stringify(m))),
  weight: 5,
  maxBytes: 64 * 1024,
  limitMs: LIMIT_MS,
  decode: (bytes) => {
    const stored = parseRegistry(textOf(bytes));
    if (stored === undefined) return 'refused';
    linesOf(
      stored.copies.map((c) => ({ targets: c.targets, killAtMs: c.deadlineMs ?? c.registeredAtMs })),
      stored.stopAllowanceMs,
    );
    return 'accepted';
  },
};

class Channel extends EventEmitter {
  readonly connected = true;
  send(): boolean {
    return true;
  }
}

const HELLO = {
  type: 'hello',
  version: BOOT_PROTOCOL_VERSION,
  bootId: 'b',
  bootPid: 2,
  agentRestarts: 0,
  probePort: 7421,
  selfTest: { ok: true, problems: [], processGroup: true, cgroup: true },
  registry: [{ copyId: COPIES[0], exclusive: true, targets: TARGETS, deadlineMs: 9000, killedAtMs: null }],
};

/** Boot's answers, as the agent hears them once it is attached. */
const bootWords: FuzzTarget = {
  name: 'agent-from-boot',
  grammar: 'json',
  seeds: [
    HELLO,
    { type: 'registered', seq: 1, error: null },
    { type: 'registered', seq: 1, error: 'full' },
    { type: 'killed', copyId: COPIES[0], atMs: 5 },
  ].map((m) => bytesOf(JSON.stringify(m))),
  weight: 2,
  maxBytes: 64 * 1024,
  limitMs: LIMIT_MS,
  decode: async (bytes) => {
    const message = json(bytes);
    if (message === undefined) return 'refused';
    const channel = new Channel();
    const attaching = IpcBootLink.attach({ stopAllowanceMs: 1000 }, channel);
    attaching.catch(() => {});
    channel.emit('message', message);
    channel.emit('message', HELLO);
    const link = await attaching;
    const taken = link?.register(COPIES[1] as CopyId, false, []);
    taken?.catch(() => {});
    channel.emit('message', message);
    channel.emit('disconnect');
    await taken;
    return 'accepted';
  },
};

const copyRecord: FuzzTarget = {
  name: 'copy-record',
  grammar: 'json',
  seeds: [
    {
      version: 1,
      copyId: COPIES[0],
      memoryBytes: 2 ** 28,
      pid: 4711,
      startTicks: 123_456,
      bootId: 'b',
      startedAt: 1_700_000_000_000,
      ports: [{ container: 80, host: 8080, protocol: 'tcp' }],
      env: { LANG: 'C' },
      cwd: '/srv',
      uid: 1000,
      gid: null,
      cgroupDirs: ['/sys/fs/cgroup/a'],
      killPaths: ['/sys/fs/cgroup/a'],
      pins: '0-1',
    },
  ].map((m) => bytesOf(JSON.stringify(m))),
  weight: 4,
  maxBytes: 64 * 1024,
  limitMs: LIMIT_MS,
  refusal: (error) => error instanceof SyntaxError,
  decode: (bytes) => (parseRecord(textOf(bytes)) === undefined ? 'refused' : 'accepted'),
};

export const bootTargets = (): FuzzTarget[] => [probe, agentWords, registry, bootWords, copyRecord];

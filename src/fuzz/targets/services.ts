import { encode } from '@ipld/dag-cbor';
import type { Peer } from '../../core/peer/peer.ts';
import type { TaskId } from '../../model/ids.ts';
import { LIMITS } from '../../model/limits.ts';
import type { ByteStream, Transport } from '../../ports/transport.ts';
import { createPeerViews } from '../../services/remote/peer-views.ts';
import { createRemoteCopies, METHOD_EXEC, METHOD_LOGS } from '../../services/remote/remote-copies.ts';
import { createWaitingTasks } from '../../services/remote/waiting.ts';
import { NODES } from '../samples.ts';
import { FuzzFailure, type FuzzTarget, LIMIT_MS, type Verdict } from '../target.ts';

// Questions that peers ask each other, and their answers: a peer's odd answer must not spoil what the others said.

/** A transport with one neighbour that answers everything with these bytes. */
const answering = (bytes: Uint8Array): Transport =>
  ({ connected: () => [NODES[1]], request: async () => bytes }) as unknown as Transport;

const peer = {
  self: NODES[0],
  leader: () => NODES[1],
  members: () => new Map(),
  waiting: () => new Map(),
  copies: () => [],
} as unknown as Peer;

const noRuntime = { runtime: () => undefined } as never;

const answers: FuzzTarget = {
  name: 'peer-answers',
  grammar: 'cbor',
  seeds: [
    encode({ [NODES[0] as string]: 'alive', [NODES[2] as string]: 'dead' }),
    encode([
      {
        id: 't-web',
        reason: 'no machine fits',
        slots: [0],
        rejections: [{ node: NODES[1], filter: 'cpu', reason: 'too small' }],
      },
    ]),
    encode([
      {
        copyId: 't-web.0.1.7.1',
        cpuCores: 0.5,
        memoryBytes: 1,
        memoryLimitBytes: null,
        networkRxBytes: 1,
        networkTxBytes: 1,
        diskReadBytes: 1,
        diskWriteBytes: 1,
        pids: 1,
      },
    ]),
  ],
  weight: 4,
  maxBytes: LIMITS.rpcFrameBytes,
  limitMs: LIMIT_MS,
  decode: async (bytes): Promise<Verdict> => {
    const transport = answering(bytes);
    const views = await createPeerViews({ peer, transport }).ask();
    if (!views.has(NODES[0] as never)) throw new FuzzFailure('its own view is lost');
    const waiting = await createWaitingTasks({ peer, transport }).ask('t-web' as TaskId);
    const remote = createRemoteCopies({ peer, transport, runtimes: () => noRuntime });
    const stats = await remote.stats(new AbortController().signal);
    for (const { rows } of stats)
      for (const row of rows) if (typeof row.copyId !== 'string') throw new FuzzFailure('a row without a copy');
    return views.size > 1 || waiting.size > 0 ? 'accepted' : 'refused';
  },
};

const questions: FuzzTarget = {
  name: 'peer-questions',
  grammar: 'cbor',
  seeds: [
    encode({ task: 't-web' }),
    encode({ task: null }),
    encode({ copyId: 't-web.0.1.7.1', runtime: 'process', options: { follow: false, tail: 10, timestamps: true } }),
    encode({
      copyId: 't-web.0.1.7.1',
      runtime: 'docker',
      options: {
        command: ['sh'],
        env: { A: '1' },
        tty: true,
        interactive: true,
        user: '',
        workdir: '',
        size: { columns: 80, rows: 24 },
      },
    }),
  ],
  weight: 4,
  maxBytes: LIMITS.rpcFrameBytes,
  limitMs: LIMIT_MS,
  decode: async (bytes): Promise<Verdict> => {
    const transport = answering(new Uint8Array(0));
    const written: number[] = [];
    const stream = {
      source: [],
      write: async () => void written.push(1),
      end: async () => {},
      abort: () => {},
    } as unknown as ByteStream;
    const signal = new AbortController().signal;
    const remote = createRemoteCopies({ peer, transport, runtimes: () => noRuntime });
    await remote.onStream(METHOD_LOGS, bytes, stream, signal);
    createWaitingTasks({ peer, transport }).serve(bytes);
    await remote.onStream(METHOD_EXEC, bytes, stream, signal);
    return 'accepted';
  },
};

export const serviceTargets = (): FuzzTarget[] => [answers, questions];

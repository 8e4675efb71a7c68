import { apply, createState } from '../../../src/core/state/state.ts';
import type { Applied, ClusterState } from '../../../src/core/state/types.ts';
import type { Command, CommandMeta } from '../../../src/model/commands.ts';
import { clusterId, logIndex, nodeId, type TaskId, taskId, wallMs } from '../../../src/model/ids.ts';
import type { PeerRecord } from '../../../src/model/records.ts';
import type { TaskSpec } from '../../../src/model/task-spec.ts';
import { taskSpec } from '../../model/fixtures.ts';

export const HOUR = 3_600_000;
export const START = 1_700_000_000_000;

type DistributiveOmit<T, K extends PropertyKey> = T extends unknown ? Omit<T, K> : never;
/** A command without its proposer and time. */
export type Draft = DistributiveOmit<Command, keyof CommandMeta>;

export const peer = (id: string, fields: Partial<PeerRecord> = {}): Omit<PeerRecord, 'admittedAt'> => ({
  nodeId: nodeId(id),
  name: id,
  addresses: [`/ip4/10.0.0.1/tcp/1/${id}`],
  labels: {},
  priority: 0,
  witness: false,
  availability: 'active',
  ...fields,
});

export const init: Draft = {
  type: 'cluster.init',
  cluster: { clusterId: clusterId('c1'), epoch: 1, epochId: 'e1', name: 'home' },
  founder: peer('n1'),
};
export const admit = (id: string, invitationId: string | null = null): Draft => ({
  type: 'peer.admit',
  peer: peer(id),
  invitationId,
});
export const submit = (id: string, spec: Partial<TaskSpec> = {}, expiresAt = START + 24 * HOUR): Draft => ({
  type: 'task.submit',
  submission: {
    id: taskId(id),
    spec: taskSpec({ name: id, ...spec }),
    nonce: 'n',
    expiresAt: wallMs(expiresAt),
    from: nodeId('n1'),
  },
});
export const assign = (id: string, slot: number, g: number, node: string, epoch = 1): Draft => ({
  type: 'slot.assign',
  taskId: taskId(id),
  slot,
  generation: { epoch, g },
  node: nodeId(node),
  reason: 'best of 2 machines that fit',
  evidence: ['2 of 2 machines fit'],
});
export const close = (id: string, slot: number, g: number): Draft => ({
  type: 'slot.close',
  taskId: taskId(id),
  slot,
  generation: { epoch: 1, g },
  reason: 'its machine is dead',
  evidence: [],
});
export const release = (id: string, slot: number, g: number): Draft => ({
  type: 'slot.release',
  taskId: taskId(id),
  slot,
  generation: { epoch: 1, g },
  reason: 'lease ran out',
});
export const end = (id: string, slot: number, g: number, outcome: 'finished' | 'failed' = 'finished'): Draft => ({
  type: 'slot.end',
  taskId: taskId(id),
  slot,
  generation: { epoch: 1, g },
  outcome,
  exitCode: outcome === 'finished' ? 0 : 1,
  error: '',
});
export const remove = (id: string): Draft => ({ type: 'task.remove', taskId: taskId(id) });
export const update = (id: string, spec: Partial<TaskSpec>): Draft => ({
  type: 'task.update',
  taskId: taskId(id),
  spec: taskSpec({ name: id, ...spec }),
});
export const desire = (id: string, desired: 'running' | 'stopped', restart = false): Draft => ({
  type: 'task.desire',
  taskId: taskId(id),
  desired,
  restart,
});

/** A state machine with a log position and a clock, for tests that tell a story. */
export function story(...drafts: readonly Draft[]) {
  const state: ClusterState = createState();
  let index = 0;
  let at = START;
  const run = (draft: Draft): Applied => {
    index += 1;
    return apply(state, logIndex(index), { ...draft, by: nodeId('n1'), at: wallMs(at) } as Command);
  };
  for (const draft of drafts) run(draft);
  return {
    state,
    run,
    later: (ms: number) => {
      at += ms;
    },
    task: (id: string) => {
      const record = state.tasks.get(id as TaskId);
      if (record === undefined) throw new Error(`no task ${id}`);
      return record;
    },
    index: () => index,
  };
}

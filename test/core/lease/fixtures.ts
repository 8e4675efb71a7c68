import type { LeaseKey } from '../../../src/core/lease/types.ts';
import { createState } from '../../../src/core/state/state.ts';
import type { ClusterState } from '../../../src/core/state/types.ts';
import type { Generation } from '../../../src/model/generation.ts';
import { type LogIndex, monoMs, type NodeId, nodeId, taskId, wallMs } from '../../../src/model/ids.ts';
import type { SlotState, TaskRecord } from '../../../src/model/records.ts';
import type { TaskSpec } from '../../../src/model/task-spec.ts';

export const A = nodeId('A');
export const B = nodeId('B');
export const C = nodeId('C');
export const gen = (g: number, epoch = 1): Generation => ({ epoch, g });
export const key = (g: number, slot = 0, task = 't'): LeaseKey => ({ taskId: taskId(task), slot, generation: gen(g) });
export const ms = monoMs;

export function spec(patch: Partial<TaskSpec> = {}): TaskSpec {
  return {
    name: 't',
    runtime: 'process',
    image: '',
    command: ['sleep', '1'],
    args: [],
    env: {},
    workdir: '',
    user: '',
    cpus: 0,
    memoryBytes: 0,
    gpus: 0,
    devices: [],
    ports: [],
    volumes: [],
    replicas: 1,
    restart: { policy: 'always', maxAttempts: 0, backoffMs: 100, backoffCapMs: 10_000 },
    stopSignal: 'SIGTERM',
    stopGraceMs: 1000,
    onPartition: 'keep',
    onNodeLoss: 'reschedule',
    constraints: [],
    priority: 0,
    labels: {},
    ...patch,
  };
}

export function task(id: string, taskSpec: TaskSpec, slots: readonly { g: number; state: SlotState }[]): TaskRecord {
  return {
    id: taskId(id),
    spec: taskSpec,
    specVersion: 1,
    desired: 'running',
    acceptedAt: wallMs(0),
    acceptedIndex: 1 as LogIndex,
    submittedBy: A,
    slots: slots.map((s, slot) => ({ slot, generation: gen(s.g), state: s.state })),
    decisions: [],
  };
}

export const pending: SlotState = { kind: 'pending', reason: 'new' };
export const on = (node: NodeId): SlotState => ({ kind: 'assigned', node, at: wallMs(0) });
export const closedOn = (node: NodeId): SlotState => ({ kind: 'closed', node, at: wallMs(0), reason: 'test' });

/** The state machine's own state, with these records in it (its indexes are not filled). */
export function clusterState(tasks: readonly TaskRecord[] = [], peers: readonly NodeId[] = [A, B, C]): ClusterState {
  const state = createState();
  for (const nodeId of peers) {
    state.peers.set(nodeId, {
      nodeId,
      name: `node-${nodeId}`,
      addresses: [],
      labels: {},
      priority: 0,
      witness: false,
      availability: 'active',
      admittedAt: 1 as LogIndex,
    });
  }
  for (const t of tasks) state.tasks.set(t.id, t);
  return state;
}

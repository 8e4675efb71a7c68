import type { TaskSpec } from '../../src/model/task-spec.ts';

/** A spec that fits its schema; fields of interest are given by the test. */
export function taskSpec(fields: Partial<TaskSpec> = {}): TaskSpec {
  return {
    name: 'web',
    runtime: 'process',
    image: '',
    command: ['sleep', '60'],
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
    restart: { policy: 'always', maxAttempts: 0, backoffMs: 100, backoffCapMs: 30_000 },
    stopSignal: 'SIGTERM',
    stopGraceMs: 10_000,
    onPartition: 'keep',
    onNodeLoss: 'reschedule',
    constraints: [],
    priority: 0,
    labels: {},
    ...fields,
  };
}

import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createProcessRuntime } from '../../src/adapters/process/process-runtime.ts';
import { formatCopyId } from '../../src/core/reconcile/copy-id.ts';
import type { CopyId, DesiredCopy, ObservedCopy } from '../../src/core/reconcile/types.ts';
import type { Generation } from '../../src/model/generation.ts';
import { clusterId, nodeId, taskId } from '../../src/model/ids.ts';
import type { TaskSpec } from '../../src/model/task-spec.ts';
import type { Log } from '../../src/ports/log.ts';
import type { ExecOptions, KillTarget, Runtime, RuntimeEvent } from '../../src/ports/runtime.ts';

export type Exited = Extract<RuntimeEvent, { type: 'exited' }>;
export const never = new AbortController().signal;

export const sh = (script: string, more: Partial<TaskSpec> = {}): TaskSpec => ({
  name: 'web',
  runtime: 'process',
  image: '',
  command: ['/bin/sh', '-c', script],
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
  restart: { policy: 'always', maxAttempts: 0, backoffMs: 100, backoffCapMs: 1000 },
  stopSignal: 'SIGTERM',
  stopGraceMs: 1000,
  onPartition: 'keep',
  onNodeLoss: 'reschedule',
  constraints: [],
  priority: 0,
  labels: {},
  ...more,
});

export const execOptions = (command: string[], more: Partial<ExecOptions> = {}): ExecOptions => ({
  command,
  env: {},
  tty: false,
  interactive: false,
  user: '',
  workdir: '',
  size: null,
  ...more,
});

/** A machine with one process runtime at a time; `restart` is the death of the agent and the start of the next one. */
export class Machine {
  readonly dataDir = mkdtempSync(join(tmpdir(), 'task-org-process-'));
  readonly warnings: string[] = [];
  targets: KillTarget[] = [];
  runtime: Runtime;
  #exits: Exited[] = [];
  #waiting: (() => void)[] = [];
  #watching = new AbortController();

  constructor() {
    this.runtime = this.#open();
  }

  #open(): Runtime {
    const log: Log = {
      error: () => {},
      info: () => {},
      debug: () => {},
      warn: (_, message) => this.warnings.push(message),
    };
    const runtime = createProcessRuntime({
      dataDir: this.dataDir,
      clusterId: clusterId('test'),
      nodeId: nodeId(this.dataDir),
      log,
    });
    this.#watching = new AbortController();
    void runtime.events((event) => {
      if (event.type === 'exited') this.#exits.push(event);
      for (const wake of this.#waiting.splice(0)) wake();
    }, this.#watching.signal);
    return runtime;
  }

  async restart(between: () => Promise<void> | void = () => {}): Promise<void> {
    this.#watching.abort();
    await this.runtime.close();
    this.#exits = [];
    await between();
    this.runtime = this.#open();
  }

  copy(spec: TaskSpec, generation: Generation = { epoch: 1, g: 1 }): { desired: DesiredCopy; id: CopyId } {
    const desired = { taskId: taskId('t1'), slot: 0, generation, specVersion: 1, spec, exclusive: false };
    return { desired, id: formatCopyId(desired) };
  }

  async start(spec: TaskSpec, generation?: Generation): Promise<ObservedCopy> {
    const { desired } = this.copy(spec, generation);
    await this.runtime.prepare(desired, never);
    return this.runtime.start(desired, async (target) => void this.targets.push(target), never);
  }

  async exit(id: CopyId): Promise<Exited> {
    for (;;) {
      const found = this.#exits.find((e) => e.copyId === id);
      if (found) return found;
      await new Promise<void>((resolve) => this.#waiting.push(resolve));
    }
  }

  exits(id: CopyId): number {
    return this.#exits.filter((e) => e.copyId === id).length;
  }

  /** The first line of output that matches, waited for. */
  async line(id: CopyId, pattern: RegExp): Promise<string> {
    const enough = new AbortController();
    let text = '';
    for await (const chunk of this.runtime.logs(id, { follow: true, tail: 1000, timestamps: false }, enough.signal)) {
      text += new TextDecoder().decode(chunk.data);
      const found = text
        .split('\n')
        .slice(0, -1)
        .find((line) => pattern.test(line));
      if (found === undefined) continue;
      enough.abort();
      return found;
    }
    throw new Error(`the copy ended without a line like ${pattern}: ${text}`);
  }

  async output(id: CopyId, tail = 1000, timestamps = false): Promise<{ stdout: string; stderr: string }> {
    const text = { stdout: '', stderr: '' };
    for await (const chunk of this.runtime.logs(id, { follow: false, tail, timestamps }, never))
      text[chunk.stream] += new TextDecoder().decode(chunk.data);
    return text;
  }

  async exec(id: CopyId, options: ExecOptions): Promise<{ code: number; stdout: string; stderr: string }> {
    const session = await this.runtime.exec(id, options, never);
    const text = { stdout: '', stderr: '' };
    for await (const chunk of session.output) text[chunk.stream] += new TextDecoder().decode(chunk.data);
    return { code: await session.exitCode, ...text };
  }

  async dispose(): Promise<void> {
    for (const copy of await this.runtime.list(never)) await this.runtime.kill(copy.copyId, never);
    this.#watching.abort();
    await this.runtime.close();
    rmSync(this.dataDir, { recursive: true, force: true });
  }
}

/** Zombies count as gone. */
export function lives(pid: number): boolean {
  try {
    return !/^\d+ \(.*\) [ZX] /.test(readFileSync(`/proc/${pid}/stat`, 'latin1'));
  } catch {
    return false;
  }
}

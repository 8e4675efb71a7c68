import { afterEach, describe, expect, test } from 'vitest';
import { formatCopyId } from '../../src/core/reconcile/copy-id.ts';
import type { DesiredCopy, ObservedCopy } from '../../src/core/reconcile/types.ts';
import { taskId } from '../../src/model/ids.ts';
import type { TaskSpec } from '../../src/model/task-spec.ts';
import type { KillTarget, LogChunk, Runtime, RuntimeEvent } from '../../src/ports/runtime.ts';

/** One machine with one runtime; what it runs outlives a Runtime. */
export interface RuntimeBed {
  open(): Runtime;
  /** A specification whose copy runs a shell script. */
  spec(script: string): TaskSpec;
}

export const BASE_SPEC: TaskSpec = {
  name: 'contract',
  runtime: 'process',
  image: '',
  command: [],
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
  restart: { policy: 'no', maxAttempts: 0, backoffMs: 100, backoffCapMs: 1000 },
  stopSignal: 'SIGTERM',
  stopGraceMs: 1000,
  onPartition: 'keep',
  onNodeLoss: 'reschedule',
  constraints: [],
  priority: 0,
  labels: {},
};
export const LOOP = 'trap "exit 0" TERM; echo ready; while :; do sleep 0.05; done';
const DEAF = 'trap "" TERM; echo deaf; while :; do sleep 0.05; done';
const SIGNAL = (): AbortSignal => AbortSignal.timeout(50_000);

let copies = 0;
export function copyFrom(spec: TaskSpec): DesiredCopy {
  copies += 1;
  return {
    taskId: taskId(`t${process.pid}x${copies}`),
    slot: 0,
    generation: { epoch: 1, g: copies },
    specVersion: 1,
    spec,
    exclusive: false,
  };
}

export async function text(
  chunks: AsyncIterable<LogChunk>,
  enough: (all: string) => boolean = () => false,
): Promise<string> {
  let all = '';
  for await (const chunk of chunks) {
    all += Buffer.from(chunk.data).toString('utf8');
    if (enough(all)) break;
  }
  return all;
}

/** Starts, with what was registered for it. */
export async function run(
  runtime: Runtime,
  copy: DesiredCopy,
  signal = SIGNAL(),
): Promise<{ observed: ObservedCopy; targets: KillTarget[] }> {
  const targets: KillTarget[] = [];
  await runtime.prepare(copy, signal);
  const observed = await runtime.start(copy, async (target) => void targets.push(target), signal);
  return { observed, targets };
}

/** Resolves with the first event that `wanted` takes. */
export function nextEvent(
  runtime: Runtime,
  wanted: (event: RuntimeEvent) => boolean,
): { event: Promise<RuntimeEvent>; close: () => void } {
  const controller = new AbortController();
  const event = new Promise<RuntimeEvent>((resolve, reject) => {
    runtime.events((e) => wanted(e) && resolve(e), controller.signal).catch(reject);
  });
  return { event, close: () => controller.abort() };
}

/** What every runtime does. */
export function runtimeContract(name: string, bed: () => RuntimeBed): void {
  describe(`runtime contract: ${name}`, () => {
    const open: Runtime[] = [];
    const make = (): Runtime => {
      const runtime = bed().open();
      open.push(runtime);
      return runtime;
    };
    afterEach(async () => {
      const [runtime] = open;
      for (const copy of (await runtime?.list(SIGNAL())) ?? []) await runtime?.kill(copy.copyId, SIGNAL());
      for (const each of open.splice(0)) await each.close();
    });
    const listed = async (runtime: Runtime, copy: DesiredCopy): Promise<ObservedCopy | undefined> =>
      (await runtime.list(SIGNAL())).find((c) => c.copyId === formatCopyId(copy));

    test('a copy starts, registered before, is listed, stops by its signal and is gone', async () => {
      const runtime = make();
      const copy = copyFrom(bed().spec(LOOP));
      const { observed, targets } = await run(runtime, copy);
      expect(targets.length).toBeGreaterThan(0);
      expect(observed).toMatchObject({
        copyId: formatCopyId(copy),
        taskId: copy.taskId,
        generation: copy.generation,
        running: true,
        exitCode: null,
      });
      expect(Math.abs((observed.startedAt ?? 0) - Date.now())).toBeLessThan(30_000);
      expect(await listed(runtime, copy)).toEqual(observed);
      // The first process of a container ignores a signal that it has no handler for yet.
      const output = runtime.logs(observed.copyId, { follow: true, tail: -1, timestamps: false }, SIGNAL());
      expect(await text(output, (all) => all.includes('ready'))).toContain('ready');
      const before = performance.now();
      await runtime.stop(observed.copyId, { stopSignal: 'SIGTERM', graceMs: 20_000 }, SIGNAL());
      expect(performance.now() - before).toBeLessThan(15_000);
      expect(await listed(runtime, copy)).toBeUndefined();
      await runtime.stop(observed.copyId, { stopSignal: 'SIGTERM', graceMs: 1000 }, SIGNAL());
      await runtime.kill(observed.copyId, SIGNAL());
    });

    test('starting twice, in a row and at once, gives the one copy', async () => {
      const runtime = make();
      const copy = copyFrom(bed().spec(LOOP));
      const [a, b] = await Promise.all([run(runtime, copy), run(runtime, copy)]);
      const c = await run(runtime, copy);
      expect([b.observed.handle, c.observed.handle]).toEqual([a.observed.handle, a.observed.handle]);
      expect(await runtime.list(SIGNAL())).toHaveLength(1);
    });

    test('an end is told with its exit code, the copy stays listed as ended, and starts anew', async () => {
      const runtime = make();
      const copy = copyFrom(bed().spec('exit 7'));
      const end = nextEvent(runtime, (e) => e.type === 'exited' && e.copyId === formatCopyId(copy));
      await run(runtime, copy);
      expect(await end.event).toMatchObject({ exitCode: 7, oomKilled: false });
      end.close();
      expect(await listed(runtime, copy)).toMatchObject({ running: false, exitCode: 7 });
      const again = await run(runtime, { ...copy, spec: bed().spec(LOOP) });
      expect(again.observed.running).toBe(true);
      expect(await runtime.list(SIGNAL())).toHaveLength(1);
    });

    test('what ignores its stop signal is killed after the grace', async () => {
      const runtime = make();
      const copy = copyFrom(bed().spec(DEAF));
      const { observed } = await run(runtime, copy);
      expect(
        await text(runtime.logs(observed.copyId, { follow: true, tail: -1, timestamps: false }, SIGNAL()), (all) =>
          all.includes('deaf'),
        ),
      ).toContain('deaf');
      const before = performance.now();
      await runtime.stop(observed.copyId, { stopSignal: 'SIGTERM', graceMs: 300 }, SIGNAL());
      expect(performance.now() - before).toBeGreaterThanOrEqual(295);
      expect(await listed(runtime, copy)).toBeUndefined();
    });

    test('the next Runtime adopts what runs, and can stop it', async () => {
      const first = make();
      const copy = copyFrom(bed().spec(LOOP));
      const { observed } = await run(first, copy);
      const second = make();
      expect(await listed(second, copy)).toEqual(observed);
      expect((await run(second, copy)).observed.handle).toBe(observed.handle);
      const third = make();
      await third.kill(observed.copyId, SIGNAL());
      expect(await listed(second, copy)).toBeUndefined();
    });

    test('a start that is given up leaves nothing', async () => {
      const runtime = make();
      const copy = copyFrom(bed().spec(LOOP));
      const giveUp = new AbortController();
      await expect(runtime.start(copy, async () => giveUp.abort(), giveUp.signal)).rejects.toMatchObject({
        code: 'aborted',
      });
      expect(await listed(runtime, copy)).toBeUndefined();
    });

    test('output: the last lines, both streams, and followed to the end', async () => {
      const runtime = make();
      const copy = copyFrom(
        bed().spec(
          'for i in 1 2 3 4 5; do echo line$i; done; echo bad >&2; read -t 1 x < /dev/null; sleep 0.3; echo late; exit 0',
        ),
      );
      const { observed } = await run(runtime, copy);
      const followed = await text(
        runtime.logs(observed.copyId, { follow: true, tail: -1, timestamps: false }, SIGNAL()),
      );
      expect(followed.match(/line\d/g)).toEqual(['line1', 'line2', 'line3', 'line4', 'line5']);
      expect(followed).toContain('late');
      expect(followed).toContain('bad');
      expect(await text(runtime.logs(observed.copyId, { follow: false, tail: 1, timestamps: false }, SIGNAL()))).toBe(
        'late\n',
      );
      const streams = new Set<string>();
      for await (const chunk of runtime.logs(observed.copyId, { follow: false, tail: -1, timestamps: false }, SIGNAL()))
        streams.add(chunk.stream);
      expect([...streams].sort()).toEqual(['stderr', 'stdout']);
    });

    test('a command runs inside, with input, output and exit code', async () => {
      const runtime = make();
      const { observed } = await run(runtime, copyFrom(bed().spec(LOOP)));
      const options = { env: { A: 'b c' }, tty: false, interactive: false, user: '', workdir: '', size: null };
      const plain = await runtime.exec(
        observed.copyId,
        { ...options, command: ['sh', '-c', 'echo "$A"; echo no >&2; exit 3'] },
        SIGNAL(),
      );
      expect((await text(plain.output)).split('\n').sort()).toEqual(['', 'b c', 'no']);
      expect(await plain.exitCode).toBe(3);
      const cat = await runtime.exec(observed.copyId, { ...options, interactive: true, command: ['cat'] }, SIGNAL());
      await cat.write(Buffer.from('through'));
      cat.closeInput();
      expect(await text(cat.output)).toBe('through');
      expect(await cat.exitCode).toBe(0);
      await expect(runtime.exec('none.0.1.1.1', { ...options, command: ['true'] }, SIGNAL())).rejects.toMatchObject({
        code: 'not_found',
      });
    });

    test('what it uses is measured', async () => {
      const runtime = make();
      const { observed } = await run(runtime, copyFrom(bed().spec('while :; do :; done')));
      const stats = await runtime.stats(observed.copyId, SIGNAL());
      expect(stats.cpuCores).toBeGreaterThan(0.05);
      expect(stats.cpuCores).toBeLessThan(4);
      expect(stats.pids).toBeGreaterThanOrEqual(1);
      expect(stats.memoryBytes).toBeGreaterThan(0);
    });
  });
}

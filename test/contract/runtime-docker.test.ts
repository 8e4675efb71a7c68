import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { createDockerRuntime } from '../../src/adapters/docker/docker-runtime.ts';
import { killTarget } from '../../src/adapters/process/kill-target.ts';
import { formatCopyId } from '../../src/core/reconcile/copy-id.ts';
import { clusterId, nodeId } from '../../src/model/ids.ts';
import type { TaskSpec } from '../../src/model/task-spec.ts';
import { SILENT_LOG } from '../../src/ports/log.ts';
import type { Runtime } from '../../src/ports/runtime.ts';
import { EngineApi } from '../../src/scenario/hosts/engine-api.ts';
import { socketProxy, testEngine } from '../fixtures/docker-engine.ts';
import { BUSYBOX, importBusybox } from '../fixtures/images.ts';
import { BASE_SPEC, copyFrom, LOOP, nextEvent, run, runtimeContract, text } from './runtime-contract.ts';

const engine = await testEngine([
  '--bip',
  '10.99.0.1/24',
  '--cgroup-parent',
  '/x/y/ct',
  '--exec-opt',
  'native.cgroupdriver=cgroupfs',
]);
const SIGNAL = (): AbortSignal => AbortSignal.timeout(50_000);

if (engine === undefined)
  test('Docker tests did not run: no engine answers', () => expect(process.env.TASKORG_TEST_DOCKER).not.toBe('1'));
else {
  const { socketPath, daemon } = engine;
  const owner = { clusterId: clusterId(`c${process.pid}${Date.now()}`), nodeId: nodeId('nodeA') };
  const open = (over: Partial<typeof owner> = {}, socket = socketPath): Runtime =>
    createDockerRuntime({ ...owner, ...over, socketPath: socket, log: SILENT_LOG });
  const spec = (script: string, over: Partial<TaskSpec> = {}): TaskSpec => ({
    ...BASE_SPEC,
    runtime: 'docker',
    image: BUSYBOX,
    command: ['sh', '-c', script],
    ...over,
  });
  const api = new EngineApi(socketPath);

  beforeAll(() => importBusybox(socketPath));
  afterAll(async () => {
    api.close();
    await engine.stop();
  });

  runtimeContract('docker', () => ({ open: () => open(), spec }));

  describe('docker runtime', () => {
    const using = async (work: (runtime: Runtime) => Promise<void>): Promise<void> => {
      const runtime = open();
      try {
        await work(runtime);
      } finally {
        for (const copy of await runtime.list(SIGNAL())) await runtime.kill(copy.copyId, SIGNAL());
        await runtime.close();
      }
    };
    const inspect = async (id: string): Promise<Record<string, never>> =>
      (await api.call('GET', `/containers/${id}/json`)) as Record<string, never>;

    test('an image that is not there is named, with what to do', () =>
      using(async (runtime) => {
        const copy = copyFrom(spec('true', { image: 'taskorg-test/none:9' }));
        await expect(runtime.prepare(copy, SIGNAL())).rejects.toMatchObject({
          code: 'image_missing',
          hint: expect.stringContaining('taskorg-test/none:9'),
        });
        await expect(runtime.start(copy, async () => {}, SIGNAL())).rejects.toMatchObject({ code: 'image_missing' });
        expect(await runtime.images(SIGNAL())).toContain(BUSYBOX);
      }));

    test('no engine: no_runtime', async () => {
      const runtime = createDockerRuntime({ ...owner, socketPath: '/nonexistent/docker.sock', log: SILENT_LOG });
      await expect(runtime.info(SIGNAL())).rejects.toMatchObject({ code: 'no_runtime', retryable: true });
      await runtime.close();
    });

    test('every field of the specification reaches the engine, and nothing of the host does', () =>
      using(async (runtime) => {
        const copy = copyFrom(
          spec(LOOP, {
            args: ['a0'],
            env: { X: 'y=z' },
            workdir: '/tmp',
            user: '65534',
            cpus: 0.5,
            memoryBytes: 64 * 2 ** 20,
            stopSignal: 'SIGINT',
            ports: [{ container: 80, host: 0, protocol: 'tcp' }],
            volumes: [{ name: 'vol', path: '/data', readOnly: false }],
          }),
        );
        const { observed } = await run(runtime, copy);
        const { Config, HostConfig, Name } = (await inspect(observed.handle)) as unknown as {
          Config: Record<string, unknown>;
          HostConfig: Record<string, unknown>;
          Name: string;
        };
        expect(Name).toMatch(/^\/taskorg-contract-0-[0-9a-f]{6,12}$/);
        expect(Config).toMatchObject({
          Entrypoint: ['sh', '-c', LOOP],
          Cmd: ['a0'],
          WorkingDir: '/tmp',
          User: '65534',
          StopSignal: 'SIGINT',
          Env: expect.arrayContaining([
            'X=y=z',
            'TASKORG_TASK=contract',
            'TASKORG_SLOT=0',
            `TASKORG_GENERATION=1.${copy.generation.g}`,
          ]),
          Labels: expect.objectContaining({
            'org.task-org.cluster': owner.clusterId,
            'org.task-org.node': 'nodeA',
            'org.task-org.copy': formatCopyId(copy),
          }),
        });
        expect(HostConfig).toMatchObject({
          NanoCpus: 5e8,
          Memory: 64 * 2 ** 20,
          Privileged: false,
          RestartPolicy: { Name: 'no' },
          LogConfig: { Type: 'json-file', Config: { 'max-size': '10m', 'max-file': '2' } },
          Mounts: [{ Type: 'volume', Source: `taskorg-${owner.clusterId.slice(0, 8)}-vol`, Target: '/data' }],
        });
        expect(HostConfig).toMatchObject({ PidMode: '' });
        expect(HostConfig.Binds ?? []).toEqual([]);
        expect(observed.ports).toEqual([{ container: 80, host: expect.any(Number), protocol: 'tcp' }]);
        expect(observed.ports[0]?.host).toBeGreaterThan(0);
        await runtime.kill(observed.copyId, SIGNAL());
        await api.call('DELETE', `/volumes/taskorg-${owner.clusterId.slice(0, 8)}-vol`);
      }));

    test('a whole number of cores is pinned, to the least used ones', () =>
      using(async (runtime) => {
        const ids = [];
        for (const _ of [1, 2]) ids.push((await run(runtime, copyFrom(spec(LOOP, { cpus: 1 })))).observed.handle);
        const sets = await Promise.all(
          ids.map(
            async (id) =>
              ((await inspect(id)) as unknown as { HostConfig: { CpusetCpus: string } }).HostConfig.CpusetCpus,
          ),
        );
        expect(sets.every((set) => /^\d+$/.test(set))).toBe(true);
        if (((await api.call('GET', '/info')) as { NCPU: number }).NCPU > 1) expect(new Set(sets).size).toBe(2);
      }));

    test('containers of another node on the same engine are not ours', () =>
      using(async (runtime) => {
        const other = open({ nodeId: nodeId('nodeB') });
        const copy = copyFrom(spec(LOOP));
        const [a, b] = [await run(runtime, copy), await run(other, copy)];
        expect(a.observed.handle).not.toBe(b.observed.handle);
        expect((await runtime.list(SIGNAL())).map((c) => c.handle)).toEqual([a.observed.handle]);
        await other.kill(b.observed.copyId, SIGNAL());
        expect((await runtime.list(SIGNAL()))[0]?.running).toBe(true);
        await other.close();
      }));

    test('what was registered before the start kills without the engine, the first copy too', () =>
      using(async (runtime) => {
        const copy = copyFrom(spec(LOOP));
        const end = nextEvent(runtime, (e) => e.type === 'exited' && e.copyId === formatCopyId(copy));
        const { targets } = await run(runtime, copy);
        const [first] = targets;
        expect(first?.type).toBe('cgroup');
        expect(first && (await killTarget(first))).toBe(true);
        expect(await end.event).toMatchObject({ exitCode: 137 });
        end.close();
      }));

    test('what a copy that lost has written is set aside: stopped, out of the listing, and whole', () =>
      using(async (runtime) => {
        const copy = copyFrom(spec('echo written > /file; echo ready; sleep 60'));
        const started = (await run(runtime, copy)).observed;
        const logs = runtime.logs(started.copyId, { follow: true, tail: -1, timestamps: false }, SIGNAL());
        for await (const chunk of logs) if (Buffer.from(chunk.data).toString().includes('ready')) break;
        await runtime.stop(started.copyId, { stopSignal: 'SIGTERM', graceMs: 100, keep: true }, SIGNAL());
        expect(await runtime.list(SIGNAL())).toEqual([]);
        const kept = (await inspect(started.handle)) as unknown as { Name: string; State: { Running: boolean } };
        expect(kept).toMatchObject({ Name: expect.stringMatching(/^\/taskorg-branch-/), State: { Running: false } });
        const changes = (await api.call('GET', `/containers/${started.handle}/changes`)) as { Path: string }[];
        expect(changes.map((c) => c.Path)).toContain('/file');
        // The same copy may run here again: nothing of the branch is in its way.
        const again = (await run(runtime, copy)).observed;
        expect(again.handle).not.toBe(started.handle);
        await api.call('DELETE', `/containers/${started.handle}?force=true`);
      }));

    test('a copy over its memory limit is told as such', () =>
      using(async (runtime) => {
        const copy = copyFrom(spec('x=a; while :; do x=$x$x; done', { memoryBytes: 8 * 2 ** 20 }));
        const end = nextEvent(runtime, (e) => e.type === 'exited' && e.copyId === formatCopyId(copy));
        await run(runtime, copy);
        expect(await end.event).toMatchObject({ exitCode: 137, oomKilled: true });
        end.close();
      }));

    test('a terminal: its size, and one stream', () =>
      using(async (runtime) => {
        const { observed } = await run(runtime, copyFrom(spec(LOOP)));
        const session = await runtime.exec(
          observed.copyId,
          {
            command: ['sh'],
            env: {},
            tty: true,
            interactive: true,
            user: '',
            workdir: '/tmp',
            size: { columns: 99, rows: 33 },
          },
          SIGNAL(),
        );
        await session.write(Buffer.from('pwd; stty size; exit 4\n'));
        expect(await text(session.output)).toMatch(/\/tmp[\s\S]*33 99/);
        expect(await session.exitCode).toBe(4);
      }));

    test('the engine goes and comes back: down, up, and the end that was missed meanwhile', async () => {
      const proxy = await socketProxy(socketPath);
      const runtime = open({}, proxy.path);
      const away = open();
      const copy = copyFrom(spec(LOOP));
      const [down, up, exited] = (['down', 'up', 'exited'] as const).map((type) =>
        nextEvent(runtime, (event) => event.type === type),
      );
      try {
        const { observed } = await run(runtime, copy);
        proxy.close();
        await down?.event;
        await expect(runtime.list(SIGNAL())).rejects.toMatchObject({ code: 'no_runtime' });
        await api.call('POST', `/containers/${observed.handle}/kill`);
        await proxy.open();
        await up?.event;
        expect(await exited?.event).toMatchObject({ copyId: observed.copyId, exitCode: 137, oomKilled: false });
      } finally {
        for (const each of [down, up, exited]) each?.close();
        await away.kill(formatCopyId(copy), SIGNAL());
        await runtime.close();
        await away.close();
        proxy.close();
      }
    });

    test.runIf(daemon !== undefined)(
      'a start that a hanging engine still owes is not called dead, and leaves nothing',
      () =>
        using(async (runtime) => {
          const copy = copyFrom(spec(LOOP));
          const registered = Promise.withResolvers<void>();
          const starting = runtime.start(
            copy,
            async () => {
              daemon?.kill('SIGSTOP');
              registered.resolve();
            },
            SIGNAL(),
          );
          const refused = expect(starting).rejects.toMatchObject({ code: 'aborted' });
          try {
            await registered.promise;
            const kill = runtime.kill(formatCopyId(copy), AbortSignal.timeout(1500));
            await expect(kill).rejects.toMatchObject({ code: 'aborted' });
          } finally {
            daemon?.kill('SIGCONT');
          }
          await refused;
          await runtime.kill(formatCopyId(copy), SIGNAL());
          expect(await runtime.list(SIGNAL())).toEqual([]);
        }),
    );

    test.runIf(daemon !== undefined)('an engine that hangs: stop ends by the cgroup', () =>
      using(async (runtime) => {
        const { observed } = await run(runtime, copyFrom(spec(LOOP)));
        daemon?.kill('SIGSTOP');
        try {
          const options = { stopSignal: 'SIGTERM', graceMs: 500 };
          await runtime.stop(observed.copyId, options, AbortSignal.timeout(15_000));
        } finally {
          daemon?.kill('SIGCONT');
        }
      }),
    );

    test.runIf(daemon !== undefined)(
      'an engine that hangs: kill leaves no process, and the container goes when it answers',
      () =>
        using(async (runtime) => {
          const { observed } = await run(runtime, copyFrom(spec(LOOP)));
          const pid = ((await inspect(observed.handle)) as unknown as { State: { Pid: number } }).State.Pid;
          daemon?.kill('SIGSTOP');
          try {
            const before = performance.now();
            await runtime.kill(observed.copyId, SIGNAL());
            expect(performance.now() - before).toBeLessThan(3000);
            expect(() => process.kill(pid, 0)).toThrow();
          } finally {
            daemon?.kill('SIGCONT');
          }
          await runtime.kill(observed.copyId, SIGNAL());
          expect(await runtime.list(SIGNAL())).toEqual([]);
        }),
    );
  });
}

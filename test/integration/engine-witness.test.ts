import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { EngineApi } from '../../src/scenario/hosts/engine-api.ts';
import { createHostLab } from '../../src/scenario/hosts/host-lab.ts';
import { BUSYBOX_IMAGE, busyboxImage } from '../../src/scenario/hosts/image.ts';
import { findTool, whyNoHostLab } from '../../src/scenario/hosts/requirements.ts';
import { RunBook } from '../../src/scenario/run-book.ts';
import type { CopyRun } from '../../src/scenario/types.ts';
import { EngineWitness } from '../../src/scenario/witness.ts';

const possible = whyNoHostLab(true) === undefined && findTool('busybox') !== undefined;

describe.runIf(possible)('a host with its own engine', () => {
  const dir = mkdtempSync(join(tmpdir(), 'tolab-'));
  const lab = createHostLab({
    hosts: 1,
    dir: join(dir, 'l'),
    prefix: 'tolabengine',
    subnet: '10.91.9.0/24',
    docker: true,
  });
  const book = new RunBook();
  let wake = (): void => {};
  const witness = new EngineWitness(book, 1, lab.socketPath(1), () => wake());
  const engine = new EngineApi(lab.socketPath(1));

  beforeAll(async () => {
    await lab.up();
    await lab.loadImage(1, busyboxImage());
    await witness.listen();
  });
  afterAll(async () => {
    witness.stop();
    engine.close();
    await lab.down();
    rmSync(dir, { recursive: true, force: true });
  });

  const start = async (task: string, generation: string): Promise<string> => {
    const Labels = { 'any.label': 'other', 'task-org.copy': `${task}.0.${generation}.1` };
    const { Id } = (await engine.call('POST', '/containers/create', {
      Image: BUSYBOX_IMAGE,
      Cmd: ['sleep', '1000000'],
      StopSignal: 'SIGKILL',
      Labels,
    })) as { Id: string };
    await engine.call('POST', `/containers/${Id}/start`);
    return Id;
  };
  const until = async (holds: (runs: readonly CopyRun[]) => boolean): Promise<readonly CopyRun[]> => {
    for (;;) {
      const changed = new Promise<void>((resolve) => {
        wake = resolve;
      });
      const runs = book.list(Date.now());
      if (holds(runs)) return runs;
      await changed;
    }
  };

  test('its containers are witnessed from outside: start, end, and what happened while nobody could listen', async () => {
    const before = Date.now();
    const first = await start('web', '1.1');
    const [run] = await until((runs) => runs.length === 1);
    expect(run).toMatchObject({ task: 'web', slot: 0, generation: '1.1', node: 1, copy: first, endedAtMs: null });
    expect(run?.spans[0]?.fromMs).toBeGreaterThanOrEqual(before);
    const second = await start('db', '1.7');
    await engine.call('POST', `/containers/${second}/kill`);
    await until((runs) => runs.some((one) => one.copy === second && one.endedAtMs !== null));

    const killedAt = await lab.dockerd(1, 'kill');
    expect(lab.cpuSeconds(1).containers).toBeGreaterThan(0);
    await lab.dockerd(1, 'start');
    await witness.listen();
    const [ended] = await until((runs) => runs.some((one) => one.copy === first && one.endedAtMs !== null));
    expect(ended?.endedAtMs).toBeGreaterThanOrEqual(killedAt); // it outlived the engine, and ended when that came back
    const third = await start('web', '1.2');
    await until((runs) => runs.some((one) => one.copy === third && one.endedAtMs === null));
  });
});

import { spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, test } from 'vitest';
import { RunBook } from '../../src/scenario/run-book.ts';
import type { CopyRun } from '../../src/scenario/types.ts';
import { FileWitness, witnessDocument } from '../../src/scenario/witness.ts';

const dir = mkdtempSync(join(tmpdir(), 'to-witness-'));
afterAll(() => rmSync(dir, { recursive: true, force: true }));

test('a document without a workload gets the witness, one with its own keeps it', () => {
  expect(witnessDocument({ name: 'web', replicas: 2 }, 'docker')).toMatchObject({
    name: 'web',
    replicas: 2,
    runtime: 'docker',
    image: expect.any(String),
  });
  expect(witnessDocument({ name: 'web', image: 'own:1' }, 'docker')).toEqual({ name: 'web', image: 'own:1' });
});

test('a witness process is seen from outside with its slot and generation, in a directory made after watching began', async () => {
  const book = new RunBook();
  let wake = (): void => {};
  const witness = new FileWitness(book, () => wake());
  witness.follow(3, dir);
  const work = join(dir, 'work', 'copy-1');
  mkdirSync(work, { recursive: true });
  const [program = '', ...args] = witnessDocument({ name: 'my-web' }, 'process').command as string[];
  const before = Date.now();
  const child = spawn(program, args, {
    cwd: work,
    env: { ...process.env, TASKORG_GENERATION: '1.4', TASKORG_SLOT: '2' },
    stdio: 'ignore',
  });
  try {
    const beats = async (until: (runs: readonly CopyRun[]) => boolean): Promise<readonly CopyRun[]> => {
      for (;;) {
        const changed = new Promise<void>((resolve) => {
          wake = resolve;
        });
        const runs = book.list(Date.now());
        if (until(runs)) return runs;
        await changed;
      }
    };
    const [run] = await beats(([one]) => one !== undefined && (one.spans[0]?.toMs ?? 0) > (one.spans[0]?.fromMs ?? 0));
    expect(run).toMatchObject({
      task: 'my-web',
      slot: 2,
      generation: '1.4',
      node: 3,
      copy: `pid:${child.pid} of 1.4`,
      endedAtMs: null,
    });
    expect(run?.spans[0]?.fromMs).toBeGreaterThanOrEqual(before);
  } finally {
    child.kill('SIGKILL');
    witness.stop();
  }
});

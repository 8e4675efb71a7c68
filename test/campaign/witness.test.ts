import { appendFileSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { TickFiles } from '../../src/campaign/witness.ts';

describe("the copies' files", () => {
  let dir = '';
  let now = 0;
  let files: TickFiles;
  const tick = (seconds: number, file = 'one,0,1.1,10.00'): void =>
    appendFileSync(join(files.root, 'host-1', file), `${seconds.toFixed(2)}\n`);
  const last = (options = {}): number | undefined => files.lives(options)[0]?.spans.at(-1)?.toMs;

  beforeEach(() => {
    dir = mkdtempSync(join(tmpdir(), 'campaign-'));
    now = 10_000;
    files = new TickFiles(dir, new Map([['host-1', 1]]), () => now);
  });
  afterEach(() => rmSync(dir, { recursive: true, force: true }));

  it('name the copy, and hold when it lived, with its pauses', () => {
    for (const at of [10, 10.02, 10.04, 11, 11.02]) tick(at);
    appendFileSync(join(files.root, 'host-1', 'one,0,1.1,10.00'), '11.0'); // a line cut short by the end
    expect(files.lives()).toEqual([
      {
        task: 'one',
        slot: 0,
        generation: '1.1',
        host: 1,
        copy: 'one,0,1.1,10.00',
        spans: [
          { fromMs: 10_000, toMs: 10_040 },
          { fromMs: 11_000, toMs: 11_020 },
        ],
      },
    ]);
  });

  it('are read on after nobody has looked for long', () => {
    tick(10);
    expect(last()).toBe(10_000);
    now = 900_000;
    tick(900);
    expect(last()).toBe(900_000);
  });

  it('that were found quiet are read again for a verdict only', () => {
    tick(10);
    now = 900_000;
    expect(last()).toBe(10_000);
    tick(900);
    expect(last()).toBe(10_000);
    expect(last({ everything: true })).toBe(900_000);
  });
});

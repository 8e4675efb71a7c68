import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  copyFile,
  cp,
  mkdtemp,
  readdir,
  readFile,
  rm,
  stat,
  symlink,
  truncate,
  unlink,
  writeFile,
} from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { openLevelStore } from '../../../src/adapters/level/level-store.ts';
import { encodeVote, NOTHING_PROMISED, VoteFile } from '../../../src/adapters/level/vote-file.ts';
import { logIndex, term } from '../../../src/model/ids.ts';
import type { StoreContents } from '../../../src/ports/store.ts';
import { append, batch, command, commands, readmission, vote } from '../../contract/store-batches.ts';
import { storeContract } from '../../contract/store-contract.ts';

const fresh = (): Promise<string> => mkdtemp(join(tmpdir(), 'task-org-store-'));

storeContract('level', async () => {
  const dataDir = await fresh();
  return { open: () => openLevelStore({ dataDir }), dispose: () => rm(dataDir, { recursive: true, force: true }) };
});

describe('level store on a damaged disk', () => {
  let dataDir: string;
  beforeEach(async () => {
    dataDir = await fresh();
  });
  afterEach(() => rm(dataDir, { recursive: true, force: true }));

  const loadAndClose = async (): Promise<StoreContents> => {
    const store = await openLevelStore({ dataDir });
    try {
      return await store.load();
    } finally {
      await store.close();
    }
  };
  /** Twelve synced batches; what the database's own log file holds after each is what a cut can leave. */
  const filled = async (): Promise<void> => {
    const store = await openLevelStore({ dataDir });
    await store.load();
    for (let i = 1; i <= 12; i++) {
      await store.write(
        batch({
          consensus: [vote(i, 'peer-a'), append(command(i, i))],
          state: [{ key: `k/${i}`, value: 'v'.repeat(50) }],
          applied: logIndex(i),
        }),
      );
    }
    await store.close();
  };
  const databaseFile = async (suffix: string): Promise<string> => {
    const names = (await readdir(join(dataDir, 'db'))).filter((n) => n.endsWith(suffix)).sort();
    return join(dataDir, 'db', names.at(-1) as string);
  };

  it('a cut log file opens silently in LevelDB and is caught by the vote file', async () => {
    await filled();
    const path = await databaseFile('.log');
    await truncate(path, Math.floor((await stat(path)).size * 0.6));
    const { consensus, problems } = await loadAndClose();
    expect(consensus.mayVote).toBe(false);
    expect(problems.join()).toMatch(/entries up to 12 were promised/);
    // The vote that was given is not forgotten though its entry is.
    expect(consensus.hardState).toEqual({ term: 12, votedFor: 'peer-a' });
    expect(consensus.entries.length).toBeGreaterThan(3);
    expect(consensus.entries.map((e) => e.index)).toEqual(
      Array.from({ length: consensus.entries.length }, (_, i) => i + 1),
    );
    // It stays lost over restarts and further writes, until re-admission.
    const store = await openLevelStore({ dataDir });
    const again = await store.load();
    expect(again.consensus.mayVote).toBe(false);
    await store.write(batch({ consensus: [append(command(again.consensus.entries.length + 1, 13))] }));
    await store.close();
    expect((await loadAndClose()).consensus.mayVote).toBe(false);
    const readmitted = await openLevelStore({ dataDir });
    await readmitted.load();
    await readmitted.write(batch({ consensus: [readmission(13)] }));
    await readmitted.close();
    const healed = await loadAndClose();
    expect([healed.consensus.mayVote, healed.problems]).toEqual([true, []]);
  });

  it('every cut of the log file is either caught or loses nothing promised', async () => {
    await filled();
    const kept = `${dataDir}-kept`;
    await cp(dataDir, kept, { recursive: true });
    try {
      const size = (await stat(await databaseFile('.log'))).size;
      for (let cut = 1; cut < size; cut += Math.ceil(size / 25)) {
        await rm(dataDir, { recursive: true });
        await cp(kept, dataDir, { recursive: true });
        await truncate(await databaseFile('.log'), size - cut);
        const { consensus } = await loadAndClose();
        expect([cut, consensus.mayVote, consensus.hardState.term]).toEqual([cut, false, 12]);
      }
    } finally {
      await rm(kept, { recursive: true });
    }
  });

  it('a cut or missing table is caught', async () => {
    for (const damage of ['cut', 'missing', 'rotten'] as const) {
      await rm(dataDir, { recursive: true, force: true });
      const store = await openLevelStore({ dataDir });
      await store.load();
      // More than one write buffer, so that tables are made.
      const big = 'x'.repeat(100_000);
      for (let i = 1; i <= 60; i++) {
        const noise = Buffer.from(crypto.getRandomValues(new Uint8Array(60_000))).toString('base64');
        await store.write(batch({ consensus: [append(command(i, 1, `${i}${noise}${big}`))] }));
      }
      await store.close();
      // All of them: one alone may be a leftover of a compaction that the next opening removes.
      for (const name of (await readdir(join(dataDir, 'db'))).filter((n) => n.endsWith('.ldb'))) {
        const path = join(dataDir, 'db', name);
        const { size } = await stat(path);
        if (damage === 'cut') await truncate(path, Math.floor(size / 2));
        else if (damage === 'missing') await unlink(path);
        else
          await writeFile(path, (await readFile(path)).fill(0x55, Math.floor(size / 3), Math.floor(size / 3) + 3000));
      }
      const { consensus, problems } = await loadAndClose();
      expect([damage, consensus.mayVote]).toEqual([damage, false]);
      expect(problems.length).toBeGreaterThan(0);
    }
  });

  it('a database that was deleted under a vote file is lost, not new', async () => {
    await filled();
    await rm(join(dataDir, 'db'), { recursive: true });
    const { consensus } = await loadAndClose();
    expect([consensus.mayVote, consensus.hardState.term, consensus.entries.length]).toEqual([false, 12, 0]);
  });

  it('a missing vote file costs the vote; one torn slot does not', async () => {
    await filled();
    const votes = join(dataDir, 'votes');
    const good = `${votes}.good`;
    await copyFile(votes, good);
    const bytes = await readFile(votes);
    // The newest slot is the one with the higher sequence, which stands at byte 8.
    const newest = bytes.readBigUInt64LE(8) > bytes.readBigUInt64LE(4096 + 8) ? 0 : 4096;
    bytes.fill(0, newest + 100, newest + 512);
    await writeFile(votes, bytes);
    const torn = await loadAndClose();
    expect([torn.consensus.mayVote, torn.consensus.hardState.term, torn.problems]).toEqual([true, 12, []]);
    await unlink(votes);
    const missing = await loadAndClose();
    expect([missing.consensus.mayVote, missing.problems]).toEqual([false, ['the vote file is missing or damaged']]);
  });

  it('state that does not add up is dropped; the log gives it again when it is whole', async () => {
    await filled();
    const { Level } = await import('level');
    const db = new Level<string, string>(join(dataDir, 'db'));
    await db.del('state/0/k/5');
    await db.close();
    const { consensus, state, problems } = await loadAndClose();
    expect([consensus.mayVote, consensus.applied, consensus.entries.length, state]).toEqual([true, 0, 12, []]);
    expect(problems[0]).toMatch(/11 records that do not add up to the 12/);
    expect((await loadAndClose()).problems).toEqual([]);
  });

  it('a crash between database and vote file is no loss (truncation in flight)', async () => {
    await filled();
    const store = await openLevelStore({ dataDir });
    await store.load();
    await store.write(batch({ consensus: [append(...commands(13, 20, 12))] }));
    const before = await readFile(join(dataDir, 'votes'));
    await store.write(
      batch({ consensus: [vote(20, null), { type: 'truncate', from: logIndex(14) }, append(command(14, 20))] }),
    );
    await store.close();
    await writeFile(join(dataDir, 'votes'), before);
    const { consensus, problems } = await loadAndClose();
    expect([consensus.mayVote, consensus.hardState.term, consensus.entries.length, problems]).toEqual([
      true,
      20,
      14,
      [],
    ]);
  });

  it('holds what it acknowledged when its process is killed in the middle of writing', async () => {
    const script = `
      import { openLevelStore } from ${JSON.stringify(new URL('../../../src/adapters/level/level-store.ts', import.meta.url).href)};
      import { append, batch, command, vote } from ${JSON.stringify(new URL('../../contract/store-batches.ts', import.meta.url).href)};
      const store = await openLevelStore({ dataDir: process.argv[1] });
      await store.load();
      for (let i = 1; ; i++) {
        void store.write(batch({ consensus: [vote(i, 'a'), append(command(i, i))] })).then(() => process.stdout.write(i + '\\n'));
        if (i % 3 === 0) await store.write(batch());
      }`;
    const child = spawn(process.execPath, ['--input-type=module', '-e', script, dataDir], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    let output = '';
    await new Promise<void>((resolve) => {
      child.stdout.on('data', (data: Buffer) => {
        output += data.toString();
        if (output.length > 1500) resolve();
      });
    });
    child.kill('SIGKILL');
    await once(child, 'close');
    const acknowledged = Math.max(...output.trim().split('\n').slice(0, -1).map(Number));
    const { consensus, problems } = await loadAndClose();
    expect([consensus.mayVote, problems]).toEqual([true, []]);
    expect(consensus.entries.length).toBeGreaterThanOrEqual(acknowledged);
    expect(consensus.hardState.term).toBe(consensus.entries.length);
  });

  it('names who holds the data directory, a path that is none, and a full disk', async () => {
    const holder = await openLevelStore({ dataDir });
    const second = `
      import { openLevelStore } from ${JSON.stringify(new URL('../../../src/adapters/level/level-store.ts', import.meta.url).href)};
      await openLevelStore({ dataDir: process.argv[1] }).catch((e) => console.log(e.code + ': ' + e.message));`;
    const said = execFileSync(process.execPath, ['--input-type=module', '-e', second, dataDir]).toString();
    expect(said).toContain('data_dir_locked');
    expect(said).toContain(`process ${process.pid}`);
    await holder.close();
    const file = join(dataDir, 'file');
    await writeFile(file, '');
    await expect(openLevelStore({ dataDir: file })).rejects.toMatchObject({ code: 'data_dir_unusable' });
    await expect(openLevelStore({ dataDir: join(file, 'below') })).rejects.toMatchObject({ code: 'data_dir_unusable' });
    await unlink(join(dataDir, 'votes'));
    await symlink('/dev/full', join(dataDir, 'votes'));
    const store = await openLevelStore({ dataDir }).catch((error: unknown) => error);
    expect(store).toMatchObject({ code: 'disk_full' });
  });

  it('a write that finds the disk full ends the store', async () => {
    const limited = `
      import { openLevelStore } from ${JSON.stringify(new URL('../../../src/adapters/level/level-store.ts', import.meta.url).href)};
      import { append, batch, command } from ${JSON.stringify(new URL('../../contract/store-batches.ts', import.meta.url).href)};
      process.on('SIGXFSZ', () => undefined);
      const store = await openLevelStore({ dataDir: process.argv[1] });
      await store.load();
      const codes = [];
      for (let i = 1; i < 100; i++) await store.write(batch({ consensus: [append(command(i, 1, 'y'.repeat(10000)))] })).catch((e) => codes.push(e.code));
      console.log(JSON.stringify([codes.length > 1, [...new Set(codes)]]));
      process.exit();`;
    // A limit on file sizes stands for a full disk: the write fails just so, with another errno.
    const output = execFileSync('sh', [
      '-c',
      'ulimit -f 400; exec "$0" --input-type=module -e "$1" "$2"',
      process.execPath,
      limited,
      dataDir,
    ]);
    expect(JSON.parse(output.toString())).toEqual([true, ['store_failed']]);
    expect((await loadAndClose()).consensus.mayVote).toBe(true);
  });
});

describe('vote file', () => {
  it('merges promises made while one is being written, and gives the newest back', async () => {
    const dataDir = await fresh();
    try {
      const path = join(dataDir, 'votes');
      const file = await VoteFile.open(path);
      expect([file.created, file.found]).toEqual([true, undefined]);
      await Promise.all(
        Array.from({ length: 50 }, (_, i) =>
          file.write({ ...NOTHING_PROMISED, sequence: i + 1, term: i, lastHash: new Uint8Array(32).fill(i) }),
        ),
      );
      await file.close();
      const again = await VoteFile.open(path);
      expect(again.found).toMatchObject({ sequence: 50, term: 49 });
      await again.close();
      expect((await stat(path)).size).toBe(8192);
    } finally {
      await rm(dataDir, { recursive: true });
    }
  });

  it('refuses a name that does not fit its slot', () => {
    expect(() => encodeVote({ ...NOTHING_PROMISED, votedFor: 'x'.repeat(300) as never, term: term(1) })).toThrow(
      RangeError,
    );
  });
});

describe('level store at size', () => {
  it('loads 10,000 records and a full log', async () => {
    const dataDir = await fresh();
    try {
      const store = await openLevelStore({ dataDir });
      await store.load();
      const state = Array.from({ length: 10_000 }, (_, i) => ({
        key: `task/${i}`,
        value: { id: `task-${i}`, spec: { name: `t${i}`, image: 'busybox' } },
      }));
      await store.write(batch({ consensus: [append(...commands(1, 8192, 1))], state, applied: logIndex(8192) }));
      await store.close();
      const contents = await loadTimed(dataDir);
      expect([contents.state.length, contents.consensus.entries.length]).toEqual([10_000, 8192]);
    } finally {
      await rm(dataDir, { recursive: true });
    }
  });
});

async function loadTimed(dataDir: string): Promise<StoreContents> {
  const store = await openLevelStore({ dataDir });
  try {
    return await store.load();
  } finally {
    await store.close();
  }
}

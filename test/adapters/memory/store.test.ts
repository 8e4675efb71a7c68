import { describe, expect, it } from 'vitest';
import { MemoryDisk, openMemoryStore } from '../../../src/adapters/memory/store.ts';
import { logIndex } from '../../../src/model/ids.ts';
import { append, batch, command, commands, readmission, vote } from '../../contract/store-batches.ts';
import { storeContract } from '../../contract/store-contract.ts';

storeContract('memory', async () => {
  const disk = new MemoryDisk();
  return { open: () => openMemoryStore(disk), dispose: async () => undefined };
});

describe('memory store faults', () => {
  const filled = async () => {
    const disk = new MemoryDisk();
    const store = await openMemoryStore(disk);
    await store.load();
    await store.write(batch({ consensus: [vote(1, 'a'), append(...commands(1, 3, 1))] }));
    await store.write(batch({ state: [{ key: 'k', value: 1 }], applied: logIndex(2), sync: false }));
    await store.write(batch({ state: [{ key: 'k', value: 2 }], applied: logIndex(3), sync: false }));
    return { disk, store };
  };
  const afterCrash = async (disk: MemoryDisk) => await (await openMemoryStore(disk)).load();

  it('a crash takes unsynced batches and only those', async () => {
    const { disk, store } = await filled();
    disk.crash();
    await expect(store.write(batch())).rejects.toMatchObject({ code: 'aborted' });
    const { consensus, state } = await afterCrash(disk);
    expect([consensus.entries.length, consensus.applied, state, consensus.mayVote]).toEqual([3, 0, [], true]);
  });

  it('a crash may keep some unsynced batches, in order', async () => {
    const { disk } = await filled();
    disk.crash({ keepUnsynced: 1 });
    const { consensus, state } = await afterCrash(disk);
    expect([consensus.applied, state]).toEqual([2, [{ key: 'k', value: 1 }]]);
  });

  it('a disk that loses a synced batch costs the right to vote, until readmitted', async () => {
    const { disk, store } = await filled();
    await store.write(batch({ consensus: [vote(4, 'b'), append(command(4, 4))] }));
    disk.crash({ loseSynced: 1 });
    const reopened = await openMemoryStore(disk);
    const first = await reopened.load();
    expect(first.consensus.mayVote).toBe(false);
    expect(first.consensus.hardState).toEqual({ term: 4, votedFor: 'b' });
    expect(first.problems).toHaveLength(1);
    await reopened.write(batch({ consensus: [append(command(4, 4))] }));
    disk.crash();
    expect((await afterCrash(disk)).consensus.mayVote).toBe(false);
    disk.crash();
    const last = await openMemoryStore(disk);
    await last.load();
    await last.write(batch({ consensus: [readmission(4)] }));
    disk.crash();
    expect((await afterCrash(disk)).consensus.mayVote).toBe(true);
  });

  it('a torn vote file alone costs nothing: the database is ahead of it', async () => {
    const { disk, store } = await filled();
    await store.write(batch({ consensus: [vote(5, 'c')] }));
    disk.crash({ tearVoteFile: true });
    const { consensus } = await afterCrash(disk);
    expect([consensus.mayVote, consensus.hardState.term]).toEqual([true, 5]);
  });

  it('a failed write ends the store', async () => {
    const { disk, store } = await filled();
    disk.failNextWrite = 'disk_full';
    await expect(store.write(batch({ consensus: [append(command(4, 1))] }))).rejects.toMatchObject({
      code: 'disk_full',
    });
    await expect(store.write(batch())).rejects.toMatchObject({ code: 'disk_full' });
  });
});

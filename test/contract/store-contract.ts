import { afterEach, describe, expect, it } from 'vitest';
import type { LogEntry, Membership } from '../../src/core/consensus/types.ts';
import type { StatePut } from '../../src/core/state/types.ts';
import { logIndex, nodeId, taskId, term, wallMs } from '../../src/model/ids.ts';
import type { Submission } from '../../src/model/records.ts';
import type { Store } from '../../src/ports/store.ts';
import { append, batch, command, commands, vote } from './store-batches.ts';
import { taskSpec } from '../model/fixtures.ts';

/** One machine's disk: opened, closed and opened again. */
export interface StoreBed {
  open(): Promise<Store>;
  dispose(): Promise<void>;
}

const members: Membership = { voters: [nodeId('a'), nodeId('b')], outgoing: [nodeId('a')] };
const submission = (id: string): Submission => ({
  id: taskId(id),
  spec: taskSpec({ name: id }),
  nonce: 'n',
  expiresAt: wallMs(5),
  from: nodeId('a'),
});
async function* stream(pairs: readonly StatePut[]): AsyncGenerator<StatePut> {
  yield* pairs;
}
/** Node's Buffers and plain arrays of the same bytes are the same value. */
const plain = (entries: readonly LogEntry[]): unknown =>
  entries.map((e) => ({
    ...e,
    payload: e.payload.kind === 'command' ? { ...e.payload, bytes: [...e.payload.bytes] } : e.payload,
  }));

/** What every store does. Each test gets a fresh disk. */
export function storeContract(name: string, makeBed: () => Promise<StoreBed>): void {
  describe(`store contract: ${name}`, () => {
    let bed: StoreBed | undefined;
    let store: Store | undefined;
    const open = async (): Promise<Store> => {
      bed ??= await makeBed();
      store = await bed.open();
      return store;
    };
    const reopen = async (): Promise<Store> => {
      await store?.close();
      return await open();
    };
    afterEach(async () => {
      await store?.close();
      await bed?.dispose();
      store = undefined;
      bed = undefined;
    });

    it('starts empty, able to vote', async () => {
      const contents = await (await open()).load();
      expect(contents.consensus).toEqual({
        hardState: { term: 0, votedFor: null },
        snapshot: { index: 0, term: 0, membership: { voters: [], outgoing: null } },
        entries: [],
        applied: 0,
        mayVote: true,
      });
      expect([contents.state, contents.pendingSubmissions, contents.local.size, contents.problems]).toEqual([
        [],
        [],
        0,
        [],
      ]);
    });

    it('gives back vote, log of every kind, state, submissions and local facts after a restart', async () => {
      const s = await open();
      await s.load();
      const entries: LogEntry[] = [
        { index: logIndex(1), term: term(1), payload: { kind: 'noop' } },
        { index: logIndex(2), term: term(1), payload: { kind: 'membership', membership: members } },
        command(3, 70_000),
        command(4, 2 ** 40, 'x'.repeat(300)),
        { index: logIndex(5), term: term(2 ** 40), payload: { kind: 'command', bytes: new Uint8Array(0) } },
      ];
      await s.write(
        batch({
          consensus: [vote(2 ** 40, 'peer-b'), append(...entries)],
          state: [
            { key: 'task/b', value: { n: 1, bytes: new Uint8Array([1, 2]), none: null } },
            { key: 'task/a', value: 'A' },
          ],
          applied: logIndex(3),
          addSubmissions: [submission('s1'), submission('s2')],
          local: [{ key: 'incarnation', value: new Uint8Array([7]) }],
        }),
      );
      await s.write(
        batch({ removeSubmissions: [taskId('s1')], state: [{ key: 'task/none', value: null }], sync: false }),
      );
      const { consensus, state, pendingSubmissions, local, problems } = await (await reopen()).load();
      expect(consensus.hardState).toEqual({ term: 2 ** 40, votedFor: 'peer-b' });
      expect(plain(consensus.entries)).toEqual(plain(entries));
      expect([consensus.applied, consensus.mayVote, problems]).toEqual([3, true, []]);
      expect(state).toEqual([
        { key: 'task/a', value: 'A' },
        { key: 'task/b', value: { n: 1, bytes: new Uint8Array([1, 2]), none: null } },
      ]);
      expect(pendingSubmissions).toEqual([submission('s2')]);
      expect([...(local.get('incarnation') ?? [])]).toEqual([7]);
    });

    it('truncates a conflicting suffix and appends in its place, in one batch (Raft figure 2, AppendEntries 3 and 4)', async () => {
      const s = await open();
      await s.load();
      await s.write(batch({ consensus: [vote(1, null), append(...commands(1, 10, 1))] }));
      await s.write(
        batch({
          consensus: [vote(3, null), { type: 'truncate', from: logIndex(8) }, append(command(8, 3), command(9, 3))],
        }),
      );
      expect(plain(await s.entries(logIndex(7), logIndex(20)))).toEqual(
        plain([command(7, 1), command(8, 3), command(9, 3)]),
      );
      await s.write(batch({ consensus: [{ type: 'truncate', from: logIndex(9) }] }));
      const { consensus } = await (await reopen()).load();
      expect(plain(consensus.entries)).toEqual(plain([...commands(1, 7, 1), command(8, 3)]));
      expect(consensus.mayVote).toBe(true);
    });

    it('compacts up to what is applied, even all of the log', async () => {
      const s = await open();
      await s.load();
      await s.write(
        batch({ consensus: [append(...commands(1, 6, 1))], state: [{ key: 'k', value: 1 }], applied: logIndex(6) }),
      );
      await s.write(
        batch({ consensus: [{ type: 'compact', upTo: logIndex(4), term: term(1), membership: members }], sync: false }),
      );
      expect(plain(await s.entries(logIndex(1), logIndex(9)))).toEqual(plain(commands(5, 6, 1)));
      const again = await reopen();
      const first = await again.load();
      expect(first.consensus.snapshot).toEqual({ index: 4, term: 1, membership: members });
      expect(plain(first.consensus.entries)).toEqual(plain(commands(5, 6, 1)));
      await again.write(
        batch({ consensus: [{ type: 'compact', upTo: logIndex(6), term: term(1), membership: members }] }),
      );
      await again.write(batch({ consensus: [append(command(7, 2))] }));
      const second = await (await reopen()).load();
      expect(second.consensus.snapshot.index).toBe(6);
      expect(plain(second.consensus.entries)).toEqual(plain([command(7, 2)]));
      expect(second.consensus.mayVote).toBe(true);
    });

    it('takes the first membership from a compaction at index 0', async () => {
      const s = await open();
      await s.load();
      await s.write(batch({ consensus: [{ type: 'compact', upTo: logIndex(0), term: term(0), membership: members }] }));
      expect((await (await reopen()).load()).consensus.snapshot).toEqual({ index: 0, term: 0, membership: members });
    });

    it('refuses what does not join on, and leaves no trace of it', async () => {
      const s = await open();
      await s.load();
      await s.write(batch({ consensus: [append(...commands(1, 3, 1))], applied: logIndex(2) }));
      const local = [{ key: 'trace', value: new Uint8Array([1]) }];
      await expect(s.write(batch({ consensus: [append(command(5, 1))], local }))).rejects.toMatchObject({
        code: 'internal',
      });
      await expect(
        s.write(
          batch({ consensus: [{ type: 'compact', upTo: logIndex(3), term: term(1), membership: members }], local }),
        ),
      ).rejects.toMatchObject({ code: 'internal' });
      await expect(
        s.write(batch({ consensus: [{ type: 'truncate', from: logIndex(2) }], local })),
      ).rejects.toMatchObject({ code: 'internal' });
      await s.write(batch({ consensus: [append(command(4, 1))] }));
      const contents = await (await reopen()).load();
      expect(contents.consensus.entries).toHaveLength(4);
      expect(contents.local.size).toBe(0);
    });

    it('keeps the order of writes that were not waited for', async () => {
      const s = await open();
      await s.load();
      const writes = commands(1, 200, 1).map((entry) =>
        s.write(
          batch({
            consensus: [append(entry)],
            state: [{ key: 'last', value: entry.index }],
            applied: entry.index,
            sync: entry.index % 3 === 0,
          }),
        ),
      );
      await Promise.all(writes);
      const contents = await (await reopen()).load();
      expect(contents.consensus.entries).toHaveLength(200);
      expect(contents.state).toEqual([{ key: 'last', value: 200 }]);
    });

    it('installs a snapshot in place of state and log', async () => {
      const s = await open();
      await s.load();
      await s.write(
        batch({
          consensus: [vote(2, 'b'), append(...commands(1, 5, 1))],
          state: [{ key: 'old', value: 1 }],
          applied: logIndex(5),
          addSubmissions: [submission('s')],
        }),
      );
      const pairs = Array.from({ length: 1234 }, (_, i) => ({
        key: `task/${String(i).padStart(5, '0')}`,
        value: { i },
      }));
      await s.installSnapshot({ index: logIndex(100), term: 2, membership: members, pairs: stream(pairs) });
      await s.write(
        batch({
          consensus: [append(command(101, 2))],
          state: [{ key: 'task/00000', value: null }],
          applied: logIndex(101),
        }),
      );
      const contents = await (await reopen()).load();
      expect(contents.consensus.snapshot).toEqual({ index: 100, term: 2, membership: members });
      expect(plain(contents.consensus.entries)).toEqual(plain([command(101, 2)]));
      expect(contents.consensus.applied).toBe(101);
      expect(contents.consensus.hardState).toEqual({ term: 2, votedFor: 'b' });
      expect(contents.state).toEqual(pairs.slice(1));
      expect(contents.pendingSubmissions).toHaveLength(1);
      expect(contents.consensus.mayVote).toBe(true);
    });

    it('keeps the entries after a snapshot that the log already holds', async () => {
      const s = await open();
      await s.load();
      await s.write(
        batch({ consensus: [append(...commands(1, 5, 1))], state: [{ key: 'old', value: 1 }], applied: logIndex(2) }),
      );
      await s.installSnapshot({
        index: logIndex(3),
        term: 1,
        membership: members,
        pairs: stream([{ key: 'new', value: 2 }]),
      });
      await s.installSnapshot({
        index: logIndex(2),
        term: 1,
        membership: members,
        pairs: stream([{ key: 'stale', value: 3 }]),
      });
      const contents = await (await reopen()).load();
      expect(plain(contents.consensus.entries)).toEqual(plain(commands(4, 5, 1)));
      expect([contents.consensus.applied, contents.state]).toEqual([3, [{ key: 'new', value: 2 }]]);
    });

    it('keeps the state of a snapshot against state asked for before it', async () => {
      const s = await open();
      await s.load();
      const pairs = stream([{ key: 'k', value: 'new' }]);
      await s.installSnapshot({ index: logIndex(9), term: 1, membership: members, pairs });
      await s.write(batch({ state: [{ key: 'k', value: 'old' }], applied: logIndex(5), sync: false }));
      const contents = await (await reopen()).load();
      expect([contents.consensus.applied, contents.state]).toEqual([9, [{ key: 'k', value: 'new' }]]);
    });

    it('takes what was asked for before a snapshot was known, as far as the snapshot does not stand for it (Raft figure 13)', async () => {
      const s = await open();
      await s.load();
      await s.write(batch({ consensus: [append(...commands(1, 5, 1))], applied: logIndex(2) }));
      await s.installSnapshot({ index: logIndex(9), term: 2, membership: members, pairs: stream([]) });
      // Appended by a core that had not heard of the snapshot yet; then its answer to the snapshot.
      await s.write(batch({ consensus: [append(...commands(6, 8, 1))] }));
      await s.write(batch({ consensus: [{ type: 'truncate', from: logIndex(3) }, append(command(10, 2))] }));
      const { consensus } = await (await reopen()).load();
      expect([consensus.snapshot.index, consensus.applied]).toEqual([9, 9]);
      expect(plain(consensus.entries)).toEqual(plain([command(10, 2)]));
      expect(consensus.mayVote).toBe(true);
    });

    it('is opened by one at a time', async () => {
      await open();
      await expect(bed?.open()).rejects.toMatchObject({ code: 'data_dir_locked' });
    });

    it('takes nothing after it is closed', async () => {
      const s = await open();
      await s.load();
      await s.close();
      await expect(s.write(batch())).rejects.toMatchObject({ code: 'aborted' });
    });
  });
}

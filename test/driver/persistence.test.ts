import { describe, expect, it } from 'vitest';
import { createPersistence } from '../../src/driver/persistence.ts';
import { type LogIndex, nodeId, type TaskId, type Term } from '../../src/model/ids.ts';
import type { Store, StoreBatch } from '../../src/ports/store.ts';

// 'Saved to stable storage BEFORE messages are sent' (etcd-io/raft), with one fsync for everything that gathered meanwhile.

/** A store whose writes end when the test says so. */
class HeldStore {
  readonly writes: { readonly batch: StoreBatch; readonly end: () => void; readonly fail: (error: Error) => void }[] =
    [];
  #arrived: () => void = () => {};
  readonly store = {
    write: (batch: StoreBatch) =>
      new Promise<void>((resolve, reject) => {
        this.writes.push({ batch, end: resolve, fail: reject });
        this.#arrived();
      }),
  } as unknown as Store;
  async next(count: number): Promise<void> {
    while (this.writes.length < count)
      await new Promise<void>((resolve) => {
        this.#arrived = resolve;
      });
  }
}

const hardState = (t: number) =>
  ({ type: 'hard-state', hardState: { term: t as Term, votedFor: nodeId('a') } }) as const;

function bed() {
  const held = new HeldStore();
  const log: string[] = [];
  const persistence = createPersistence(held.store, {
    onPersisted: (id) => log.push(`persisted ${id}`),
    onStateWritten: (index) => log.push(`written ${index}`),
    onFailure: (error) => log.push(`failed ${(error as Error).message}`),
  });
  return { held, log, persistence };
}

const turns = async (n = 3): Promise<void> => {
  for (let i = 0; i < n; i++) await new Promise((resolve) => setImmediate(resolve));
};

describe('group commit', () => {
  it('sends only when everything asked for before is durable, and tells the core after that', async () => {
    const { held, log, persistence } = bed();
    persistence.persist(1, [hardState(1)]);
    persistence.afterPersist(() => log.push('vote sent'));
    await held.next(1);
    expect(log).toEqual([]);
    held.writes[0]?.end();
    await turns();
    expect(log).toEqual(['vote sent', 'persisted 1']);
  });

  it('a message asked for while a write is under way waits for it, also with nothing new to write', async () => {
    const { held, log, persistence } = bed();
    persistence.persist(1, [hardState(1)]);
    await held.next(1);
    persistence.afterPersist(() => log.push('sent'));
    await turns();
    expect(log).toEqual([]);
    held.writes[0]?.end();
    await turns();
    expect(log[0]).toBe('sent');
  });

  it('with nothing outstanding a message leaves at once', () => {
    const { log, persistence } = bed();
    persistence.afterPersist(() => log.push('sent'));
    expect(log).toEqual(['sent']);
  });

  it('gathers all of one write into the next batch: one fsync', async () => {
    const { held, log, persistence } = bed();
    persistence.persist(1, [hardState(1)]);
    await held.next(1);
    for (let i = 2; i <= 20; i++) persistence.persist(i, [hardState(i)]);
    held.writes[0]?.end();
    await held.next(2);
    held.writes[1]?.end();
    await turns();
    expect(held.writes.length).toBe(2);
    expect(held.writes[1]?.batch.consensus.length).toBe(19);
    expect(log).toEqual(['persisted 1', 'persisted 20']);
    expect(persistence.batches).toBe(2);
  });

  it('applied state waits for its time, and of a record that changes often only the last form is written', async () => {
    const { held, log, persistence } = bed();
    for (let i = 1; i <= 5; i++) {
      persistence.writeState([{ key: 'setting/x', value: i }], i as LogIndex);
      persistence.persist(i, [hardState(i)]);
    }
    await held.next(1);
    expect(held.writes[0]?.batch.applied).toBeNull();
    held.writes[0]?.end();
    await held.next(2);
    expect([held.writes[1]?.batch.state, held.writes[1]?.batch.applied]).toEqual([[{ key: 'setting/x', value: 5 }], 5]);
    held.writes[1]?.end();
    await turns();
    expect(log).toEqual(['persisted 5', 'written 5']);
  });

  it('whoever waits for everything, or for its turn on the store, finds the state written', async () => {
    const { held, log, persistence } = bed();
    persistence.writeState([{ key: 'k', value: 1 }], 1 as LogIndex);
    const turn = persistence.exclusive(async () => void log.push('turn'));
    await held.next(1);
    held.writes[0]?.end();
    await turn;
    persistence.writeState([{ key: 'k', value: 2 }], 2 as LogIndex);
    const idle = persistence.idle().then(() => log.push('idle'));
    await held.next(2);
    held.writes[1]?.end();
    await idle;
    expect(log).toEqual(['written 1', 'turn', 'written 2', 'idle']);
  });

  it('state alone needs no fsync; a submission does', async () => {
    const { held, persistence } = bed();
    persistence.writeState([{ key: 'k', value: 1 }], 1 as LogIndex);
    await held.next(1);
    expect(held.writes[0]?.batch.sync).toBe(false);
    persistence.keepSubmission({ id: 'x' as TaskId } as never, () => {});
    held.writes[0]?.end();
    await held.next(2);
    expect(held.writes[1]?.batch.sync).toBe(true);
  });

  it('after a failed write nothing is sent or written any more', async () => {
    const { held, log, persistence } = bed();
    persistence.persist(1, [hardState(1)]);
    persistence.afterPersist(() => log.push('vote sent'));
    await held.next(1);
    held.writes[0]?.fail(new Error('no space left'));
    await turns();
    persistence.persist(2, [hardState(2)]);
    await turns();
    expect(log).toEqual(['failed no space left']);
    expect(held.writes.length).toBe(1);
  });
});

describe('work in its turn', () => {
  it('begins after the writes asked for before, and holds back those asked for later', async () => {
    const { held, log, persistence } = bed();
    persistence.persist(1, [hardState(1)]);
    let end: () => void = () => {};
    const work = persistence.exclusive(() => {
      log.push('work begins');
      return new Promise<void>((resolve) => {
        end = resolve;
      });
    });
    await held.next(1);
    held.writes[0]?.end();
    await turns();
    expect(log).toEqual(['persisted 1', 'work begins']);
    persistence.persist(2, [hardState(2)]);
    await turns();
    expect(held.writes.length).toBe(1);
    end();
    await work;
    await held.next(2);
    expect(held.writes[1]?.batch.consensus.length).toBe(1);
  });
});

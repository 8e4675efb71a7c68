import { describe, expect, test } from 'vitest';
import { createLeaseGranter, type GranterEffect } from '../../../src/core/lease/granter.ts';
import { createLeaseHolder, type HolderEffect } from '../../../src/core/lease/holder.ts';
import { granterWaitMs, holderLeaseMs } from '../../../src/core/lease/keys.ts';
import { DEFAULT_LEASE_CONFIG as CONFIG, type RenewMessage } from '../../../src/core/lease/types.ts';
import { type Term, term } from '../../../src/model/ids.ts';
import { A, B, C, closedOn, clusterState, key, ms, on, spec, task } from './fixtures.ts';

const exclusive = spec({ onPartition: 'stop' });
const stateWith = (g: number, node = A) => clusterState([task('t', exclusive, [{ g, state: on(node) }])]);
const renewal = (seq: number, g: number, released: number[] = []): RenewMessage => ({
  type: 'lease-renew',
  seq,
  leases: g > 0 ? [key(g)] : [],
  released: released.map((r) => key(r)),
});
const readId = (effects: readonly GranterEffect[]): number => {
  const found = effects.find((e) => e.type === 'read-index');
  if (found?.type !== 'read-index') throw new Error('no read-index effect');
  return found.id;
};

let leads: Term | null = null;
function granterAt(t: Term, now: number, pendingAssign = () => false) {
  const granter = createLeaseGranter(CONFIG, { leading: () => leads, pendingAssign });
  leads = t;
  granter.becameMaster(t, ms(now));
  return granter;
}

describe('granter: acknowledge only after a quorum round begun after receipt', () => {
  test('acks an open generation of its node, after the round', () => {
    const g = granterAt(term(1), 0);
    const first = g.onRenew(A, renewal(1, 5), ms(10));
    expect(first).toEqual([{ type: 'read-index', id: readId(first) }]);
    expect(g.onReadReady(readId(first), true, ms(20), stateWith(5))).toEqual([
      { type: 'send', to: A, message: { type: 'lease-ack', seq: 1, acked: [key(5)], refused: [] } },
    ]);
  });

  test('renewals that arrive during a round share the next one', () => {
    const g = granterAt(term(1), 0);
    const id = readId(g.onRenew(A, renewal(1, 5), ms(10)));
    expect(g.onRenew(B, renewal(1, 5), ms(11))).toEqual([]);
    expect(g.onRenew(C, renewal(1, 5), ms(12))).toEqual([]);
    const effects = g.onReadReady(id, true, ms(20), stateWith(5));
    expect(effects.filter((e) => e.type === 'send').map((e) => (e.type === 'send' ? e.to : ''))).toEqual([A]);
    const second = g.onReadReady(readId(effects), true, ms(30), stateWith(5));
    expect(
      second.map((e) => (e.type === 'send' ? [e.to, e.message.acked.length, e.message.refused.length] : [])),
    ).toEqual([
      [B, 0, 1],
      [C, 0, 1],
    ]);
  });

  test.each([
    ['another node holds it', stateWith(5, B), () => false],
    ['another generation is open', stateWith(6), () => false],
    ['it is closed', clusterState([task('t', exclusive, [{ g: 5, state: closedOn(A) }])]), () => false],
    ['the task is gone', clusterState(), () => false],
    ['a later assignment stands in the log', stateWith(5), () => true],
  ])('refuses when %s', (_why, state, pendingAssign) => {
    const g = granterAt(term(1), 0, pendingAssign);
    const id = readId(g.onRenew(A, renewal(1, 5), ms(10)));
    expect(g.onReadReady(id, true, ms(20), state)).toMatchObject([{ message: { acked: [], refused: [key(5)] } }]);
  });

  test('a failed round answers nothing; a round without an answer is given up and its late answer ignored', () => {
    const g = granterAt(term(1), 0);
    const id = readId(g.onRenew(A, renewal(1, 5), ms(10)));
    expect(g.onReadReady(id, false, ms(20), stateWith(5))).toEqual([]);
    const lost = readId(g.onRenew(A, renewal(2, 5), ms(400)));
    expect(g.onRenew(A, renewal(3, 5), ms(800))).toEqual([]);
    const again = readId(g.onRenew(A, renewal(4, 5), ms(1500)));
    expect(g.onReadReady(lost, true, ms(1501), stateWith(5))).toEqual([]);
    expect(g.onReadReady(again, true, ms(1502), stateWith(5)).length).toBe(2);
  });

  test('a round answered after leadership was lost acknowledges nothing, told or not', () => {
    const g = granterAt(term(1), 0);
    const id = readId(g.onRenew(A, renewal(1, 5), ms(10)));
    leads = null;
    expect(g.onReadReady(id, true, ms(20), stateWith(5))).toEqual([]);
    expect(g.onRenew(A, renewal(2, 5), ms(30))).toEqual([]);
  });

  test('not master: nothing; closing refuses what is pending', () => {
    const g = granterAt(term(1), 0);
    g.lostMaster();
    expect(g.onRenew(A, renewal(1, 5), ms(10))).toEqual([]);
    leads = term(2);
    g.becameMaster(term(2), ms(20));
    const id = readId(g.onRenew(A, renewal(2, 5), ms(30)));
    g.close(key(5), A, ms(31));
    expect(g.onReadReady(id, true, ms(32), stateWith(5))).toMatchObject([
      { message: { acked: [], refused: [key(5)] } },
    ]);
  });
});

describe('granter: granting again', () => {
  const wait = granterWaitMs(CONFIG);
  test('waits L(1+r) from the last renewal received before closing, not from later ones', () => {
    const g = granterAt(term(1), 0);
    g.onRenew(A, renewal(1, 5), ms(50_000));
    expect(g.mayGrantAt(key(5))).toBeUndefined();
    g.close(key(5), A, ms(50_100));
    g.onRenew(A, renewal(2, 5), ms(50_400));
    g.close(key(5), A, ms(50_500));
    expect(g.mayGrantAt(key(5))).toBe(50_000 + wait);
  });

  test('a new master waits from its first commit for whatever it did not grant itself', () => {
    const g = granterAt(term(2), 1000);
    g.close(key(5), A, ms(1100));
    expect(g.mayGrantAt(key(5))).toBe(1000 + wait);
    g.assigning(key(6));
    g.close(key(6), A, ms(1200));
    expect(g.mayGrantAt(key(6))).toBe(1200);
  });

  test('a new term forgets what the old one knew', () => {
    const g = granterAt(term(2), 1000);
    g.assigning(key(6));
    g.becameMaster(term(3), ms(2000));
    g.close(key(6), A, ms(2001));
    expect(g.mayGrantAt(key(6))).toBe(2000 + wait);
  });

  test('released by its holder: at once, and never acknowledged again; not when another node says so', () => {
    const told: string[] = [];
    const g = createLeaseGranter(CONFIG, {
      leading: () => term(1),
      pendingAssign: () => false,
      onReleased: (k, from) => told.push(`${k.generation.g}@${from}`),
    });
    g.becameMaster(term(1), ms(0));
    g.onRenew(B, renewal(1, 0, [5]), ms(90));
    g.close(key(5), A, ms(100));
    expect(g.mayGrantAt(key(5))).toBe(wait);
    g.onRenew(A, renewal(1, 5, [5]), ms(110));
    expect(g.mayGrantAt(key(5))).toBe(0);
    expect(g.isReleased(key(5), A)).toBe(true);
    expect(told).toEqual(['5@B', '5@A']);
  });

  test('a stopped task keeps its lease while it stops; a closed generation closes those before it', () => {
    const stopped = clusterState([task('t', exclusive, [{ g: 5, state: { kind: 'pending', reason: 'stopped' } }])]);
    const g = granterAt(term(1), 0);
    const id = readId(g.onRenew(A, renewal(1, 5), ms(10)));
    expect(g.onReadReady(id, true, ms(20), stopped)).toMatchObject([{ message: { acked: [key(5)] } }]);
    g.close(key(6), null, ms(30_000));
    const again = readId(g.onRenew(A, renewal(2, 5), ms(30_010)));
    expect(g.onReadReady(again, true, ms(30_020), stopped)).toMatchObject([{ message: { refused: [key(5)] } }]);
  });

  test('a slot that came back under a new generation waits for renewals of its old one', () => {
    const g = granterAt(term(1), 0);
    g.onRenew(A, renewal(1, 5), ms(50_000));
    g.close(key(99), null, ms(50_100));
    expect(g.mayGrantAt(key(99))).toBe(50_000 + wait);
  });

  test('a message of an earlier life, arriving late, is void', () => {
    const g = granterAt(term(1), 0);
    g.onRenew(A, renewal(2 ** 30, 5), ms(10));
    g.onRenew(A, renewal(7, 0, [5]), ms(20));
    expect(g.isReleased(key(5), A)).toBe(false);
  });
});

describe('holder', () => {
  const sends = (effects: readonly HolderEffect[]): RenewMessage[] =>
    effects.flatMap((e) => (e.type === 'send' ? [e.message] : []));
  const leases = (effects: readonly HolderEffect[]) =>
    effects.flatMap((e) => (e.type === 'lease' ? [[e.key.generation.g, e.deadline, e.reason]] : []));
  const holderOf = (g: number, now: number) => {
    const h = createLeaseHolder(CONFIG, { firstSeq: 100 });
    h.master(B, ms(now));
    return { h, first: h.desired([key(g)], ms(now)) };
  };
  const ack = (seq: number, acked: number[], refused: number[] = []) => ({
    type: 'lease-ack' as const,
    seq,
    acked: acked.map((g) => key(g)),
    refused: refused.map((g) => key(g)),
  });

  test('renews at once for a new copy, then every renewEveryMs; the deadline counts from the send time', () => {
    const { h, first } = holderOf(5, 1000.7);
    expect(sends(first)).toMatchObject([{ seq: 100, leases: [key(5)] }]);
    expect(leases(h.onAck(B, ack(100, [5]), ms(1300)))).toEqual([[5, 1000 + holderLeaseMs(CONFIG), 'granted']]);
    expect(h.tick(ms(1399))).toEqual([]);
    expect(sends(h.tick(ms(1400.7)))).toMatchObject([{ seq: 101 }]);
    expect(leases(h.onAck(B, ack(101, [5]), ms(1401)))).toEqual([[5, 1400 + holderLeaseMs(CONFIG), 'renewed']]);
    // a duplicate or an older answer moves nothing
    expect(h.onAck(B, ack(100, [5]), ms(1402))).toEqual([]);
  });

  test('stops at deadline - S without answers, and an answer that comes too late starts nothing', () => {
    const { h } = holderOf(5, 0);
    h.onAck(B, ack(100, [5]), ms(5));
    const stopAt = holderLeaseMs(CONFIG) - CONFIG.stopAllowanceMs;
    expect(leases(h.tick(ms(stopAt - 1)))).toEqual([]);
    expect(leases(h.tick(ms(stopAt)))).toEqual([[5, undefined, 'expired']]);
    const late = holderOf(5, 0).h;
    expect(leases(late.onAck(B, ack(100, [5]), ms(stopAt)))).toEqual([]);
  });

  test('a copy no longer desired is not renewed, but its lease still ends', () => {
    const { h } = holderOf(5, 0);
    h.onAck(B, ack(100, [5]), ms(5));
    h.desired([], ms(10));
    expect(sends(h.tick(ms(2000)))).toEqual([]);
    expect(leases(h.tick(ms(2960)))).toEqual([[5, undefined, 'expired']]);
    expect(h.held()).toEqual([]);
  });

  test('refused: stop now; answers of others than the asked master, of unknown seqs or for keys not in that message are void', () => {
    const { h } = holderOf(5, 0);
    expect(h.onAck(C, ack(100, [5]), ms(5))).toEqual([]);
    expect(h.onAck(B, ack(7, [5]), ms(5))).toEqual([]);
    h.desired([key(5), key(6)], ms(30));
    expect(leases(h.onAck(B, ack(100, [5, 6]), ms(31)))).toEqual([[5, 3960, 'granted']]);
    expect(leases(h.onAck(B, ack(101, [], [5]), ms(32)))).toEqual([[5, undefined, 'refused']]);
  });

  test('a new master is asked at once; the old one may still answer what it was asked', () => {
    const { h } = holderOf(5, 0);
    expect(sends(h.master(C, ms(100)))).toMatchObject([{ seq: 101 }]);
    expect(leases(h.onAck(B, ack(100, [5]), ms(110)))).toEqual([[5, 3960, 'granted']]);
    expect(leases(h.onAck(C, ack(101, [5]), ms(120)))).toEqual([[5, 4060, 'renewed']]);
  });

  test('a burst of new copies shares a message', () => {
    const h = createLeaseHolder(CONFIG, { firstSeq: 1 });
    h.master(B, ms(0));
    const keys = Array.from({ length: 200 }, (_, i) => key(1, i));
    let sent = 0;
    for (let i = 1; i <= 200; i++) sent += sends(h.desired(keys.slice(0, i), ms(100))).length;
    expect(sent).toBe(1);
    expect(h.nextWake()).toBe(120);
    expect(sends(h.tick(ms(120)))[0]?.leases.length).toBe(200);
  });

  test('released: said until the master echoes it, and its lease is gone', () => {
    const { h } = holderOf(5, 0);
    h.onAck(B, ack(100, [5]), ms(5));
    expect(sends(h.released(key(5), ms(50)))).toMatchObject([{ leases: [], released: [key(5)] }]);
    expect(sends(h.tick(ms(450)))).toMatchObject([{ released: [key(5)] }]);
    h.onAck(B, ack(102, [], [5]), ms(460));
    expect(sends(h.tick(ms(1000)))).toEqual([]);
    expect(h.nextWake()).toBeUndefined();
    // desired once more (a record that lags): never renewed, said again
    expect(sends(h.desired([key(5)], ms(2000)))).toMatchObject([{ leases: [], released: [key(5)] }]);
  });

  test('refused while it is only ending: what is left of the lease may be used up', () => {
    const { h } = holderOf(5, 0);
    h.onAck(B, ack(100, [5]), ms(5));
    h.desired([key(5)], ms(10), [key(5)]);
    h.tick(ms(400));
    expect(h.onAck(B, ack(101, [], [5]), ms(410))).toEqual([]);
    expect(leases(h.tick(ms(2960)))).toEqual([[5, undefined, 'expired']]);
  });

  test('a deadline kept by boot is adopted, unless it is too near', () => {
    const h = createLeaseHolder(CONFIG, { firstSeq: 1 });
    expect(leases(h.adopt(key(5), ms(3000), ms(1000)))).toEqual([[5, 3000, 'adopted']]);
    expect(createLeaseHolder(CONFIG, { firstSeq: 1 }).adopt(key(6), ms(3000), ms(2000))).toEqual([]);
    expect(leases(h.tick(ms(2000)))).toEqual([[5, undefined, 'expired']]);
  });
});

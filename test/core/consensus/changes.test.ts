import { describe, expect, test } from 'vitest';
import type { NodeId } from '../../../src/model/ids.ts';
import { Cluster } from './cluster-sim.ts';
import { members, Rig } from './rig.ts';

const ids = (...names: string[]): NodeId[] => names as NodeId[];

describe('joint consensus (thesis 4.3)', () => {
  /** A leads A, B, C and knows D, E as learners that have caught up. */
  const ready = (): Rig => {
    const rig = new Rig().lead();
    rig.ack('B', 1);
    rig.do({ type: 'learners', learners: ids('D', 'E'), direct: [] });
    for (const id of ['C', 'D', 'E']) rig.ack(id, 1);
    return rig;
  };
  const change = (rig: Rig, ...voters: string[]) =>
    rig.do({ type: 'change-voters', voters: ids(...voters), proposalId: 50 });

  test('joint as soon as appended; commits need both majorities; then the new set alone', () => {
    const rig = ready();
    change(rig, 'A', 'D', 'E');
    expect(rig.core.view().membership).toEqual(members('ADE', 'ABC'));
    rig.flush();
    rig.ack('D', 2);
    expect(rig.core.view().commit).toBe(1);
    rig.ack('B', 2);
    expect(rig.core.view()).toMatchObject({ commit: 2, membership: members('ADE') });
    expect(rig.get('proposal')).toEqual([]);
    rig.flush();
    rig.ack('B', 3);
    rig.ack('C', 3);
    expect(rig.core.view().commit).toBe(2);
    rig.ack('E', 3);
    expect(rig.get('proposal')).toMatchObject([{ proposalId: 50, result: { ok: true, index: 3 } }]);
    expect(rig.get('membership')).toMatchObject([{ membership: members('ADE'), committed: true }]);
  });

  test('one change at a time, and none before the no-op of the term is committed', () => {
    const early = new Rig().lead();
    change(early, 'A', 'B');
    expect(early.get('proposal')).toMatchObject([{ result: { ok: false, reason: 'changing' } }]);
    const rig = ready();
    change(rig, 'A', 'B', 'D');
    change(rig, 'A', 'B', 'E');
    expect(rig.get('proposal')).toMatchObject([{ result: { ok: false, reason: 'changing' } }]);
  });

  test('a learner that has not caught up, or is not known, does not become a voter', () => {
    const rig = ready();
    rig.propose(...Array.from({ length: 1200 }, (_, i) => i));
    change(rig, 'A', 'B', 'D');
    expect(rig.get('proposal')).toMatchObject([{ result: { reason: 'changing' } }]);
    change(rig, 'A', 'B', 'X');
    expect(rig.get('proposal')).toMatchObject([{ result: { reason: 'changing' } }]);
  });

  test('the same set again is done already', () => {
    const rig = ready();
    change(rig, 'C', 'B', 'A');
    expect(rig.get('proposal')).toMatchObject([{ result: { ok: true } }]);
    expect(rig.get('persist')).toEqual([]);
  });

  test('a leader not in the new set leads until that is committed, then hands over (4.2.2)', () => {
    const rig = ready();
    change(rig, 'B', 'C');
    rig.flush();
    rig.ack('B', 2);
    rig.ack('C', 2);
    rig.flush();
    rig.ack('B', 3);
    expect(rig.core.view().role).toBe('leader');
    rig.ack('C', 3);
    expect(rig.core.view()).toMatchObject({ role: 'learner', commit: 3 });
    expect(rig.sent('timeout-now').length).toBe(1);
  });

  test('a truncated membership entry holds no longer', () => {
    const rig = new Rig({ term: 1 });
    const entry = { index: 1, term: 1, payload: { kind: 'membership', membership: members('BCD', 'ABC') } };
    rig.append('B', 1, 0, 0, [entry as never]);
    expect(rig.core.view().membership).toEqual(members('BCD', 'ABC'));
    rig.append('C', 2, 0, 0, [{ index: 1, term: 2, payload: { kind: 'noop' } } as never]);
    expect(rig.core.view().membership).toEqual(members('ABC'));
    expect(rig.get('membership')).toMatchObject([{ membership: members('ABC'), committed: false }]);
  });

  test('a peer whose removal is not known committed may still campaign (4.2.2)', () => {
    const rig = new Rig({ term: 1 });
    const entry = { index: 1, term: 1, payload: { kind: 'membership', membership: members('B') } };
    rig.append('B', 1, 0, 0, [entry as never]);
    expect(rig.core.view().role).toBe('follower');
    rig.append('B', 1, 1, 1, [], { commit: 1 });
    expect(rig.core.view().role).toBe('learner');
    expect(rig.core.nextWake()).toBeUndefined();
  });

  test('a peer whose log was lost votes again once it was a learner and is a voter', () => {
    const rig = new Rig({ self: 'C', mayVote: false });
    const entry = { index: 1, term: 1, payload: { kind: 'membership', membership: members('ABC') } };
    rig.append('A', 1, 0, 0, [entry as never]);
    expect(rig.core.view()).toMatchObject({ mayVote: false, role: 'learner' });
    rig.append('A', 1, 1, 1, [], { learner: true });
    expect(rig.core.view().mayVote).toBe(false);
    rig.append('A', 1, 1, 1, [], { learner: false });
    expect(rig.core.view()).toMatchObject({ mayVote: true, role: 'follower' });
    expect(rig.get('persist')[0]?.ops).toMatchObject([{ type: 'hard-state', readmitted: true }]);
    expect(rig.sent('append-reply')).toMatchObject([{ message: { mayVote: true } }]);
  });
});

describe('leadership transfer (thesis 3.10)', () => {
  test('the target is told to campaign once it has everything, and proposals wait', () => {
    const rig = new Rig().lead();
    rig.ack('B', 1);
    rig.propose(1);
    rig.do({ type: 'transfer', to: 'B' as NodeId });
    expect(rig.sent('timeout-now')).toEqual([]);
    rig.propose(2);
    expect(rig.get('proposal')).toMatchObject([{ result: { reason: 'changing' } }]);
    rig.ack('B', 2);
    expect(rig.sent('timeout-now')).toEqual([]);
    rig.flush();
    expect(rig.sent('timeout-now')).toMatchObject([{ to: 'B', message: { term: 1 } }]);
  });

  test('it campaigns at once, past the lease of those who hear the leader', () => {
    const rig = new Rig({ term: 1 });
    rig.append('B', 1, 0, 0, []);
    rig.hear('B', { type: 'timeout-now', term: 1 });
    expect(rig.sent('vote-request')).toMatchObject([
      { message: { term: 2, preVote: false, transfer: true } },
      { message: { term: 2 } },
    ]);
    const other = new Rig({ term: 1 });
    other.append('B', 1, 0, 0, []);
    other.voteRequest('C', 2, 0, 0, { transfer: true });
    expect(other.sent('vote-reply')).toMatchObject([{ message: { granted: true } }]);
  });

  test('only the leader of the term may say so', () => {
    const rig = new Rig({ term: 1 });
    rig.append('B', 1, 0, 0, []);
    rig.hear('C', { type: 'timeout-now', term: 1 });
    rig.hear('B', { type: 'timeout-now', term: 0 });
    expect(rig.core.view().role).toBe('follower');
  });

  test('given up after its time; proposals are taken again', () => {
    const rig = new Rig().lead();
    rig.flush();
    rig.do({ type: 'transfer', to: 'B' as NodeId });
    const end = rig.now + 1000;
    while (rig.now < end) {
      rig.wake();
      rig.ack('C', 1);
    }
    rig.propose(9);
    expect(rig.get('proposal')).toEqual([]);
    expect(rig.core.view()).toMatchObject({ role: 'leader', lastIndex: 2 });
  });

  test('a stalling leader hands over to the most caught-up voter; failing that, it steps down', () => {
    const rig = new Rig().lead();
    rig.ack('B', 1);
    rig.ack('C', 0);
    rig.do({ type: 'step-down', reason: 'late' });
    expect(rig.sent('timeout-now')).toMatchObject([{ to: 'B' }]);
    const end = rig.now + 1000;
    while (rig.now < end) {
      rig.wake();
      rig.ack('C', 1);
    }
    expect(rig.core.view()).toMatchObject({ role: 'follower', term: 1 });
  });

  test('in a cluster: nothing in doubt, and fast', () => {
    const c = new Cluster('transfer', ['A', 'B', 'C'], ['A', 'B', 'C']);
    c.run(3000, () => c.leader() !== undefined);
    c.run(300);
    const from = c.leader()?.id as NodeId;
    const to = [...c.nodes.keys()].find((id) => id !== from) as NodeId;
    const asked = [c.propose(from), c.propose(from)];
    c.step(from, { type: 'transfer', to });
    expect(c.run(100, () => c.node(to).core?.view().role === 'leader')).toBe(true);
    expect(asked.map((id) => c.proposals.get(id)?.result)).toEqual(['ok', 'ok']);
  });
});

describe('ReadIndex (thesis 6.4)', () => {
  test('not before the no-op of the term is committed; then after a round begun after the request', () => {
    const rig = new Rig().lead();
    rig.do({ type: 'read-index', id: 1 });
    rig.ack('B', 1);
    expect(rig.get('read-ready')).toEqual([]);
    const rounds = rig.sent('append').map((s) => s.message.round);
    rig.ack('C', 1, { round: Math.min(...rounds) });
    expect(rig.get('read-ready')).toMatchObject([{ id: 1, ok: true, index: 1 }]);
  });

  test('one round serves all that were asked before it', () => {
    const rig = new Rig().lead();
    rig.ack('B', 1);
    rig.ack('C', 1);
    rig.do({ type: 'read-index', id: 1 });
    const first = rig.sent('append').length;
    expect(first).toBe(2);
    for (let id = 2; id < 9; id++) {
      rig.do({ type: 'read-index', id });
      expect(rig.sent('append')).toEqual([]);
    }
    const old = rig.round;
    rig.ack('B', 1, { round: old });
    expect(rig.get('read-ready').map((r) => r.id)).toEqual([1]);
    expect(rig.sent('append').length).toBe(2);
    rig.ack('C', 1, { round: old });
    expect(rig.get('read-ready')).toEqual([]);
    rig.ack('C', 1);
    expect(rig.get('read-ready').map((r) => r.id)).toEqual([2, 3, 4, 5, 6, 7, 8]);
  });

  test('a peer that may not vote confirms nothing: another leader could be elected without it', () => {
    const rig = new Rig().lead();
    rig.ack('B', 1);
    rig.wake();
    rig.ack('C', 0, { ok: false, mayVote: false });
    rig.do({ type: 'read-index', id: 1 });
    rig.ack('C', 0, { ok: false, mayVote: false });
    expect(rig.get('read-ready')).toEqual([]);
    rig.ack('B', 1);
    expect(rig.get('read-ready')).toMatchObject([{ id: 1, ok: true }]);
  });

  test('a deposed leader that does not know it answers nothing', () => {
    const c = new Cluster('deposed', ['A', 'B', 'C'], ['A', 'B', 'C']);
    c.run(3000, () => c.leader() !== undefined);
    c.run(300);
    const old = c.leader()?.id as NodeId;
    c.side.set(old, 1);
    for (const id of c.nodes.keys()) if (id !== old) c.step(id, { type: 'leader-lost' });
    c.run(500, () => c.leader()?.id !== old);
    const now = c.leader()?.id as NodeId;
    expect(now).not.toBe(old);
    const p = c.propose(now);
    c.run(200, () => c.proposals.get(p)?.result === 'ok');
    expect(c.node(old).core?.view().role).toBe('leader');
    const read = c.read(old);
    c.run(3000, () => c.reads.get(read)?.done === true);
    expect(c.reads.get(read)).toMatchObject({ done: true, ok: false });
  });

  test('a follower asks the leader; a lost answer is a refusal, in time', () => {
    const rig = new Rig({ term: 1 });
    rig.do({ type: 'read-index', id: 1 });
    expect(rig.get('read-ready')).toMatchObject([{ id: 1, ok: false }]);
    rig.append('B', 1, 0, 0, []);
    rig.do({ type: 'read-index', id: 2 });
    expect(rig.sent('read-request')).toMatchObject([{ to: 'B', message: { id: 2 } }]);
    rig.hear('C', { type: 'read-reply', id: 2, ok: true, index: 5 });
    expect(rig.get('read-ready')).toEqual([]);
    rig.hear('B', { type: 'read-reply', id: 2, ok: true, index: 5 });
    expect(rig.get('read-ready')).toMatchObject([{ id: 2, ok: true, index: 5 }]);
    rig.do({ type: 'read-index', id: 3 });
    rig.now += 1000;
    rig.do({ type: 'tick' });
    expect(rig.get('read-ready')).toMatchObject([{ id: 3, ok: false }]);
  });
});

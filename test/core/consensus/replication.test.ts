import { describe, expect, test } from 'vitest';
import type { LogIndex, NodeId } from '../../../src/model/ids.ts';
import { entriesOf, members, Rig } from './rig.ts';

const ids = (...names: string[]): NodeId[] => names as NodeId[];

describe('the receiver of appends (Raft Figure 2, AppendEntries)', () => {
  test.each([
    // Figure 7's followers against a leader whose log is 1 1 1 4 4 5 5 6 6 6, asked at its end.
    ['(a) misses one entry', [1, 1, 1, 4, 4, 5, 5, 6, 6], 9],
    ['(b) misses many', [1, 1, 1, 4], 4],
    ['(e) has others of term 4', [1, 1, 1, 4, 4, 4, 4], 7],
    ['(f) has terms 2 and 3', [1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3], 9],
  ])('%s: refused, with a hint', (_name, log, hint) => {
    const rig = new Rig({ log, term: 6 });
    rig.append('B', 8, 10, 6, entriesOf([8], 11));
    expect(rig.sent('append-reply')).toMatchObject([{ message: { ok: false, index: hint, term: 8 } }]);
    expect(rig.core.view().lastIndex).toBe(log.length);
  });

  test('an older term is refused with the newer one', () => {
    const rig = new Rig({ term: 5 });
    rig.append('B', 4, 0, 0, entriesOf([4]));
    expect(rig.sent('append-reply')).toMatchObject([{ message: { ok: false, term: 5 } }]);
    expect(rig.core.view()).toMatchObject({ lastIndex: 0, leader: null });
  });

  test('a conflict drops the rest of the log, an equal entry does not (rules 3 and 4)', () => {
    const rig = new Rig({ log: [1, 1, 2, 2, 2], term: 2 });
    rig.append('B', 3, 1, 1, entriesOf([1, 3], 2));
    expect(rig.get('persist')[0]?.ops.map((op) => op.type)).toEqual(['hard-state', 'truncate', 'append']);
    expect(rig.core.view().lastIndex).toBe(3);
    // A late, shorter append must not shorten the log.
    rig.append('B', 3, 0, 0, entriesOf([1, 1]));
    expect(rig.core.view().lastIndex).toBe(3);
  });

  test('commit = min(leader commit, last new entry) (rule 5)', () => {
    const rig = new Rig({ log: [1, 1, 1], term: 1 });
    rig.append('B', 1, 0, 0, entriesOf([1]), { commit: 3 });
    expect(rig.core.view().commit).toBe(1);
    expect(rig.get('committed')[0]?.entries.map((e) => e.index)).toEqual([1]);
  });

  test('an acknowledgement waits for its batch; without one it names what is durable', () => {
    const rig = new Rig({ term: 1 });
    rig.append('B', 1, 0, 0, entriesOf([1, 1]));
    expect(rig.sent('append-reply')).toMatchObject([{ afterPersist: true, message: { ok: true, index: 2 } }]);
    rig.append('B', 1, 2, 1, []);
    expect(rig.sent('append-reply')).toMatchObject([{ afterPersist: false, message: { ok: true, index: 0 } }]);
    rig.flush();
    rig.append('B', 1, 2, 1, []);
    expect(rig.sent('append-reply')).toMatchObject([{ afterPersist: false, message: { ok: true, index: 2 } }]);
  });

  test('a batch whose entries were truncated before it was reported makes nothing durable', () => {
    const rig = new Rig({ term: 1 });
    rig.append('B', 1, 0, 0, entriesOf([1, 1, 1]));
    const first = rig.lastPersistId;
    rig.append('C', 2, 1, 1, entriesOf([2, 2], 2));
    rig.do({ type: 'persisted', persistId: first });
    rig.append('C', 2, 3, 2, [], { commit: 3 });
    expect(rig.sent('append-reply')[0]?.message).toMatchObject({ ok: true, index: 1 });
    // What is committed but not durable here is not applied either.
    expect(rig.core.view().commit).toBe(3);
    rig.flush();
    expect(rig.get('committed')[0]?.entries.map((e) => e.index)).toEqual([2, 3]);
  });
});

describe('commit (Raft 5.4.2)', () => {
  test('a majority is enough, and the leader counts itself only when durable', () => {
    const rig = new Rig().lead();
    rig.ack('B', 1);
    rig.propose(7);
    expect(rig.sent('append').every((s) => !s.afterPersist)).toBe(true);
    rig.ack('B', 2);
    expect(rig.core.view().commit).toBe(1);
    rig.flush();
    expect(rig.get('proposal')).toMatchObject([{ proposalId: 7, result: { ok: true, index: 2, copies: 2 } }]);
  });

  test('two others commit without it', () => {
    const rig = new Rig().lead();
    rig.propose(7);
    rig.ack('B', 2);
    rig.ack('C', 2);
    expect(rig.get('proposal')).toMatchObject([{ proposalId: 7, result: { ok: true, copies: 2 } }]);
    expect(rig.get('committed')).toEqual([]);
    rig.flush();
    expect(rig.core.view().commit).toBe(2);
  });

  test('Figure 8: an entry of an older term is not committed by counting its copies', () => {
    const rig = new Rig({ log: [1, 2], term: 3 }).lead();
    expect(rig.core.view()).toMatchObject({ term: 4, lastIndex: 3 });
    rig.ack('B', 2);
    rig.ack('C', 2);
    expect(rig.core.view().commit).toBe(0);
    rig.ack('B', 3);
    expect(rig.core.view().commit).toBe(3);
  });

  test('stale acknowledgements, of an older term or absurd, count nothing', () => {
    const rig = new Rig().lead();
    rig.ack('B', 1, { term: 0 });
    rig.ack('B', 99);
    rig.ack('B', 1, { round: rig.round + 1 });
    rig.ack('X', 1);
    expect(rig.core.view().commit).toBe(0);
  });

  test('a peer whose log was lost counts for nothing until it votes again', () => {
    const rig = new Rig().lead();
    rig.ack('B', 1);
    rig.propose(1);
    rig.ack('B', 0, { ok: false, mayVote: false });
    expect(rig.core.view().logLost?.has('B' as NodeId)).toBe(true);
    rig.wake();
    rig.ack('B', 2, { mayVote: false });
    rig.flush();
    expect(rig.core.view().commit).toBe(1);
    // What it said before it lost its log may still be on the way.
    rig.ack('B', 2, { round: 1 });
    expect(rig.core.view().commit).toBe(1);
    rig.ack('C', 2);
    expect(rig.core.view().commit).toBe(2);
  });

  test('deposed: proposals of unknown outcome are given up as superseded', () => {
    const rig = new Rig().lead();
    rig.propose(1, 2);
    rig.append('B', 9, 0, 0, []);
    expect(rig.get('proposal').map((p) => p.result)).toMatchObject([
      { reason: 'superseded' },
      { reason: 'superseded' },
    ]);
    rig.propose(3);
    expect(rig.get('proposal')).toMatchObject([{ proposalId: 3, result: { ok: false, reason: 'not-leader' } }]);
  });

  test('too many uncommitted: busy', () => {
    const rig = new Rig({ config: { maxProposals: 2 } }).lead();
    rig.propose(1, 2, 3);
    expect(rig.get('proposal')).toMatchObject([{ proposalId: 3, result: { ok: false, reason: 'busy' } }]);
  });
});

describe('a second machine (departure: commit also waits for one while one is alive)', () => {
  const alone = (): Rig => {
    const rig = new Rig({ voters: members('A') });
    rig.do({ type: 'learners', learners: ids('B', 'C', 'D'), direct: [] });
    rig.do({ type: 'tick' });
    rig.flush();
    return rig;
  };

  test("a sole voter waits for a living learner's copy", () => {
    const rig = alone();
    rig.do({ type: 'health', alive: ids('B') });
    rig.flush();
    expect(rig.core.view().commit).toBe(0);
    rig.ack('B', 1);
    expect(rig.core.view().commit).toBe(1);
  });

  test('no other machine alive: one copy is enough, and said', () => {
    const rig = alone();
    rig.propose(1);
    rig.flush();
    expect(rig.get('proposal')).toMatchObject([{ result: { ok: true, copies: 1 } }]);
  });

  test('the machine waited for dies: waited for no longer', () => {
    const rig = alone();
    rig.do({ type: 'health', alive: ids('B') });
    rig.flush();
    rig.do({ type: 'health', alive: [] });
    expect(rig.core.view().commit).toBe(2);
  });

  test('a living learner far down the list is served, so that it can be the second', () => {
    const rig = alone();
    rig.do({ type: 'health', alive: ids('D') });
    expect(rig.sent('append').map((s) => s.to)).toContain('D');
  });

  test("a learner's copy is never a voter's", () => {
    const rig = new Rig().lead();
    rig.do({ type: 'learners', learners: ids('D'), direct: [] });
    rig.do({ type: 'health', alive: ids('B', 'C', 'D') });
    rig.ack('D', 1);
    expect(rig.core.view().commit).toBe(0);
  });
});

describe('the leader sends (thesis 10.2.1)', () => {
  test('at once, and small ones together while one is on its way', () => {
    const rig = new Rig({ voters: members('AB') }).lead();
    rig.ack('B', 1);
    let appends = 0;
    for (let i = 0; i < 20; i++) {
      rig.propose(i);
      appends += rig.sent('append').length;
    }
    expect(appends).toBe(1);
    rig.ack('B', 2);
    expect(rig.sent('append')[0]?.message.entries.length).toBe(19);
  });

  test('a lost append is noticed and sent again', () => {
    const rig = new Rig({ voters: members('AB') }).lead();
    rig.ack('B', 1);
    rig.propose(1);
    rig.wake();
    rig.ack('B', 1, { ok: false, hintTerm: 1 });
    expect(rig.sent('append')).toMatchObject([{ message: { prevIndex: 1, entries: [{ index: 2 }] } }]);
    // The same rejection repeated is stale: nothing more is sent.
    rig.ack('B', 1, { ok: false, hintTerm: 1, round: rig.round - 1 });
    expect(rig.sent('append')).toEqual([]);
  });

  test('followers hear of a commit promptly when nothing else is on its way', () => {
    const rig = new Rig({ voters: members('AB') }).lead();
    rig.flush();
    rig.ack('B', 1);
    expect(rig.sent('append')).toEqual([]);
    rig.wake();
    expect(rig.sent('append')).toMatchObject([{ message: { commit: 1, entries: [] } }]);
  });

  test('a commit rides on the next append when one comes at once', () => {
    const rig = new Rig({ voters: members('AB') }).lead();
    rig.flush();
    rig.ack('B', 1);
    rig.propose(1);
    expect(rig.sent('append')).toMatchObject([{ message: { commit: 1, entries: [{ index: 2 }] } }]);
  });

  test('a follower behind the first entry is offered a snapshot, and goes on from it', () => {
    const rig = new Rig({ voters: members('AB'), base: 100, log: [1], term: 1 }).lead();
    rig.ack('B', 40, { ok: false, hintTerm: 1 });
    expect(rig.sent('snapshot-offer')).toMatchObject([{ to: 'B', message: { index: 100, lastTerm: 1 } }]);
    rig.ack('B', 100, { round: 0 });
    expect(rig.sent('append')).toMatchObject([{ message: { prevIndex: 100 } }]);
  });

  test('the log is compacted once a quarter more than retained is applied', () => {
    const rig = new Rig({ voters: members('A'), config: { logRetained: 8 } });
    rig.do({ type: 'tick' });
    rig.flush();
    rig.propose(...Array.from({ length: 12 }, (_, i) => i));
    rig.flush();
    rig.do({ type: 'applied', index: 10 as LogIndex });
    expect(rig.get('persist')).toEqual([]);
    rig.do({ type: 'applied', index: 11 as LogIndex });
    expect(rig.get('persist')).toMatchObject([{ ops: [{ type: 'compact', upTo: 3, term: 1 }] }]);
    expect(rig.core.entries(3 as LogIndex, 5 as LogIndex)).toEqual([]);
    expect(rig.core.entries(4 as LogIndex, 6 as LogIndex).map((e) => e.index)).toEqual([4, 5]);
  });
});

describe('snapshots (Raft 7, Figure 13)', () => {
  const offer = { type: 'snapshot-offer', term: 2, index: 50, lastTerm: 2, membership: members('ABC') };

  test('asked for once, then installed; the log that does not agree goes', () => {
    const rig = new Rig({ log: [1, 1], term: 1 });
    rig.hear('B', offer);
    expect(rig.get('install-snapshot')).toMatchObject([{ from: 'B', index: 50 }]);
    rig.hear('B', offer);
    expect(rig.get('install-snapshot')).toEqual([]);
    rig.do({ type: 'snapshot-installed', index: 52 as LogIndex, term: 2 as never, membership: members('ABCD') });
    expect(rig.get('persist')[0]?.ops.map((op) => op.type)).toEqual(['truncate', 'compact']);
    expect(rig.core.view()).toMatchObject({ commit: 52, applied: 52, lastIndex: 52, membership: members('ABCD') });
    expect(rig.sent('append-reply')).toMatchObject([{ to: 'B', message: { ok: true, index: 52 } }]);
  });

  test('a log that agrees at its end keeps the rest (rule 6)', () => {
    const rig = new Rig({ log: [1, 1, 2, 2], term: 2 });
    rig.do({ type: 'snapshot-installed', index: 3 as LogIndex, term: 2 as never, membership: members('ABC') });
    expect(rig.get('persist')[0]?.ops).toMatchObject([{ type: 'compact', upTo: 3, term: 2 }]);
    expect(rig.core.view()).toMatchObject({ commit: 3, lastIndex: 4 });
  });
});

describe('learners by the log topic (thesis 4.2.1)', () => {
  const learner = (): Rig => new Rig({ self: 'D' });
  const gossip = (rig: Rig, prev: number, prevTerm: number, terms: number[], commit: number) =>
    rig.do({
      type: 'committed-entries',
      prevIndex: prev as LogIndex,
      prevTerm: prevTerm as never,
      entries: entriesOf(terms, prev + 1),
      commit: commit as LogIndex,
    });

  test('what joins on is taken and applied once durable', () => {
    const rig = learner();
    gossip(rig, 0, 0, [1, 1], 2);
    expect(rig.core.view()).toMatchObject({ role: 'learner', commit: 2, term: 1 });
    rig.flush();
    expect(rig.get('committed')[0]?.entries.length).toBe(2);
  });

  test('a gap is fetched from a neighbour, at a bounded rate, on and on while it helps', () => {
    const rig = new Rig({ self: 'D', config: { maxAppendEntries: 4 } });
    gossip(rig, 9, 1, [1], 10);
    expect(rig.core.view().commit).toBe(0);
    expect(rig.get('fetch-entries')).toEqual([]);
    rig.wake();
    expect(rig.get('fetch-entries')).toMatchObject([{ from: 1, to: 5 }]);
    gossip(rig, 9, 1, [1], 10);
    expect(rig.get('fetch-entries')).toEqual([]);
    gossip(rig, 0, 0, [1, 1, 1, 1], 10);
    expect(rig.get('fetch-entries')).toMatchObject([{ from: 5, to: 9 }]);
  });

  test('an uncommitted entry that differs gives way', () => {
    const rig = new Rig({ self: 'D', log: [1, 1], term: 1 });
    gossip(rig, 1, 1, [2], 2);
    expect(rig.core.view()).toMatchObject({ commit: 2, lastIndex: 2, term: 2 });
    expect(rig.core.termAt(2 as LogIndex)).toBe(2);
  });

  test('the leader publishes what is committed, at most ten times a second, for those it does not serve', () => {
    const rig = new Rig({ voters: members('A') });
    rig.do({ type: 'learners', learners: ids('B', 'C', 'D'), direct: [] });
    rig.do({ type: 'tick' });
    rig.flush();
    rig.flush();
    expect(rig.get('publish-committed')).toMatchObject([
      { prevIndex: 0, entries: [{ index: 1 }, { index: 2 }], commit: 2 },
    ]);
    rig.propose(1);
    rig.flush();
    rig.propose(2);
    rig.flush();
    expect(rig.get('publish-committed')).toEqual([]);
    rig.wake();
    expect(rig.get('publish-committed')).toMatchObject([
      { prevIndex: 2, entries: [{ index: 3 }, { index: 4 }], commit: 4 },
    ]);
  });

  test('a batch too large for gossip names its end only', () => {
    const rig = new Rig({ voters: members('A') });
    rig.do({ type: 'learners', learners: ids('B', 'C', 'D'), direct: [] });
    rig.do({ type: 'tick' });
    rig.flush();
    rig.flush();
    rig.now += 100;
    rig.do({ type: 'propose', proposals: [{ proposalId: 1, bytes: new Uint8Array(60_000) }] });
    rig.flush();
    expect(rig.get('publish-committed')).toMatchObject([{ prevIndex: 3, entries: [], commit: 3 }]);
  });

  test('nobody left to publish for: silence', () => {
    const rig = new Rig({ voters: members('A') });
    rig.do({ type: 'learners', learners: ids('B', 'C'), direct: [] });
    rig.do({ type: 'tick' });
    rig.flush();
    rig.flush();
    expect(rig.get('publish-committed')).toEqual([]);
  });
});

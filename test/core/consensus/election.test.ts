import { describe, expect, test } from 'vitest';
import { Cluster } from './cluster-sim.ts';
import { entriesOf, members, Rig } from './rig.ts';

describe('votes (Raft Figure 2, RequestVote; 5.4.1)', () => {
  test.each([
    ['an older term is refused', { term: 3 }, 2, 9, 9, false],
    ['first come in a term', { term: 1 }, 2, 0, 0, true],
    ['already given to another', { term: 2, votedFor: 'C' }, 2, 9, 9, false],
    ['given to the same again', { term: 2, votedFor: 'B' }, 2, 9, 9, true],
    ['last term lower', { term: 2, log: [1, 2] }, 3, 9, 1, false],
    ['last term equal, log shorter', { term: 2, log: [1, 2] }, 3, 1, 2, false],
    ['last term equal, log as long', { term: 2, log: [1, 2] }, 3, 2, 2, true],
    ['last term higher, log shorter', { term: 2, log: [1, 2, 2] }, 3, 1, 3, true],
    ['a peer whose log was lost never votes', { term: 1, mayVote: false }, 2, 9, 9, false],
  ] as const)('%s', (_name, options, t, last, lastTerm, granted) => {
    const rig = new Rig(options);
    rig.voteRequest('B', t, last, lastTerm);
    expect(rig.sent('vote-reply')).toMatchObject([{ to: 'B', message: { granted } }]);
  });

  test('a vote is asked to be durable first, and leaves after it', () => {
    const rig = new Rig({ term: 1 });
    const effects = rig.voteRequest('B', 2, 0, 0);
    expect(effects[0]).toMatchObject({
      type: 'persist',
      ops: [{ type: 'hard-state', hardState: { term: 2, votedFor: 'B' } }],
    });
    expect(rig.sent('vote-reply')[0]?.afterPersist).toBe(true);
    // The same request again, before the batch is durable: still not sooner.
    rig.voteRequest('B', 2, 0, 0);
    expect(rig.sent('vote-reply')[0]).toMatchObject({ afterPersist: true, message: { granted: true } });
  });

  test('requests for votes leave after the own vote is durable, and it counts only then', () => {
    const rig = new Rig();
    rig.wake();
    rig.hear('B', { type: 'vote-reply', term: 1, preVote: true, granted: true });
    expect(rig.sent('vote-request').every((s) => s.afterPersist)).toBe(true);
    rig.hear('B', { type: 'vote-reply', term: 1, preVote: false, granted: true });
    expect(rig.core.view().role).toBe('candidate');
    rig.flush();
    expect(rig.core.view()).toMatchObject({ role: 'leader', term: 1 });
  });

  test('a sole voter leads at once, but not before its vote is durable', () => {
    const rig = new Rig({ voters: members('A') });
    rig.do({ type: 'tick' });
    expect(rig.core.view().role).toBe('candidate');
    rig.flush();
    expect(rig.core.view()).toMatchObject({ role: 'leader', established: false });
    rig.flush();
    // Its membership comes with the no-op: learners have to know whose majority they reach.
    expect(rig.get('committed')[0]?.entries).toMatchObject([
      { index: 1, payload: { kind: 'noop' } },
      { index: 2, payload: { kind: 'membership', membership: members('A') } },
    ]);
    rig.do({ type: 'applied', index: 1 as never });
    expect(rig.core.view().established).toBe(true);
  });

  test('timeouts are drawn from the range', () => {
    const rig = new Rig();
    expect(rig.core.nextWake()).toBeGreaterThanOrEqual(600);
    expect(rig.core.nextWake()).toBeLessThanOrEqual(1000);
  });
});

describe('PreVote and leader stickiness (thesis 9.6, 4.2.3)', () => {
  const following = (): Rig => {
    const rig = new Rig({ term: 1 });
    rig.append('B', 1, 0, 0, []);
    return rig;
  };

  test('a pre-vote changes no term, of nobody', () => {
    const rig = new Rig({ term: 4 });
    rig.wake();
    expect(rig.core.view()).toMatchObject({ role: 'pre-candidate', term: 4 });
    expect(rig.get('persist')).toEqual([]);
    const other = new Rig({ term: 4 });
    other.voteRequest('B', 5, 0, 0, { preVote: true });
    expect(other.sent('vote-reply')).toMatchObject([{ message: { granted: true, term: 5 }, afterPersist: false }]);
    expect(other.core.view().term).toBe(4);
  });

  test('who hears the leader refuses pre-votes and votes, and keeps its term', () => {
    const rig = following();
    rig.now = 500;
    rig.voteRequest('C', 2, 9, 9, { preVote: true });
    expect(rig.sent('vote-reply')[0]?.message.granted).toBe(false);
    rig.voteRequest('C', 7, 9, 9);
    expect(rig.sent('vote-reply')[0]?.message.granted).toBe(false);
    expect(rig.core.view()).toMatchObject({ term: 1, leader: 'B' });
  });

  test('no append within the least timeout: granted', () => {
    const rig = following();
    rig.now = 600;
    rig.voteRequest('C', 2, 0, 0, { preVote: true });
    expect(rig.sent('vote-reply')[0]?.message.granted).toBe(true);
  });

  test('leader lost: own pre-vote within 150 ms, and what was refused before is granted late', () => {
    const rig = following();
    rig.voteRequest('C', 2, 0, 0, { preVote: true });
    expect(rig.sent('vote-reply')[0]?.message.granted).toBe(false);
    rig.do({ type: 'leader-lost' });
    expect(rig.sent('vote-reply')).toMatchObject([{ to: 'C', message: { granted: true, term: 2 } }]);
    expect(rig.core.view().leader).toBe(null);
    expect(rig.core.nextWake()).toBeLessThanOrEqual(150);
  });

  test('the higher rank campaigns first', () => {
    const [low, high] = [new Rig({ term: 1, rank: 0 }), new Rig({ term: 1, rank: 1 })];
    for (const rig of [low, high]) {
      rig.append('B', 1, 0, 0, []);
      rig.do({ type: 'leader-lost' });
    }
    expect(high.core.nextWake()).toBeLessThanOrEqual(50);
    expect(low.core.nextWake()).toBeGreaterThanOrEqual(100);
  });

  test('rank never overrides freshness: the fresher log is refused nothing, the staler everything', () => {
    const rig = new Rig({ rank: 1, log: [1, 1], term: 1 });
    rig.wake();
    rig.voteRequest('B', 2, 3, 1, { preVote: true, rank: 0 });
    expect(rig.sent('vote-reply')[0]?.message.granted).toBe(true);
    const high = new Rig({ rank: 0, log: [1, 1], term: 1 });
    high.wake();
    high.voteRequest('B', 2, 1, 1, { preVote: true, rank: 1 });
    expect(high.sent('vote-reply')[0]?.message.granted).toBe(false);
  });

  test('two campaigns with equal logs: the higher rank goes on, the lower stands back', () => {
    const high = new Rig({ rank: 0.9 });
    high.wake();
    high.voteRequest('B', 1, 0, 0, { preVote: true, rank: 0.1 });
    expect(high.sent('vote-reply')[0]?.message.granted).toBe(false);
    const low = new Rig({ rank: 0.1 });
    low.wake();
    low.voteRequest('B', 1, 0, 0, { preVote: true, rank: 0.9 });
    expect(low.sent('vote-reply')[0]?.message.granted).toBe(true);
    expect(low.core.view().role).toBe('follower');
  });

  test('a peer cut off and back does not depose the leader (disruptive servers, thesis 4.2.3)', () => {
    const c = new Cluster('cut', ['A', 'B', 'C'], ['A', 'B', 'C']);
    c.run(3000, () => c.leader() !== undefined);
    c.run(500);
    const leader = c.leader()?.id;
    const t = c.leader()?.core?.view().term;
    const victim = [...c.nodes.keys()].find((id) => id !== leader);
    if (victim === undefined) throw new Error('no victim');
    c.side.set(victim, 1);
    c.run(8000);
    expect(c.node(victim).core?.view()).toMatchObject({ role: 'pre-candidate', term: t });
    c.side.set(victim, 0);
    c.run(3000);
    expect(c.leader()?.id).toBe(leader);
    expect(c.leader()?.core?.view().term).toBe(t);
    expect(c.node(victim).core?.view()).toMatchObject({ role: 'follower', leader });
  });
});

describe('CheckQuorum (thesis 6.2)', () => {
  test('a leader that hears no majority steps down', () => {
    const rig = new Rig().lead();
    while (rig.core.view().role === 'leader' && rig.now < 5000) rig.wake();
    expect(rig.core.view()).toMatchObject({ role: 'follower', leader: null });
    expect(rig.now).toBeLessThan(2500);
  });

  test('a stall of its own is not held against the others', () => {
    const rig = new Rig().lead();
    rig.now += 5000;
    rig.do({ type: 'tick' });
    expect(rig.core.view().role).toBe('leader');
    rig.ack('B', 1);
    rig.wake();
    rig.wake();
    expect(rig.core.view().role).toBe('leader');
  });

  test('a message of a higher term deposes a leader', () => {
    const rig = new Rig().lead();
    rig.ack('B', 0, { ok: false, term: 9 });
    expect(rig.core.view()).toMatchObject({ role: 'follower', term: 9 });
  });
});

describe('how fast', () => {
  test('a killed master is followed by another within 1 s, p99 of 300 runs', () => {
    const took: number[] = [];
    for (let i = 0; i < 300; i++) {
      const c = new Cluster(`kill-${i}`, ['A', 'B', 'C', 'D', 'E'], ['A', 'B', 'C', 'D', 'E']);
      c.faults = { ...c.faults, writeMs: [0.5, 10], delayMs: [0.2, 3] };
      c.run(5000, () => c.leader() !== undefined);
      c.run(300 + c.rng.next() * 400);
      const leader = c.leader()?.id;
      if (leader === undefined) throw new Error('no leader');
      c.crash(leader);
      const since = c.now;
      // Each learns of it by itself, within 300 ms (membership's p99).
      for (const id of c.nodes.keys()) {
        if (id !== leader) c.at(10 + c.rng.next() * 290, () => c.step(id, { type: 'leader-lost' }));
      }
      expect(c.run(5000, () => c.leader() !== undefined)).toBe(true);
      took.push(c.now - since);
    }
    took.sort((a, b) => a - b);
    expect(took[297]).toBeLessThan(1000);
  });

  test('entries out of place never crash a core', () => {
    const rig = new Rig({ log: [1, 1], term: 1 });
    rig.append('B', 1, 1e300, 1, []);
    rig.append('B', 2 ** 53, 0, 0, []);
    rig.append('B', 1, 0, 0, entriesOf([1], 7));
    rig.append('B', 1, 2, 1, entriesOf([9], 3));
    rig.append('B', -1, -5, Number.NaN, []);
    rig.hear('B', { type: 'snapshot-offer', term: 1, index: 2 ** 60, lastTerm: 5, membership: members('A') });
    expect(rig.core.view()).toMatchObject({ term: 1, lastIndex: 2, commit: 0 });
  });
});

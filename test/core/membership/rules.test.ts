import { describe, expect, it } from 'vitest';
import { createMembership, type Membership } from '../../../src/core/membership/membership.ts';
import { monitorsOf, watchedBy } from '../../../src/core/membership/monitors.ts';
import { suspicionTimeoutMs } from '../../../src/core/membership/suspicion.ts';
import {
  DEFAULT_MEMBERSHIP_CONFIG,
  type MembershipEffect,
  type MembershipEvent,
  type MembershipMessage,
  type MemberUpdate,
} from '../../../src/core/membership/types.ts';
import { durationMs, incarnation, monoMs, type NodeId, nodeId } from '../../../src/model/ids.ts';
import { LIMITS } from '../../../src/model/limits.ts';

// Rules of SWIM (Das et al. 2002) and Lifeguard (Dadgar et al. 2017), one peer at a time.

const config = DEFAULT_MEMBERSHIP_CONFIG;
const [A, B, C, D] = ['a', 'b', 'c', 'd'].map(nodeId) as [NodeId, NodeId, NodeId, NodeId];

class Bench {
  now = 1000;
  readonly core: Membership;
  constructor(peers: readonly NodeId[] = [A, B, C, D], connect: readonly NodeId[] = peers.filter((p) => p !== A)) {
    this.core = createMembership({ self: A, incarnation: incarnation(5), config, seed: 'bench' });
    this.step({ type: 'peers', peers, voters: peers });
    for (const peer of connect) this.step({ type: 'connected', peer });
  }
  step(event: MembershipEvent): MembershipEffect[] {
    return this.core.step(event, monoMs(this.now));
  }
  from(from: NodeId, message: MembershipMessage): MembershipEffect[] {
    return this.step({ type: 'message', from, message });
  }
  said(from: NodeId, ...updates: MemberUpdate[]): MembershipEffect[] {
    return this.from(from, { type: 'updates', updates });
  }
  ack(from: NodeId): MembershipEffect[] {
    return this.from(from, { type: 'ack', seq: 0, incarnation: incarnation(0), updates: [] });
  }
  /** Ticks when asked, for `ms`; `alive` answer every ping, `boots` every boot probe. */
  pass(ms: number, alive: readonly NodeId[], boots: readonly NodeId[] = alive): MembershipEffect[] {
    const all: MembershipEffect[] = [];
    const end = this.now + ms;
    for (let wake = this.core.nextWake(); wake !== undefined && wake <= end; wake = this.core.nextWake()) {
      this.now = Math.max(this.now, wake);
      const effects = this.step({ type: 'tick', lateMs: durationMs(0) });
      all.push(...effects);
      for (const e of effects) {
        if (e.type === 'send' && e.message.type === 'ping' && alive.includes(e.to)) all.push(...this.ack(e.to));
        if (e.type === 'probe-boot' && boots.includes(e.peer))
          all.push(...this.step({ type: 'boot-ack', peer: e.peer, attempt: e.attempt }));
      }
    }
    this.now = end;
    return all;
  }
  status(id: NodeId) {
    return this.core.view(id)?.status;
  }
}
const sends = (effects: readonly MembershipEffect[], type: MembershipMessage['type']) =>
  effects.filter((e) => e.type === 'send' && e.message.type === type);
const changes = (effects: readonly MembershipEffect[]) =>
  effects.flatMap((e) => (e.type === 'changed' ? [`${e.change.id} ${e.change.from} > ${e.change.to}`] : []));
const of = (id: NodeId, status: MemberUpdate['status'], inc: number, ...accusers: NodeId[]): MemberUpdate => ({
  id,
  status,
  incarnation: incarnation(inc),
  accusers,
});

describe('order of updates (SWIM 4.2)', () => {
  // [what was said before, what is said now, status after]; B is not connected, so nothing heard here outweighs it.
  const table: [string, MemberUpdate[], MemberUpdate, string][] = [
    ['alive j beats suspect i for j > i', [of(B, 'suspect', 1, C)], of(B, 'alive', 2), 'alive'],
    ['alive i does not beat suspect i', [of(B, 'suspect', 1, C)], of(B, 'alive', 1), 'suspect'],
    ['suspect i beats alive i', [of(B, 'alive', 1)], of(B, 'suspect', 1, C), 'suspect'],
    ['suspect i does not beat alive j for j > i', [of(B, 'alive', 2)], of(B, 'suspect', 1, C), 'alive'],
    ['dead i beats suspect i', [of(B, 'suspect', 1, C)], of(B, 'dead', 1, C, D), 'dead'],
    ['dead i does not beat alive j for j > i', [of(B, 'alive', 2)], of(B, 'dead', 1, C, D), 'alive'],
    ['suspect i does not beat dead i', [of(B, 'dead', 1, C, D)], of(B, 'suspect', 1, C), 'dead'],
    ['alive j beats dead i for j > i', [of(B, 'dead', 1, C, D)], of(B, 'alive', 2), 'alive'],
    ['left i beats dead i', [of(B, 'dead', 1, C)], of(B, 'left', 1), 'left'],
    ['dead i does not beat left i', [of(B, 'left', 1)], of(B, 'dead', 1, C), 'left'],
    ['alive j beats left i for j > i', [of(B, 'left', 1)], of(B, 'alive', 2), 'alive'],
    ['agent-down i beats alive i', [of(B, 'alive', 1)], of(B, 'agent-down', 1, C), 'agent-down'],
    [
      'a boot that answers one beats the silence others see',
      [of(B, 'suspect', 1, C)],
      of(B, 'agent-down', 1, D),
      'agent-down',
    ],
  ];
  for (const [name, before, now, status] of table) {
    it(name, () => {
      const bench = new Bench([A, B, C, D], [C, D]);
      for (const u of before) bench.said(u.accusers[0] ?? C, u);
      bench.said(now.accusers[0] ?? C, now);
      expect(bench.status(B)).toBe(status);
    });
  }
  it('names of peers that are not admitted are ignored and counted', () => {
    const bench = new Bench();
    bench.said(C, of(nodeId('stranger'), 'dead', 9, C));
    bench.said(nodeId('stranger'), of(C, 'dead', 9));
    expect([bench.core.ignored(), bench.core.members().size, bench.status(C)]).toEqual([2, 3, 'alive']);
  });
});

describe('refutation (SWIM 4.2)', () => {
  it('a peer that hears itself suspected raises its incarnation and tells everybody', () => {
    const bench = new Bench();
    const effects = bench.said(B, of(A, 'suspect', 7, B));
    expect(effects).toContainEqual({ type: 'incarnation', incarnation: 8 });
    expect(sends(effects, 'updates')).toHaveLength(3);
    expect(bench.core.incarnation()).toBe(8);
    expect(bench.core.localHealth()).toBe(1);
    expect(bench.said(B, of(A, 'dead', 7, B))).toEqual([]);
  });
  it('an accused member is told with the next ping or ack (Lifeguard IV-C, buddy system)', () => {
    const bench = new Bench();
    bench.said(C, of(B, 'suspect', 0, C));
    const ack = bench
      .from(B, { type: 'ping', seq: 9, incarnation: incarnation(0), updates: [] })
      .find((e) => e.type === 'send');
    expect(ack).toMatchObject({ message: { type: 'ack', seq: 9, updates: [of(B, 'suspect', 0, C)] } });
  });
});

describe('accusation', () => {
  it('a closed connection starts probing at once: dial, boot, three others', () => {
    const bench = new Bench();
    const effects = bench.step({ type: 'disconnected', peer: B });
    expect(effects).toContainEqual({ type: 'dial', peer: B });
    expect(effects).toContainEqual({ type: 'probe-boot', peer: B, attempt: 1 });
    expect(
      sends(effects, 'ping-req')
        .map((e) => e.type === 'send' && e.to)
        .sort(),
    ).toEqual([C, D]);
    expect(bench.status(B)).toBe('alive');
  });
  it('one accuser makes a suspect, never a death, while others could accuse and do not', () => {
    const bench = new Bench();
    bench.pass(1500, [C, D]);
    expect(bench.status(B)).toBe('suspect');
    bench.pass(60_000, [C, D]);
    expect(bench.status(B)).toBe('suspect');
    expect(bench.core.view(B)?.accusers).toEqual([A]);
  });
  it('the second accuser completes it', () => {
    const bench = new Bench();
    bench.pass(1500, [C, D]);
    // The time runs from the first accusation, which is longer ago than two of three accusers need.
    expect(changes(bench.said(C, of(B, 'suspect', 0, C)))).toEqual(['b suspect > dead']);
  });
  it('an accuser that seems silent itself does not count', () => {
    const bench = new Bench();
    bench.pass(1500, [C, D]);
    bench.step({ type: 'disconnected', peer: C });
    bench.said(C, of(B, 'suspect', 0, C));
    bench.pass(900, [D]);
    expect([bench.status(B), bench.status(C)]).toEqual(['suspect', 'suspect']);
  });
  it('word of others is not joined while the member is heard here', () => {
    const bench = new Bench();
    bench.pass(300, [B, C, D]);
    bench.ack(B);
    bench.said(C, of(B, 'suspect', 0, C));
    const told = bench.said(C, of(B, 'dead', 0, C, D));
    expect(bench.status(B)).toBe('alive');
    expect(sends(told, 'updates')).toMatchObject([{ to: B, message: { updates: [{ status: 'dead' }] } }]);
  });
  it('a death said from the far side of a healed cut is not believed between two of our probes', () => {
    const bench = new Bench();
    bench.pass(300, [B, C, D]);
    // C was on the far side: dead here, as all were there.
    bench.step({ type: 'disconnected', peer: C });
    bench.said(D, of(C, 'dead', 0, D));
    expect(bench.status(C)).toBe('dead');
    bench.pass(3000, [B, D]);
    bench.step({ type: 'connected', peer: C });
    for (const id of [B, D]) bench.ack(id);
    const heard = bench.now;
    bench.pass(config.probeIntervalMs + 60, []);
    expect(bench.now - heard).toBeGreaterThan(config.ackTimeoutMs);
    const effects = bench.from(C, { type: 'push-pull', reply: false, updates: [of(B, 'dead', 0, C)] });
    expect([bench.status(B), changes(effects)]).toEqual(['alive', []]);
    expect(sends(effects, 'updates')).toMatchObject([{ to: B, message: { updates: [{ status: 'dead' }] } }]);
    // Of somebody who was here all the while it is.
    expect(changes(bench.said(D, of(B, 'dead', 0, D)))).toEqual(['b alive > dead']);
  });
  it('the silent connection of a dead member is hung up; one that closed by itself is not', () => {
    const bench = new Bench();
    bench.pass(1500, [C, D]);
    const effects = bench.said(C, of(B, 'suspect', 0, C));
    expect(effects.filter((e) => e.type === 'hang-up')).toEqual([{ type: 'hang-up', peer: B }]);
    const closed = new Bench();
    closed.step({ type: 'disconnected', peer: B });
    const later = [...closed.pass(1500, [C, D]), ...closed.said(C, of(B, 'suspect', 0, C))];
    expect([closed.status(B), later.filter((e) => e.type === 'hang-up')]).toEqual(['dead', []]);
  });
  it('word of others about a member not heard lately starts our own inquiry', () => {
    const bench = new Bench();
    bench.pass(240, []);
    bench.now += 20;
    const effects = bench.said(C, of(B, 'suspect', 0, C));
    expect(effects.some((e) => e.type === 'probe-boot' && e.peer === B)).toBe(true);
  });
  it('refused proves the process dead, not the machine: with boot answering it is agent-down at once', () => {
    const bench = new Bench();
    bench.step({ type: 'disconnected', peer: B });
    bench.step({ type: 'dial-failed', peer: B, refused: true });
    const effects = bench.step({ type: 'boot-ack', peer: B, attempt: 1 });
    expect(changes(effects)).toEqual(['b alive > agent-down']);
    bench.pass(20_000, [C, D], [B, C, D]);
    expect(bench.status(B)).toBe('agent-down');
  });
  it('an answer to an older boot probe proves nothing now', () => {
    const bench = new Bench();
    bench.step({ type: 'disconnected', peer: B });
    bench.step({ type: 'connected', peer: B });
    bench.step({ type: 'disconnected', peer: B });
    bench.step({ type: 'dial-failed', peer: B, refused: true });
    expect(changes(bench.step({ type: 'boot-ack', peer: B, attempt: 1 }))).toEqual([]);
  });
  it('success through another peer keeps the member alive (SWIM 3.1)', () => {
    const bench = new Bench();
    const asked = sends(bench.step({ type: 'disconnected', peer: B }), 'ping-req')[0];
    const seq = asked?.type === 'send' && asked.message.type === 'ping-req' ? asked.message.seq : -1;
    bench.now += 5;
    bench.from(C, { type: 'ping-req-ack', seq, target: B, agent: true, boot: false });
    const changed = changes(bench.pass(150, [C, D]));
    expect(changed).toEqual([]);
  });
  it('a helper answers a ping-req with what its own probes find', () => {
    const bench = new Bench();
    const asked = bench.from(C, { type: 'ping-req', seq: 77, target: B });
    expect(sends(asked, 'ping')).toMatchObject([{ to: B }]);
    expect(sends(bench.ack(B), 'ping-req-ack')).toMatchObject([
      { to: C, message: { seq: 77, target: B, agent: true } },
    ]);
    bench.from(C, { type: 'ping-req', seq: 78, target: B });
    const later = bench.pass(100, []);
    expect(sends(later, 'ping-req-ack')).toMatchObject([{ message: { seq: 78, agent: false, boot: false } }]);
  });
});

describe('local health (Lifeguard IV-A)', () => {
  it('a late tick accuses nobody in its turn, raises local health and gives everybody a fresh deadline', () => {
    const bench = new Bench();
    bench.pass(300, []);
    bench.now += 5000;
    const effects = bench.step({ type: 'tick', lateMs: durationMs(5000) });
    expect(changes(effects)).toEqual([]);
    expect(effects).toContainEqual({ type: 'local-health', score: 4 });
    expect(bench.core.nextWake()).toBeGreaterThanOrEqual(bench.now);
    // Deadlines are stretched by the score: what would be overdue is not yet.
    expect(changes(bench.pass(config.ackTimeoutMs * 2, []))).toEqual([]);
  });
  it('a stall that shows by a message before the late tick counts once', () => {
    const bench = new Bench();
    bench.pass(300, [B, C, D]);
    bench.now += 1250;
    bench.said(C, of(B, 'suspect', 0, C));
    const score = bench.core.localHealth();
    bench.step({ type: 'tick', lateMs: durationMs(1250) });
    expect([score, bench.core.localHealth()]).toEqual([3, 3]);
  });
  it('is bounded, and wins back a step at a time', () => {
    const bench = new Bench();
    for (let i = 0; i < 9; i++) {
      bench.now += 2000;
      bench.step({ type: 'tick', lateMs: durationMs(2000) });
    }
    expect(bench.core.localHealth()).toBe(config.maxLocalHealth);
    bench.pass(10_000, [B, C, D]);
    expect(bench.core.localHealth()).toBe(0);
  });
});

describe('suspicion time (Lifeguard IV-B)', () => {
  it('falls from max to min with the logarithm of confirmations', () => {
    expect(suspicionTimeoutMs(config, 0, 2)).toBe(config.suspicionMaxMs);
    expect(suspicionTimeoutMs(config, 2, 2)).toBe(config.suspicionMinMs);
    expect(suspicionTimeoutMs(config, 1, 1)).toBe(config.suspicionMinMs);
    expect(suspicionTimeoutMs(config, 1, 2)).toBeCloseTo(1000 - 940 * (Math.log(2) / Math.log(3)));
    expect(suspicionTimeoutMs(config, 9, 2)).toBe(config.suspicionMinMs);
  });
});

describe('dissemination (SWIM 4.1)', () => {
  it('updates in one ping are bounded, and each is sent a bounded number of times', () => {
    const peers = Array.from({ length: 200 }, (_, i) => nodeId(`p${i}`));
    const watched = watchedBy(A, [A, ...peers], config.monitors);
    const bench = new Bench([A, ...peers], watched);
    for (const p of peers) if (!watched.includes(p)) bench.said(watched[0] as NodeId, of(p, 'left', 1));
    const effects = bench.pass(20_000, watched);
    const counts = new Map<NodeId, number>();
    for (const e of sends(effects, 'ping')) {
      if (e.type !== 'send' || e.message.type !== 'ping') continue;
      expect(e.message.updates.length).toBeLessThanOrEqual(LIMITS.gossipUpdatesPerMessage);
      for (const u of e.message.updates) counts.set(u.id, (counts.get(u.id) ?? 0) + 1);
    }
    expect(counts.size).toBeGreaterThan(150);
    expect(Math.max(...counts.values())).toBeLessThanOrEqual(3 * Math.ceil(Math.log2(202)));
  });
  it('a member leaving the admitted set is forgotten with everything it said', () => {
    const bench = new Bench([A, B, C, D], [C, D]);
    bench.said(C, of(B, 'suspect', 1, C));
    bench.step({ type: 'peers', peers: [A, B, D], voters: [] });
    expect([bench.status(C), bench.core.view(B)?.accusers, bench.core.monitored()]).toEqual([undefined, [], [B, D]]);
  });
  it('a connection made before its peer is admitted counts once it is', () => {
    const bench = new Bench([A, B], [B, C]);
    bench.step({ type: 'peers', peers: [A, B, C], voters: [] });
    expect(bench.core.view(C)).toMatchObject({ connected: true, lastHeardAt: 1000 });
  });
});

describe('monitors (rendezvous hashing)', () => {
  const peers = Array.from({ length: 120 }, (_, i) => nodeId(`12D3KooW${i}`));
  it('both directions agree: everybody has exactly eight', () => {
    const watchers = new Map<NodeId, number>();
    for (const p of peers) for (const t of watchedBy(p, peers, 8)) watchers.set(t, (watchers.get(t) ?? 0) + 1);
    expect([...watchers.values()].every((n) => n === 8) && watchers.size === peers.length).toBe(true);
    const target = peers[17] as NodeId;
    expect(monitorsOf(target, peers, 8).every((m) => watchedBy(m, peers, 8).includes(target))).toBe(true);
  });
  it('load is spread, and one departure moves few watches', () => {
    const loads = peers.map((p) => watchedBy(p, peers, 8).length);
    expect(Math.max(...loads)).toBeLessThanOrEqual(24);
    const fewer = peers.slice(1);
    const moved = fewer.filter((p) => monitorsOf(p, peers, 8).join() !== monitorsOf(p, fewer, 8).join());
    expect(moved.length).toBe(watchedBy(peers[0] as NodeId, peers, 8).length);
  });
});

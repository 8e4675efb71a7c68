import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { MemberStatus } from '../../../src/core/membership/types.ts';
import { createRng } from '../../../src/model/random.ts';
import { Network, type NetworkOptions } from './network.ts';

// Whole clusters in virtual time. The figures asserted are the project's targets for five machines.

const SEEDS = 60;

function started(options: Partial<NetworkOptions> & { seed: number }): Network {
  const net = new Network({ peers: 5, ...options });
  // Spread over the probe interval, so that faults meet every phase of it.
  net.run(1000 + ((options.seed * 37) % 200));
  net.observed.length = 0;
  return net;
}
const allSee = (
  net: Network,
  observers: readonly number[],
  subjects: readonly number[],
  status: MemberStatus,
): boolean => observers.every((o) => subjects.every((s) => net.status(net.at(o).id, net.at(s).id) === status));
const changesTo = (net: Network, status: MemberStatus) => net.observed.filter((o) => o.change.to === status);

/** Longest time over all seeds until `observers` hold `subjects` for `status`. */
function worst(
  fault: (net: Network) => void,
  observers: number[],
  subjects: number[],
  status: MemberStatus,
  peers = 5,
): number {
  let most = 0;
  for (let seed = 0; seed < SEEDS; seed++) {
    const net = started({ seed, peers });
    fault(net);
    const took = net.until(() => allSee(net, observers, subjects, status), 10_000);
    expect(took, `seed ${seed}`).toBeDefined();
    most = Math.max(most, took ?? 0);
  }
  return most;
}

describe('detection on five machines', () => {
  it('a killed peer is dead for all within 200 ms', () => {
    expect(worst((n) => n.kill(n.at(2).id), [0, 1, 3, 4], [2], 'dead')).toBeLessThanOrEqual(200);
  });
  it('a cut cable: dead for all within 850 ms, and the lone side gives all up too', () => {
    const cut = (n: Network): void => n.partition([2], [0, 1, 3, 4]);
    expect(worst(cut, [0, 1, 3, 4], [2], 'dead')).toBeLessThanOrEqual(850);
    const lone = worst(cut, [2], [0, 1, 3, 4], 'dead');
    // Nobody can confirm: the longest suspicion applies (Lifeguard section IV-B).
    expect(lone).toBeGreaterThan(1000);
    expect(lone).toBeLessThanOrEqual(3000);
  });
  it('two peers at once, killed or cut off', () => {
    const killed = (n: Network): void => {
      for (const i of [2, 4]) n.kill(n.at(i).id);
    };
    expect(worst(killed, [0, 1, 3], [2, 4], 'dead')).toBeLessThanOrEqual(250);
    expect(worst((n) => n.partition([2], [4], [0, 1, 3]), [0, 1, 3], [2, 4], 'dead')).toBeLessThanOrEqual(1000);
  });
  it('a cut of two from three: both sides see the other dead within a second', () => {
    const cut = (n: Network): void => n.partition([2, 4], [0, 1, 3]);
    expect(worst(cut, [0, 1, 3], [2, 4], 'dead')).toBeLessThanOrEqual(1000);
    expect(worst(cut, [2, 4], [0, 1, 3], 'dead')).toBeLessThanOrEqual(1000);
  });
  it('two machines: one accuser is enough', () => {
    expect(worst((n) => n.kill(n.at(1).id), [0], [1], 'dead', 2)).toBeLessThanOrEqual(200);
    expect(worst((n) => n.powerOff(n.at(1).id), [0], [1], 'dead', 2)).toBeLessThanOrEqual(1100);
  });
  it('an agent killed under a living boot is agent-down at once, stays so, and is dead only when boot falls silent', () => {
    const net = started({ seed: 5 });
    net.killAgent(net.at(2).id);
    expect(net.until(() => allSee(net, [0, 1, 3, 4], [2], 'agent-down'), 1000)).toBeLessThanOrEqual(150);
    net.run(30_000);
    expect(allSee(net, [0, 1, 3, 4], [2], 'agent-down')).toBe(true);
    expect(changesTo(net, 'dead')).toEqual([]);
    net.killBoot(net.at(2).id);
    expect(net.until(() => allSee(net, [0, 1, 3, 4], [2], 'dead'), 5000)).toBeLessThanOrEqual(1500);
  });
  it('evidence is in plain words and names who agreed', () => {
    const net = started({ seed: 1 });
    net.kill(net.at(2).id);
    net.run(1000);
    const words = changesTo(net, 'dead')[0]?.change.evidence.join('; ');
    expect(words).toMatch(
      /no answer for \d+ ms; port refused; boot silent after 3 probes; asked .*; [234] of 4 peers agree: n\d, n\d/,
    );
  });
});

describe('no false deaths', () => {
  it('30 % of agents stalling for 2 s at random, 2 % of boot datagrams lost: none in 30 node-hours', () => {
    let agentDown = 0;
    for (let seed = 0; seed < 10; seed++) {
      const net = started({ seed, bootLoss: 0.02 });
      const rng = createRng(`stalls/${seed}`);
      const cycle = (i: number): void => {
        net.stall(net.at(i).id, 2000);
        net.later(2000 + rng.next() * 9333, () => cycle(i));
      };
      for (let i = 0; i < 5; i++) net.later(rng.next() * 6667, () => cycle(i));
      net.run((3 * 3_600_000) / 5);
      expect(changesTo(net, 'dead'), `seed ${seed}`).toEqual([]);
      agentDown += changesTo(net, 'agent-down').length;
    }
    // The stalls were seen for what they are.
    expect(agentDown).toBeGreaterThan(1000);
  });
  it('a stalled agent accuses nobody when it wakes, and knows that it is not well', () => {
    for (let seed = 0; seed < SEEDS; seed++) {
      const net = started({ seed });
      const id = net.at(seed % 5).id;
      net.stall(id, 3000);
      net.run(3000);
      expect(net.machine(id).core.localHealth()).toBeGreaterThan(3);
      net.run(3000);
      expect(
        net.observed.filter((o) => o.observer === id && o.change.to !== 'alive'),
        `seed ${seed}`,
      ).toEqual([]);
      expect(net.ids.every((a) => net.ids.every((b) => a === b || net.status(a, b) === 'alive'))).toBe(true);
    }
  });
  it('a whole machine frozen for 400 ms is not dead', () => {
    for (let seed = 0; seed < SEEDS; seed++) {
      const net = started({ seed });
      const m = net.at(1);
      m.bootUp = false;
      net.later(400, () => {
        m.bootUp = true;
      });
      net.stall(m.id, 400);
      net.run(3000);
      expect(changesTo(net, 'dead'), `seed ${seed}`).toEqual([]);
    }
  });
  it('5 % of all messages lost: nobody is dead', () => {
    const net = started({ seed: 9, loss: 0.05, bootLoss: 0.05 });
    net.run(300_000);
    expect(changesTo(net, 'dead')).toEqual([]);
  });
  it('SWIM 3.1: a link broken one way or both ways between two peers is bridged by ping-req', () => {
    for (const both of [false, true]) {
      const net = started({ seed: 4 });
      net.block(0, 1);
      if (both) net.block(1, 0);
      net.run(30_000);
      expect(net.sent['ping-req-ack']).toBeGreaterThan(0);
      expect(net.observed).toEqual([]);
    }
  });
});

describe('return', () => {
  const allAlive = (net: Network): boolean =>
    net.ids.every((a) => net.ids.every((b) => a === b || net.status(a, b) === 'alive'));

  it('a restarted peer has a higher incarnation and overrides its death', () => {
    const net = started({ seed: 2 });
    net.kill(net.at(3).id);
    net.run(2000);
    expect(allSee(net, [0, 1, 2, 4], [3], 'dead')).toBe(true);
    net.restart(net.at(3).id);
    expect(net.until(() => allAlive(net), 5000)).toBeLessThan(200);
    expect(net.at(0).core.view(net.at(3).id)?.incarnation).toBe(2);
  });
  it('a healed partition: all alive again, whether or not TCP gave up its connections', () => {
    for (const drop of [true, false]) {
      const net = started({ seed: 3 });
      net.partition([0, 1], [2, 3, 4]);
      net.run(4000);
      expect(allSee(net, [0, 1], [2, 3, 4], 'dead') && allSee(net, [2, 3, 4], [0, 1], 'dead')).toBe(true);
      if (drop) net.dropCutLinks();
      net.heal();
      expect(net.until(() => allAlive(net), 5000)).toBeLessThan(2000);
      net.observed.length = 0;
      net.run(20_000);
      expect(net.observed).toEqual([]);
    }
  });
  it('a leaving peer is left, not dead', () => {
    const net = started({ seed: 6 });
    net.leave(net.at(2).id);
    net.run(5000);
    expect(allSee(net, [0, 1, 3, 4], [2], 'left')).toBe(true);
    expect(changesTo(net, 'dead')).toEqual([]);
  });
  it('a peer admitted but never seen is looked into after its time to connect, and no sooner', () => {
    const net = new Network({ peers: 3, seed: 1, connect: false });
    net.run(1900);
    expect(net.sent.boot).toBe(0);
    net.powerOff(net.at(2).id);
    net.run(5000);
    expect(allSee(net, [0, 1], [2], 'dead') && allSee(net, [0], [1], 'alive')).toBe(true);
  });
});

describe('cost and size', () => {
  it('five idle peers: at most 20 probes a second each, and nothing else', () => {
    const net = started({ seed: 8 });
    const before = { ...net.sent };
    net.run(10_000);
    expect((net.sent.ping - before.ping) / 5 / 10).toBeLessThanOrEqual(20);
    expect(net.sent.boot + net.sent.gossip + net.sent['ping-req'] + net.sent.updates).toBe(0);
  });
  it('beyond the full mesh probes per peer stay constant, and a cut is still seen within 2 s', () => {
    const rate: number[] = [];
    for (const peers of [30, 90]) {
      const net = started({ seed: 3, peers });
      const before = net.sent.ping;
      net.run(3000);
      rate.push((net.sent.ping - before) / 3 / peers);
      const others = net.ids.map((_, i) => i).filter((i) => i !== 7);
      net.partition([7], others);
      expect(
        net.until(() => allSee(net, others, [7], 'dead'), 5000),
        `${peers} peers`,
      ).toBeLessThan(2000);
    }
    for (const r of rate) expect(r).toBeLessThanOrEqual(22);
  });
  it('same seed, same effects', () => {
    const trace = (seed: number): string[] => {
      const net = new Network({ peers: 4, seed, loss: 0.02, bootLoss: 0.1 });
      net.tracing = true;
      net.later(300, () => net.stall(net.at(1).id, 700));
      net.later(1500, () => net.kill(net.at(0).id));
      net.run(2500);
      return net.trace;
    };
    expect(trace(11)).toEqual(trace(11));
    expect(trace(11)).not.toEqual(trace(12));
  });
});

it('any mix of faults: once they end, every running peer is alive for every running peer, within 10 s', () => {
  const fault = fc.record({
    kind: fc.constantFrom('kill', 'restart', 'agent', 'stall', 'split', 'oneway', 'drop'),
    who: fc.nat(4),
    other: fc.nat(4),
    pause: fc.integer({ min: 1, max: 1500 }),
  });
  fc.assert(
    fc.property(fc.nat(1_000_000), fc.array(fault, { minLength: 1, maxLength: 8 }), (seed, faults) => {
      const net = new Network({ peers: 5, seed, bootLoss: 0.02 });
      net.run(500);
      for (const f of faults) {
        const id = net.at(f.who).id;
        const rest = [0, 1, 2, 3, 4].filter((i) => i !== f.who && i !== f.other);
        if (f.kind === 'kill') net.kill(id);
        else if (f.kind === 'restart') net.restart(id);
        else if (f.kind === 'agent') net.killAgent(id);
        else if (f.kind === 'stall') net.stall(id, f.pause);
        else if (f.kind === 'split') net.partition([...new Set([f.who, f.other])], rest);
        else if (f.kind === 'drop') net.dropCutLinks();
        else if (f.who !== f.other) net.block(f.who, f.other);
        net.run(f.pause);
      }
      net.run(1600);
      for (const m of net.machines) if (!m.agentUp) net.restart(m.id);
      net.heal();
      const calm = (): boolean => net.ids.every((a) => net.ids.every((b) => a === b || net.status(a, b) === 'alive'));
      net.run(10_000);
      expect(calm()).toBe(true);
    }),
    { numRuns: 60, seed: 20261121 },
  );
});

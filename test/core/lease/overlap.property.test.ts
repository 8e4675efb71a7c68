import fc from 'fast-check';
import { expect, test } from 'vitest';
import { createLeaseGranter, type GranterEffect, type LeaseGranter } from '../../../src/core/lease/granter.ts';
import { createLeaseHolder, type HolderEffect, type LeaseHolder } from '../../../src/core/lease/holder.ts';
import { DEFAULT_LEASE_CONFIG as CONFIG, type LeaseMessage } from '../../../src/core/lease/types.ts';
import { type NodeId, nodeId, type Term, term } from '../../../src/model/ids.ts';
import { createRng } from '../../../src/model/random.ts';
import { clusterState, gen, key, ms, on, spec, task } from './fixtures.ts';

// The rule under test: the run intervals of two generations of an exclusive slot never overlap, whatever the clocks (rate
// within r of true time), delays, losses, duplicates, changes of master and restarts of agents. The world below is the
// worst that the model allows: a copy runs from its first granted lease to the very end of its deadline.

interface Run {
  readonly g: number;
  readonly node: NodeId;
  readonly from: number;
  to: number;
}

interface Peer {
  readonly id: NodeId;
  readonly rate: number;
  readonly offset: number;
  granter: LeaseGranter;
  holder: LeaseHolder;
  life: number;
  wakeAt: number;
}

function world(seed: number) {
  const rng = createRng(seed);
  const names = ['A', 'B', 'C'].map(nodeId);
  let t = 0;
  const queue: { at: number; run: () => void }[] = [];
  const after = (delay: number, run: () => void): void => {
    queue.push({ at: t + delay, run });
  };
  const record = spec({ onPartition: 'stop' });
  let slot: { g: number; state: ReturnType<typeof on> | { kind: 'pending'; reason: string } } = {
    g: 0,
    state: { kind: 'pending', reason: '' },
  };
  const state = () => clusterState([task('t', record, [slot])], names);
  let currentTerm = 1;
  let leader = names[0] as NodeId;
  const electedAt = new Map<number, number>();
  const runs: Run[] = [];
  const granted: number[] = [];

  const peers = new Map<NodeId, Peer>();
  /** The term each peer believes it leads: a deposed master learns late. */
  const thinks = new Map<NodeId, Term>([[leader, term(1)]]);
  const local = (p: Peer) => ms(p.offset + t * p.rate);
  const real = (p: Peer, at: number) => (at - p.offset) / p.rate;
  const newHolder = (life: number) => createLeaseHolder(CONFIG, { firstSeq: life * 2 ** 30 });
  for (const id of names) {
    peers.set(id, {
      id,
      rate: 1 + (rng.next() * 2 - 1) * CONFIG.clockRateError,
      offset: rng.int(0, 1_000_000),
      granter: createLeaseGranter(CONFIG, { leading: () => thinks.get(id) ?? null, pendingAssign: () => false }),
      holder: newHolder(1),
      life: 1,
      wakeAt: -1,
    });
  }
  const peer = (id: NodeId) => peers.get(id) as Peer;

  const send = (from: NodeId, to: NodeId, message: LeaseMessage): void => {
    if (rng.next() < 0.15) return;
    const copies = rng.next() < 0.1 ? 2 : 1;
    for (let i = 0; i < copies; i++) {
      after(rng.next() < 0.05 ? rng.int(0, 5000) : rng.int(0, 80), () => deliver(from, to, message));
    }
  };
  const deliver = (from: NodeId, to: NodeId, message: LeaseMessage): void => {
    const p = peer(to);
    if (message.type === 'lease-ack') onHolder(p, p.holder.onAck(from, message, local(p)));
    else onGranter(p, p.granter.onRenew(from, message, local(p)));
  };
  const onGranter = (p: Peer, effects: readonly GranterEffect[]): void => {
    for (const e of effects) {
      if (e.type === 'send') send(p.id, e.to, e.message);
      else {
        const begun = t;
        const inTerm = currentTerm;
        const mine = leader === p.id;
        // The round succeeds if it began before a quorum had voted in a later term, however late its answers arrive.
        after(rng.int(0, 60), () => {
          const next = electedAt.get(inTerm + 1);
          const ok = mine && (next === undefined || begun <= next) && rng.next() > 0.05;
          onGranter(p, p.granter.onReadReady(e.id, ok, local(p), state()));
        });
      }
    }
  };
  const onHolder = (p: Peer, effects: readonly HolderEffect[]): void => {
    for (const e of effects) {
      if (e.type === 'send') send(p.id, e.to, e.message);
      else {
        const g = e.key.generation.g;
        let run = runs.find((r) => r.g === g && r.node === p.id && r.to >= t);
        if (e.deadline !== undefined) {
          if (run === undefined) {
            run = { g, node: p.id, from: t, to: t };
            runs.push(run);
          }
          run.to = Math.max(run.to, real(p, e.deadline));
        } else if (run !== undefined && e.reason === 'refused') {
          run.to = Math.min(run.to, t + CONFIG.stopAllowanceMs);
        }
      }
    }
    const wake = p.holder.nextWake();
    if (wake !== undefined && wake !== p.wakeAt) {
      p.wakeAt = wake;
      after(Math.max(0, real(p, wake) - t) + rng.int(0, 30), () => {
        p.wakeAt = -1;
        onHolder(p, p.holder.tick(local(p)));
      });
    }
  };

  const refresh = (): void => {
    for (const p of peers.values()) {
      after(rng.int(0, 100), () => {
        if (slot.state.kind === 'assigned' && slot.state.node === p.id)
          onHolder(p, p.holder.desired([key(slot.g)], local(p)));
        else onHolder(p, p.holder.desired([], local(p)));
      });
    }
  };
  const actions: Record<string, () => void> = {
    move: () => {
      const p = peer(leader);
      const old = slot;
      const assign = (): void => {
        if (leader !== p.id || slot !== old) return;
        const closeKey = key(old.g);
        p.granter.close(closeKey, old.state.kind === 'assigned' ? old.state.node : null, local(p));
        const at = old.g === 0 ? 0 : p.granter.mayGrantAt(closeKey);
        if (at === undefined) return;
        if (local(p) < at) {
          after(Math.max(1, real(p, at) - t), assign);
          return;
        }
        p.granter.assigning(key(old.g + 1));
        slot = { g: old.g + 1, state: on(rng.pick(names) as NodeId) };
        granted.push(t);
        refresh();
      };
      assign();
    },
    elect: () => {
      electedAt.set(++currentTerm, t);
      const mine = currentTerm;
      leader = rng.pick(names) as NodeId;
      const p = peer(leader);
      // It knows its own term at once; others that think themselves master learn by failed rounds only.
      p.granter.lostMaster();
      thinks.set(leader, term(mine));
      after(rng.int(0, 200), () => {
        if (currentTerm === mine) p.granter.becameMaster(term(mine), local(p));
      });
      for (const h of peers.values()) after(rng.int(0, 500), () => onHolder(h, h.holder.master(leader, local(h))));
    },
    /** The copy dies, boot proves it, the holder says so. */
    release: () => {
      const p = peer(rng.pick(names) as NodeId);
      const held = p.holder.held()[0];
      if (held === undefined) return;
      for (const r of runs) if (r.g === held.key.generation.g && r.node === p.id) r.to = Math.min(r.to, t);
      onHolder(p, p.holder.released(held.key, local(p)));
    },
    restart: () => {
      // The agent dies and returns with a new life; its copies run on under boot until their deadlines.
      const p = peer(rng.pick(names) as NodeId);
      p.life++;
      const held = p.holder.held();
      p.holder = newHolder(p.life);
      p.wakeAt = -1;
      // A restarted agent runs on what it finds running under a valid lease; what it does not find it releases for good.
      const alive = held.filter((h) => h.deadline !== undefined && local(p) < h.deadline - CONFIG.stopAllowanceMs);
      for (const h of alive) if (h.deadline !== undefined) onHolder(p, p.holder.adopt(h.key, h.deadline, local(p)));
      onHolder(p, p.holder.master(leader, local(p)));
      if (
        slot.state.kind === 'assigned' &&
        slot.state.node === p.id &&
        !alive.some((h) => h.key.generation.g === slot.g)
      ) {
        for (const r of runs) if (r.g === slot.g && r.node === p.id) r.to = Math.min(r.to, t);
        onHolder(p, p.holder.released(key(slot.g), local(p)));
      }
      refresh();
    },
  };

  peer(leader).granter.becameMaster(term(1), local(peer(leader)));
  for (const p of peers.values()) onHolder(p, p.holder.master(leader, local(p)));
  actions.move?.();
  for (let i = 0; i < 25; i++) {
    const name = rng.pick(['move', 'move', 'move', 'elect', 'release', 'restart']) as string;
    queue.push({ at: rng.int(100, 60_000), run: () => actions[name]?.() });
  }
  let steps = 0;
  while (queue.length > 0 && t < 70_000 && steps++ < 20_000) {
    let best = 0;
    for (let i = 1; i < queue.length; i++) if ((queue[i]?.at ?? 0) < (queue[best]?.at ?? 0)) best = i;
    const [next] = queue.splice(best, 1);
    if (next === undefined) break;
    t = Math.max(t, next.at);
    next.run();
  }
  return { runs, granted, generations: slot.g };
}

test('no two generations of an exclusive slot ever run at once', () => {
  let moved = 0;
  let ran = 0;
  fc.assert(
    fc.property(fc.integer(), (seed) => {
      const { runs, generations } = world(seed);
      moved += generations;
      ran += runs.length;
      for (const a of runs) {
        for (const b of runs) {
          if (a === b || a.g >= b.g) continue;
          expect(
            a.to,
            `g${a.g} on ${a.node} until ${a.to}, g${b.g} on ${b.node} from ${b.from}, seed ${seed}`,
          ).toBeLessThanOrEqual(b.from);
        }
      }
    }),
    { numRuns: 150 },
  );
  // The world must do what it is for: generations move on and copies run.
  expect(moved).toBeGreaterThan(300);
  expect(ran).toBeGreaterThan(300);
  expect(gen(1).g).toBe(1);
});

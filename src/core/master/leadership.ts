import type { NodeFacts } from '../../model/facts.ts';
import { type MonoMs, monoMs, type NodeId } from '../../model/ids.ts';
import type { PeerRecord } from '../../model/records.ts';
import { chooseVoters, VOTER_GROW_MS, VOTER_STABLE_MS, type VoterCandidate } from '../consensus/voters.ts';
import type { MasterConfig } from './config.ts';
import type { MasterContext, MasterEffect } from './types.ts';

// Who votes, and who leads. Bully (Garcia-Molina 1982) gives the rank; it departs in that rank never overrides the log:
// the highest-ranked voter takes over by Raft's leadership transfer (Ongaro's thesis 3.10), only when healthy, caught up
// and so for `stableMs`, so that mastery does not flap.

/** Bully rank as one number: configured priority, then cores, then memory. Ties are broken by PeerId. */
export function bullyRank(priority: number, facts: NodeFacts | undefined): number {
  if (facts === undefined || facts.witness) return priority * 2 ** 20;
  const gib = Math.floor(facts.resources.memoryBytes / 2 ** 30);
  return priority * 2 ** 20 + Math.min(1023, Math.floor(facts.resources.cpus)) * 1024 + Math.min(1023, gib);
}

/** This often while something is about to become stable. */
const RECHECK_MS = 1000;
/** A slow master hands over, but not again soon: where all machines are busy, mastery would only go round. */
const HAND_OVER_PAUSE_MS = 60_000;

export interface Leadership {
  /** A new term begins with this peer as master. */
  begin(self: NodeId, now: MonoMs): void;
  /** Voters and transfer. Cheap, but O(peers): called when machines changed and at `nextWake`. */
  evaluate(ctx: MasterContext, self: NodeId, now: MonoMs): MasterEffect[];
  nextWake(): MonoMs | undefined;
}

export function createLeadership(config: MasterConfig): Leadership {
  let wakeAt: number | undefined;
  let changeUntil = 0;
  let changeFrom = '';
  let better: { readonly id: NodeId; readonly since: MonoMs } | undefined;
  let handOverAt = Number.NEGATIVE_INFINITY;
  /** Outlives a term: peers that were handed mastery and did not keep it wait longer each time. */
  const pauses = new Map<NodeId, { until: number; pauseMs: number }>();
  let lastTransfer: NodeId | undefined;

  const wake = (at: number): void => {
    if (wakeAt === undefined || at < wakeAt) wakeAt = at;
  };
  const alive = (ctx: MasterContext, self: NodeId, id: NodeId): boolean =>
    id === self || ctx.members.get(id)?.status === 'alive';
  const caughtUp = (ctx: MasterContext, self: NodeId, id: NodeId): boolean =>
    id === self || (ctx.consensus.match.get(id) ?? -1) >= ctx.consensus.commit - config.caughtUpEntries;
  const rankOf = (ctx: MasterContext, peer: PeerRecord): number => bullyRank(peer.priority, ctx.facts.get(peer.nodeId));

  const voters = (ctx: MasterContext, self: NodeId, now: MonoMs): MasterEffect[] => {
    const { membership, logLost } = ctx.consensus;
    const current = membership.voters.join();
    if (membership.outgoing !== null) return [];
    if (changeFrom === current && now < changeUntil) {
      wake(changeUntil);
      return [];
    }
    const admitted: VoterCandidate[] = [];
    let soonest: number | undefined;
    for (const peer of ctx.state.peers.values()) {
      const member = ctx.members.get(peer.nodeId);
      const since = peer.nodeId === self ? monoMs(0) : (member?.since ?? now);
      // What is not stable yet may become so: look again then.
      for (const after of [VOTER_GROW_MS, VOTER_STABLE_MS]) {
        const at = since + after;
        if (at > now && (soonest === undefined || at < soonest)) soonest = at;
      }
      const zone = ctx.facts.get(peer.nodeId)?.labels.zone ?? '';
      admitted.push({
        id: peer.nodeId,
        witness: peer.witness,
        zone: peer.labels.zone ?? zone,
        rank: rankOf(ctx, peer),
        healthy: alive(ctx, self, peer.nodeId),
        since,
        caughtUp: caughtUp(ctx, self, peer.nodeId),
        availability: peer.availability,
        logLost: logLost?.has(peer.nodeId) === true,
      });
    }
    if (soonest !== undefined) wake(soonest);
    if (admitted.some((m) => m.healthy && !m.caughtUp)) wake(now + RECHECK_MS);
    const next = chooseVoters({ admitted, current: membership.voters, now, leader: self });
    if (next === null) return [];
    changeFrom = current;
    changeUntil = now + config.proposalTimeoutMs;
    wake(changeUntil);
    return [{ type: 'change-voters', voters: next }];
  };

  /** Voters that could lead now, best rank first; this peer among them. */
  const ranked = (ctx: MasterContext, self: NodeId): NodeId[] => {
    const able = ctx.consensus.membership.voters.filter(
      (id) =>
        ctx.state.peers.has(id) &&
        alive(ctx, self, id) &&
        caughtUp(ctx, self, id) &&
        ctx.consensus.logLost?.has(id) !== true,
    );
    const rank = new Map(able.map((id) => [id, rankOf(ctx, ctx.state.peers.get(id) as PeerRecord)]));
    return able.sort((a, b) => (rank.get(b) ?? 0) - (rank.get(a) ?? 0) || (a > b ? -1 : 1));
  };

  const transfer = (ctx: MasterContext, self: NodeId, now: MonoMs): MasterEffect[] => {
    if (ctx.consensus.membership.outgoing !== null) return [];
    const order = ranked(ctx, self);
    if (ctx.localHealth > config.maxLocalHealth) {
      const to = order.find((id) => id !== self);
      wake(now + HAND_OVER_PAUSE_MS);
      if (to === undefined || now - handOverAt < HAND_OVER_PAUSE_MS) return [];
      handOverAt = now;
      return [{ type: 'transfer', to, reason: `this master is slow (local health ${ctx.localHealth})` }];
    }
    const top = order[0];
    if (top === undefined || top === self || !ctx.facts.has(top) || !ctx.facts.has(self)) {
      better = undefined;
      return [];
    }
    if (better?.id !== top) better = { id: top, since: now };
    const pause = pauses.get(top);
    const at = Math.max(better.since + config.stableMs, pause?.until ?? 0);
    if (now < at) {
      wake(at);
      return [];
    }
    pauses.set(top, {
      until: now + (pause?.pauseMs ?? config.transferPauseMs),
      pauseMs: pause?.pauseMs ?? config.transferPauseMs,
    });
    for (const id of pauses.keys()) if (!ctx.state.peers.has(id)) pauses.delete(id);
    lastTransfer = top;
    better = undefined;
    wake(now + config.transferPauseMs);
    return [{ type: 'transfer', to: top, reason: 'higher rank, healthy and caught up' }];
  };

  return {
    begin(self, now) {
      wakeAt = now;
      changeFrom = '';
      changeUntil = 0;
      better = undefined;
      if (lastTransfer === undefined || lastTransfer === self) return;
      // Mastery came back from the peer it was given to: that one has to prove itself for longer.
      const pauseMs = Math.min(
        config.transferPauseCapMs,
        2 * (pauses.get(lastTransfer)?.pauseMs ?? config.transferPauseMs),
      );
      pauses.set(lastTransfer, { until: now + pauseMs, pauseMs });
      lastTransfer = undefined;
    },
    evaluate(ctx, self, now) {
      wakeAt = undefined;
      const effects = voters(ctx, self, now);
      return effects.length > 0 ? effects : transfer(ctx, self, now);
    },
    nextWake: () => (wakeAt === undefined ? undefined : monoMs(wakeAt)),
  };
}

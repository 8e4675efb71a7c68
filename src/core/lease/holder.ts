import { type MonoMs, monoMs, type NodeId } from '../../model/ids.ts';
import { holderLeaseMs, LEASES_PER_RENEWAL, leaseText } from './keys.ts';
import type { HeldLease, LeaseConfig, LeaseKey, RenewAckMessage, RenewMessage } from './types.ts';

// Leases (Gray & Cheriton 1989), holder's side: one renewal message for all exclusive copies of the machine. A deadline
// counts from the SEND time of the newest acknowledged renewal, so neither the network's nor the master's delay adds to
// it. README.md beside this file has the argument.

/** Proofs of death repeated in renewals until the master echoes them. */
const RELEASED_KEPT = 1024;
/** 'At once' means not sooner than this after the renewal before: a burst of new copies shares a message. */
const RENEW_GAP_MS = 20;

export type HolderEffect =
  | { readonly type: 'send'; readonly to: NodeId; readonly message: RenewMessage }
  /** To reconcile and to boot. `undefined`: stop now (kill), `reason` says why. */
  | {
      readonly type: 'lease';
      readonly key: LeaseKey;
      readonly deadline: MonoMs | undefined;
      readonly reason: 'granted' | 'renewed' | 'adopted' | 'expired' | 'refused';
    };

export interface LeaseHolder {
  /**
   * The exclusive copies of this machine, wanted or still running (reconcile's `leaseKeys()`). A key left out is renewed no
   * more; its lease still ends with an `expired` effect at its time. `ending`: those that are being stopped gracefully; a
   * refusal lets them use up the lease they have (the master waits for it in any case) instead of ending it at once.
   */
  desired(keys: readonly LeaseKey[], now: MonoMs, ending?: readonly LeaseKey[]): HolderEffect[];
  /** Who is master as far as this machine knows. */
  master(node: NodeId | null, now: MonoMs): HolderEffect[];
  /** Reconcile's `released`: said in every renewal until the master echoes it. */
  released(key: LeaseKey, now: MonoMs): HolderEffect[];
  /** A deadline boot kept for an earlier life of this agent. Before `desired`, in the same turn. */
  adopt(key: LeaseKey, deadline: MonoMs, now: MonoMs): HolderEffect[];
  onAck(from: NodeId, message: RenewAckMessage, now: MonoMs): HolderEffect[];
  tick(now: MonoMs): HolderEffect[];
  nextWake(): MonoMs | undefined;
  held(): readonly HeldLease[];
}

interface Entry {
  readonly key: LeaseKey;
  wanted: boolean;
  ending: boolean;
  /** Renewals before this seq did not carry the key. */
  firstSeq: number;
  /** Newest seq that was answered for this key. */
  answeredSeq: number;
  deadline: MonoMs | undefined;
}

export interface HolderOptions {
  /**
   * First seq. Must lie above every seq of earlier lives of this peer (e.g. incarnation * 2^30): an answer to an earlier
   * life must never name a seq of this one, and the master voids messages with an older seq.
   */
  readonly firstSeq: number;
}

function trim(kept: Map<string, unknown> | Set<string>): void {
  for (const old of kept.keys()) {
    if (kept.size <= RELEASED_KEPT) return;
    kept.delete(old);
  }
}

export function createLeaseHolder(config: LeaseConfig, options: HolderOptions): LeaseHolder {
  const leaseMs = holderLeaseMs(config);
  const entries = new Map<string, Entry>();
  const releases = new Map<string, LeaseKey>();
  /** Keys released in this life: never renewed again, whatever is desired; desired once more, they are said again. */
  const obituaries = new Set<string>();
  /** Send times of renewals younger than a lease: at most leaseMs / renewEveryMs plus the immediate ones. */
  const sent = new Map<number, { readonly at: number; readonly to: NodeId }>();
  let seq = options.firstSeq;
  let master: NodeId | null = null;
  let nextRenewAt: number | undefined;
  let lastRenewAt = Number.NEGATIVE_INFINITY;
  /** Earliest deadline - S over all entries; undefined = none; kept lazily. */
  let nextExpiry: number | undefined;

  const recomputeExpiry = (): void => {
    nextExpiry = undefined;
    for (const e of entries.values()) {
      if (e.deadline === undefined) continue;
      const at = e.deadline - config.stopAllowanceMs;
      if (nextExpiry === undefined || at < nextExpiry) nextExpiry = at;
    }
  };

  const expire = (now: number): HolderEffect[] => {
    if (nextExpiry === undefined || now < nextExpiry) return [];
    const effects: HolderEffect[] = [];
    for (const [text, e] of entries) {
      if (e.deadline === undefined || now < e.deadline - config.stopAllowanceMs) continue;
      e.deadline = undefined;
      if (!e.wanted) entries.delete(text);
      effects.push({ type: 'lease', key: e.key, deadline: undefined, reason: 'expired' });
    }
    recomputeExpiry();
    return effects;
  };

  const renew = (now: number): HolderEffect[] => {
    const leases: LeaseKey[] = [];
    for (const e of entries.values()) {
      if (!e.wanted || leases.length >= LEASES_PER_RENEWAL) continue;
      if (e.firstSeq < 0) e.firstSeq = seq;
      leases.push(e.key);
    }
    if (master === null || (leases.length === 0 && releases.size === 0)) {
      nextRenewAt = undefined;
      return [];
    }
    lastRenewAt = now;
    for (const [old, s] of sent) {
      if (now - s.at <= leaseMs) break;
      sent.delete(old);
    }
    sent.set(seq, { at: Math.floor(now), to: master });
    nextRenewAt = now + config.renewEveryMs;
    const message: RenewMessage = { type: 'lease-renew', seq, leases, released: [...releases.values()] };
    seq++;
    return [{ type: 'send', to: master, message }];
  };

  const renewSoon = (now: number): HolderEffect[] => {
    if (now - lastRenewAt >= RENEW_GAP_MS) return renew(now);
    nextRenewAt = Math.min(nextRenewAt ?? Number.POSITIVE_INFINITY, lastRenewAt + RENEW_GAP_MS);
    return [];
  };

  const applyAck = (key: LeaseKey, seqOf: number, sentAt: number, now: number): HolderEffect[] => {
    const e = entries.get(leaseText(key));
    if (e === undefined || !e.wanted || e.firstSeq < 0 || seqOf < e.firstSeq || seqOf <= e.answeredSeq) return [];
    e.answeredSeq = seqOf;
    const deadline = monoMs(sentAt + leaseMs);
    if (now >= deadline - config.stopAllowanceMs || (e.deadline !== undefined && deadline <= e.deadline)) return [];
    const first = e.deadline === undefined;
    e.deadline = deadline;
    return [{ type: 'lease', key: e.key, deadline, reason: first ? 'granted' : 'renewed' }];
  };

  const applyRefusal = (key: LeaseKey, seqOf: number): HolderEffect[] => {
    const text = leaseText(key);
    releases.delete(text);
    const e = entries.get(text);
    if (e === undefined || e.firstSeq < 0 || seqOf < e.firstSeq || seqOf <= e.answeredSeq) return [];
    e.answeredSeq = seqOf;
    if (e.ending) return [];
    const had = e.deadline !== undefined;
    e.deadline = undefined;
    if (!e.wanted) entries.delete(text);
    return had ? [{ type: 'lease', key: e.key, deadline: undefined, reason: 'refused' }] : [];
  };

  return {
    desired(keys, now, ending = []) {
      const effects = expire(now);
      const want = new Set<string>();
      let fresh = false;
      for (const key of keys) {
        const text = leaseText(key);
        if (obituaries.has(text)) {
          releases.set(text, key);
          fresh = true;
          continue;
        }
        want.add(text);
        const e = entries.get(text);
        if (e?.wanted) continue;
        fresh = true;
        if (e === undefined)
          entries.set(text, { key, wanted: true, ending: false, firstSeq: -1, answeredSeq: -1, deadline: undefined });
        else e.wanted = true;
      }
      const stopping = new Set(ending.map(leaseText));
      for (const [text, e] of entries) {
        e.ending = stopping.has(text);
        if (want.has(text)) continue;
        e.wanted = false;
        if (e.deadline === undefined) entries.delete(text);
      }
      if (fresh) effects.push(...renewSoon(now));
      return effects;
    },
    master(node, now) {
      const effects = expire(now);
      if (node === master) return effects;
      master = node;
      effects.push(...renew(now));
      return effects;
    },
    released(key, now) {
      const effects = expire(now);
      const text = leaseText(key);
      const e = entries.get(text);
      // A released copy is dead: its lease is of no use, and it must not be renewed beside its own obituary.
      if (e !== undefined) entries.delete(text);
      if (releases.has(text)) return effects;
      releases.set(text, key);
      obituaries.add(text);
      trim(releases);
      trim(obituaries);
      recomputeExpiry();
      effects.push(...renewSoon(now));
      return effects;
    },
    adopt(key, deadline, now) {
      const effects = expire(now);
      if (now >= deadline - config.stopAllowanceMs) return effects;
      const text = leaseText(key);
      const e = entries.get(text) ?? {
        key,
        wanted: false,
        ending: false,
        firstSeq: -1,
        answeredSeq: -1,
        deadline: undefined,
      };
      entries.set(text, e);
      if (e.deadline !== undefined && e.deadline >= deadline) return effects;
      e.deadline = deadline;
      recomputeExpiry();
      effects.push({ type: 'lease', key, deadline, reason: 'adopted' });
      return effects;
    },
    onAck(from, message, now) {
      const effects = expire(now);
      const s = sent.get(message.seq);
      if (s === undefined || s.to !== from) return effects;
      for (const key of message.acked) effects.push(...applyAck(key, message.seq, s.at, now));
      for (const key of message.refused) effects.push(...applyRefusal(key, message.seq));
      recomputeExpiry();
      return effects;
    },
    tick(now) {
      const effects = expire(now);
      if (nextRenewAt !== undefined && now >= nextRenewAt) effects.push(...renew(now));
      return effects;
    },
    nextWake() {
      if (nextExpiry === undefined) return nextRenewAt === undefined ? undefined : monoMs(nextRenewAt);
      return monoMs(nextRenewAt === undefined ? nextExpiry : Math.min(nextExpiry, nextRenewAt));
    },
    held: () => [...entries.values()].map((e) => ({ key: e.key, deadline: e.deadline })),
  };
}

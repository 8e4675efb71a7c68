import { compareGeneration, sameGeneration } from '../../model/generation.ts';
import { type MonoMs, monoMs, type NodeId, type Term } from '../../model/ids.ts';
import type { ClusterState } from '../state/types.ts';
import { granterWaitMs, LEASES_PER_RENEWAL, leaseText, slotRecord, slotText } from './keys.ts';
import type { LeaseConfig, LeaseKey, RenewAckMessage, RenewMessage, SlotKey } from './types.ts';

// Leases (Gray & Cheriton 1989), master's side. A renewal is acknowledged only after a quorum round begun after its
// receipt (ReadIndex, Ongaro's thesis 6.4), and a slot is granted again only when every lease that any master may have
// acknowledged has run out. Departures: the term counts from the holder's send time, not the master's grant time; one
// quorum round serves all renewals received before it began; a proof of death by the holder replaces the wait.
// README.md beside this file has the argument.

/** Renewals of one peer waiting for a quorum round; the oldest is dropped beyond this (the holder repeats itself). */
const PENDING_PER_NODE = 4;
/** A round not answered for this long is given up (its late answer is ignored) and a new one is begun. */
const READ_TIMEOUT_MS = 1000;
/** Proofs of death remembered; forgetting one only costs its slot a lease's wait. */
const RELEASED_KEPT = 8192;

export type GranterEffect =
  /** Hand `read-index` with this id to consensus; its `read-ready` comes back through onReadReady. */
  | { readonly type: 'read-index'; readonly id: number }
  | { readonly type: 'send'; readonly to: NodeId; readonly message: RenewAckMessage };

export interface LeaseGranter {
  /** L(1+r): no lease that was acknowledged before now outlives this. */
  readonly waitMs: number;
  /** The no-op of this term is applied here. Anything an earlier master granted may run until now + L(1+r). Idempotent per term. */
  becameMaster(term: Term, now: MonoMs): void;
  /** Leadership lost or in doubt: nothing is acknowledged until becameMaster. */
  lostMaster(): void;
  onRenew(from: NodeId, message: RenewMessage, now: MonoMs): GranterEffect[];
  /** `state` must be applied up to the round's read index. */
  onReadReady(id: number, ok: boolean, now: MonoMs, state: ClusterState): GranterEffect[];
  /** This master proposes generation `key` in this term: no earlier master can have acknowledged it. Call it when proposing. */
  assigning(key: LeaseKey): void;
  /** From now on no renewal of `key` is acknowledged by this master. `node`: its holder, if known. Idempotent. */
  close(key: LeaseKey, node: NodeId | null, now: MonoMs): void;
  /** Earliest time at which the slot of a closed key may be granted again; undefined when the key is not closed here. */
  mayGrantAt(key: LeaseKey): MonoMs | undefined;
  /** The holder said, with boot's proof, that this copy is dead and will not be started again under this generation. */
  isReleased(key: LeaseKey, node: NodeId): boolean;
}

export interface GranterDeps {
  /** The term this peer leads now by consensus, or null. Asked before anything is acknowledged: a deposed master grants nothing. */
  readonly leading: () => Term | null;
  /** Whether the master's log holds an assignment of this slot beyond the applied index. */
  readonly pendingAssign: (slot: SlotKey) => boolean;
  /** Told of each key newly released, so that the master core can look at the task. */
  readonly onReleased?: (key: LeaseKey, from: NodeId) => void;
  /** First read id; defaults to 1. Lets a composition share one id space with other readers. */
  readonly firstReadId?: number;
}

interface Pending {
  readonly from: NodeId;
  readonly message: RenewMessage;
}

interface Closing {
  readonly key: LeaseKey;
  readonly node: NodeId | null;
  readonly notBefore: MonoMs;
}

/** Owns its maps; never keeps a reference to `state`. */
export function createLeaseGranter(config: LeaseConfig, deps: GranterDeps): LeaseGranter {
  const waitMs = granterWaitMs(config);
  let term: Term | undefined;
  let masterSince = 0;
  let nextReadId = deps.firstReadId ?? 1;
  let inFlight: { readonly id: number; readonly since: number; readonly batch: readonly Pending[] } | undefined;
  let queue: Pending[] = [];
  let sweptAt = 0;
  /** Highest seq seen per peer: an older message is from before, or from an earlier life of the peer; it is void. */
  const lastSeq = new Map<NodeId, number>();
  /** Receipt of the last renewal per slot, of whatever generation. Entries older than the wait say nothing and are swept. */
  const received = new Map<string, number>();
  /** Generations proposed in this term while an earlier master's leases may still run (the first L(1+r) of the term). */
  const assignedHere = new Set<string>();
  /** Per slot: the highest generation closed; it and all before it are refused. */
  const closing = new Map<string, Closing>();
  const released = new Map<string, NodeId>();

  const isClosed = (key: LeaseKey): boolean => {
    const c = closing.get(slotText(key));
    return c !== undefined && compareGeneration(key.generation, c.key.generation) <= 0;
  };

  const reset = (): void => {
    inFlight = undefined;
    queue = [];
    received.clear();
    assignedHere.clear();
    closing.clear();
    released.clear();
    lastSeq.clear();
  };

  const beginRound = (now: number): GranterEffect[] => {
    if (queue.length === 0) return [];
    inFlight = { id: nextReadId++, since: now, batch: queue };
    queue = [];
    return [{ type: 'read-index', id: inFlight.id }];
  };

  const sweep = (now: number, state: ClusterState): void => {
    if (now - sweptAt < waitMs) return;
    sweptAt = now;
    for (const [text, at] of received) if (now - at > 2 * waitMs) received.delete(text);
    if (now - masterSince > 2 * waitMs) assignedHere.clear();
    for (const [text, c] of closing) {
      const slot = slotRecord(state, c.key);
      if (slot === undefined || compareGeneration(slot.generation, c.key.generation) > 0) closing.delete(text);
    }
    for (const id of lastSeq.keys()) if (!state.peers.has(id)) lastSeq.delete(id);
  };

  const grantable = (from: NodeId, key: LeaseKey, state: ClusterState): boolean => {
    const text = leaseText(key);
    if (isClosed(key) || released.has(text)) return false;
    // Granted before a recovery by force: another may have been granted since, in the epoch that was left.
    if (key.generation.epoch < (state.cluster?.epoch ?? 0)) return false;
    const slot = slotRecord(state, key);
    if (slot === undefined || !sameGeneration(slot.generation, key.generation) || deps.pendingAssign(key)) return false;
    // `pending` at this very generation: its task was stopped. No master grants the slot again without closing the
    // generation and waiting, so its copy may keep its lease while it stops gracefully.
    return slot.state.kind === 'pending' || (slot.state.kind === 'assigned' && slot.state.node === from);
  };

  const answer = (pending: Pending, state: ClusterState): GranterEffect => {
    const acked: LeaseKey[] = [];
    const refused: LeaseKey[] = [...pending.message.released];
    for (const key of pending.message.leases.slice(0, LEASES_PER_RENEWAL))
      (grantable(pending.from, key, state) ? acked : refused).push(key);
    return { type: 'send', to: pending.from, message: { type: 'lease-ack', seq: pending.message.seq, acked, refused } };
  };

  const noteReleased = (from: NodeId, keys: readonly LeaseKey[]): void => {
    for (const key of keys) {
      const text = leaseText(key);
      if (released.get(text) === from) continue;
      released.set(text, from);
      deps.onReleased?.(key, from);
    }
    for (const text of released.keys()) {
      if (released.size <= RELEASED_KEPT) break;
      released.delete(text);
    }
  };

  return {
    waitMs,
    becameMaster(newTerm, now) {
      if (term === newTerm) return;
      reset();
      term = newTerm;
      masterSince = Math.ceil(now);
      sweptAt = masterSince;
    },
    lostMaster() {
      if (term === undefined) return;
      term = undefined;
      reset();
    },
    onRenew(from, message, now) {
      if (term === undefined || deps.leading() !== term) return [];
      // Conservative: whatever comes in counts as received, even what will be refused for its age.
      for (const key of message.leases.slice(0, LEASES_PER_RENEWAL)) {
        if (!isClosed(key)) received.set(slotText(key), Math.ceil(now));
      }
      if (message.seq <= (lastSeq.get(from) ?? -1)) return [];
      lastSeq.set(from, message.seq);
      noteReleased(from, message.released.slice(0, LEASES_PER_RENEWAL));
      const mine = queue.filter((p) => p.from === from);
      if (mine.length >= PENDING_PER_NODE) queue.splice(queue.indexOf(mine[0] as Pending), 1);
      queue.push({ from, message });
      if (inFlight !== undefined && now - inFlight.since < READ_TIMEOUT_MS) return [];
      return beginRound(now);
    },
    onReadReady(id, ok, now, state) {
      if (term === undefined || deps.leading() !== term || inFlight?.id !== id) return [];
      const batch = inFlight.batch;
      inFlight = undefined;
      sweep(now, state);
      // A failed round says nothing about the leases: no answer, the holder asks again (or its lease runs out).
      const effects = ok ? batch.map((p) => answer(p, state)) : [];
      effects.push(...beginRound(now));
      return effects;
    },
    assigning(key) {
      if (term !== undefined) assignedHere.add(leaseText(key));
    },
    close(key, node, now) {
      const text = leaseText(key);
      if (term === undefined || isClosed(key)) return;
      const last = received.get(slotText(key));
      const own = last === undefined ? Math.ceil(now) : last + waitMs;
      const inherited = assignedHere.has(text) ? 0 : masterSince + waitMs;
      closing.set(slotText(key), { key, node, notBefore: monoMs(Math.max(own, inherited)) });
    },
    mayGrantAt(key) {
      const text = leaseText(key);
      const c = closing.get(slotText(key));
      if (c === undefined || !sameGeneration(c.key.generation, key.generation)) return undefined;
      const by = released.get(text);
      return by !== undefined && (c.node === null || by === c.node) ? monoMs(0) : c.notBefore;
    },
    isReleased: (key, node) => released.get(leaseText(key)) === node,
  };
}

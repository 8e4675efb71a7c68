import type { CopyFact, NodeFacts } from '../../model/facts.ts';
import { formatGeneration } from '../../model/generation.ts';
import type { Incarnation, NodeId } from '../../model/ids.ts';
import type { FactsDelta, FactsMessage } from '../../model/peer-messages.ts';
import type { HostFacts } from './types.ts';

// Observed facts: one document per peer, owned by it, last writer wins per (incarnation, version). Changes travel as
// deltas; whoever misses one asks for the whole document; a digest exchange when two peers meet heals the rest
// (Demers et al. 1987, anti-entropy by push-pull).

export const copyKey = (c: Pick<CopyFact, 'taskId' | 'slot' | 'generation'>): string =>
  `${c.taskId}.${c.slot}.${formatGeneration(c.generation)}`;

/** Copies in one delta: a copy fact is at most about 600 bytes, a gossip frame 64 KiB. */
const COPIES_PER_DELTA = 64;

const newer = (incarnation: number, version: number, than: NodeFacts | undefined): boolean =>
  than === undefined || incarnation > than.incarnation || (incarnation === than.incarnation && version > than.version);

const sameCopy = (a: CopyFact, b: CopyFact): boolean =>
  a.state === b.state &&
  a.health === b.health &&
  a.startedAt === b.startedAt &&
  a.exitCode === b.exitCode &&
  a.restarts === b.restarts &&
  a.error === b.error &&
  a.handle === b.handle &&
  a.ports.length === b.ports.length;

export interface FactsBook {
  readonly all: ReadonlyMap<NodeId, NodeFacts>;
  own(): NodeFacts | undefined;
  /** New head or copies of this peer; the deltas to spread, in order, each small enough for one gossip frame. */
  updateOwn(change: { readonly head?: HostFacts; readonly copies?: readonly CopyFact[] }): readonly FactsDelta[];
  setIncarnation(incarnation: Incarnation): void;
  /** Takes in a message; `changed` names the nodes whose facts moved, `replies` go back to the sender. */
  receive(
    message: FactsMessage,
    allowed: (id: NodeId) => boolean,
  ): { readonly changed: readonly NodeId[]; readonly replies: readonly FactsMessage[] };
  digest(reply: boolean): FactsMessage;
  forget(keep: (id: NodeId) => boolean): void;
}

export function createFactsBook(self: NodeId, startIncarnation: Incarnation): FactsBook {
  const all = new Map<NodeId, NodeFacts>();
  let incarnation = startIncarnation;
  let version = 0;

  const updateOwn: FactsBook['updateOwn'] = (change) => {
    const before = all.get(self);
    const head = change.head ?? before;
    if (!head) return [];
    const copies = change.copies ?? before?.copies ?? [];
    const old = new Map((before?.copies ?? []).map((c) => [copyKey(c), c]));
    const changed = copies.filter((c) => {
      const o = old.get(copyKey(c));
      old.delete(copyKey(c));
      return o === undefined || !sameCopy(o, c);
    });
    const removed = [...old.keys()];
    if (!change.head && changed.length === 0 && removed.length === 0) return [];
    const parts = Math.max(1, Math.ceil(Math.max(changed.length, removed.length) / COPIES_PER_DELTA));
    const first = version;
    version += parts;
    const facts: NodeFacts = { ...head, nodeId: self, incarnation, version, copies };
    all.set(self, facts);
    const { copies: _copies, ...rest } = facts;
    return Array.from({ length: parts }, (_, i) => ({
      nodeId: self,
      incarnation,
      base: first + i,
      version: first + i + 1,
      head: change.head && i === 0 ? rest : null,
      changedCopies: changed.slice(i * COPIES_PER_DELTA, (i + 1) * COPIES_PER_DELTA),
      removedCopies: removed.slice(i * COPIES_PER_DELTA, (i + 1) * COPIES_PER_DELTA),
    }));
  };

  const applyDelta = (delta: FactsDelta): 'applied' | 'old' | 'gap' => {
    const known = all.get(delta.nodeId);
    if (!newer(delta.incarnation, delta.version, known)) return 'old';
    if (!known || known.incarnation !== delta.incarnation || known.version !== delta.base) return 'gap';
    const removed = new Set(delta.removedCopies);
    const changed = new Map(delta.changedCopies.map((c) => [copyKey(c), c]));
    const copies = known.copies
      .filter((c) => !removed.has(copyKey(c)))
      .map((c) => {
        const n = changed.get(copyKey(c));
        changed.delete(copyKey(c));
        return n ?? c;
      });
    copies.push(...changed.values());
    all.set(delta.nodeId, {
      ...(delta.head ?? known),
      nodeId: delta.nodeId,
      incarnation: delta.incarnation,
      version: delta.version,
      copies,
    });
    return 'applied';
  };

  const receive: FactsBook['receive'] = (message, allowed) => {
    const changed: NodeId[] = [];
    const replies: FactsMessage[] = [];
    switch (message.type) {
      case 'facts-full': {
        const f = message.facts;
        if (f.nodeId !== self && allowed(f.nodeId) && newer(f.incarnation, f.version, all.get(f.nodeId))) {
          all.set(f.nodeId, f);
          changed.push(f.nodeId);
        }
        break;
      }
      case 'facts-delta': {
        const d = message.delta;
        if (d.nodeId === self || !allowed(d.nodeId)) break;
        const outcome = applyDelta(d);
        if (outcome === 'applied') changed.push(d.nodeId);
        else if (outcome === 'gap') replies.push({ type: 'facts-want', nodes: [d.nodeId] });
        break;
      }
      case 'facts-digest': {
        const theirs = new Map(message.digest.map(([id, inc, v]) => [id, [inc, v] as const]));
        for (const f of all.values()) {
          const t = theirs.get(f.nodeId);
          if (!t || f.incarnation > t[0] || (f.incarnation === t[0] && f.version > t[1]))
            replies.push({ type: 'facts-full', facts: f });
        }
        const want = message.digest
          .filter(([id, inc, v]) => id !== self && allowed(id) && newer(inc, v, all.get(id)))
          .map(([id]) => id);
        if (want.length > 0) replies.push({ type: 'facts-want', nodes: want });
        break;
      }
      case 'facts-want':
        for (const id of message.nodes) {
          const f = all.get(id);
          if (f) replies.push({ type: 'facts-full', facts: f });
        }
        break;
    }
    return { changed, replies };
  };

  return {
    all,
    own: () => all.get(self),
    updateOwn,
    setIncarnation: (n) => {
      incarnation = n;
      const own = all.get(self);
      if (own) {
        version += 1;
        all.set(self, { ...own, incarnation, version });
      }
    },
    receive,
    digest: (reply) => ({
      type: 'facts-digest',
      reply,
      digest: [...all.values()].map((f) => [f.nodeId, f.incarnation, f.version] as const),
    }),
    forget: (keep) => {
      for (const id of all.keys()) if (id !== self && !keep(id)) all.delete(id);
    },
  };
}

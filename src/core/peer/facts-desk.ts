import type { CopyFact, EpochFact, NodeFacts } from '../../model/facts.ts';
import type { Incarnation, MonoMs, NodeId } from '../../model/ids.ts';
import type { FactsDelta, FactsMessage } from '../../model/peer-messages.ts';
import { createFactsBook } from './facts-book.ts';
import { factsTo, type Hub, later } from './hub.ts';
import type { HostFacts } from './types.ts';

// When this peer's facts are spread: changes of copies soon, load at a rate that keeps what everybody hears constant however
// large the cluster. Always to the master directly as well.

export interface FactsDesk {
  readonly all: ReturnType<typeof createFactsBook>['all'];
  /** When facts of a peer last arrived here. */
  heardAt(id: NodeId): MonoMs | undefined;
  setIncarnation(incarnation: Incarnation): void;
  head(head: HostFacts): void;
  copiesChanged(): void;
  /** Everything of this peer, and what it knows of the others by version. */
  greet(peer: NodeId): void;
  tellLeader(leader: NodeId): void;
  /** Returns the peers whose facts moved. */
  receive(from: NodeId, message: FactsMessage, canReply: boolean): readonly NodeId[];
  forget(): void;
  /** True when copies were spread in this tick. */
  tick(): boolean;
  nextWake(): MonoMs | undefined;
}

/** All but the load: what placement rests on, so that a change of it is spread at once. */
function sameMachine(before: NodeFacts | undefined, head: HostFacts): boolean {
  if (before === undefined) return false;
  const keys = [
    'name',
    'addresses',
    'bootProbe',
    'runtimes',
    'problems',
    'canFence',
    'resources',
    'labels',
    'images',
    'epoch',
  ] as const;
  return keys.every((key) => JSON.stringify(before[key]) === JSON.stringify(head[key]));
}

export function createFactsDesk(
  hub: Hub,
  incarnation: Incarnation,
  deps: {
    readonly allowed: (id: NodeId) => boolean;
    readonly copies: () => readonly CopyFact[];
    readonly epoch: () => EpochFact | undefined;
  },
): FactsDesk {
  const book = createFactsBook(hub.self, incarnation);
  const heard = new Map<NodeId, MonoMs>();
  let copiesAt: MonoMs | undefined;
  let everybodyAt = 0;
  let urgent = false;

  function spread(deltas: readonly FactsDelta[]): void {
    const leader = hub.leader();
    for (const delta of deltas) {
      if (leader !== null && leader !== hub.self) factsTo(hub, leader, { type: 'facts-delta', delta });
      if (hub.peerCount() > 1) hub.emit({ type: 'publish', topic: 'members', message: { type: 'facts-delta', delta } });
    }
  }

  const tellLeader = (leader: NodeId): void => {
    const own = book.own();
    if (own && leader !== hub.self) factsTo(hub, leader, { type: 'facts-full', facts: own });
  };

  return {
    all: book.all,
    heardAt: (id) => heard.get(id),
    setIncarnation: (n) => {
      book.setIncarnation(n);
      urgent = true;
    },
    head: (machine) => {
      const epoch = deps.epoch();
      const head = epoch === undefined ? machine : { ...machine, epoch };
      // Between two spreads the book stays as it is: a version others never heard of would make each of them ask for all.
      if (!sameMachine(book.own(), head)) urgent = true;
      if (book.own() !== undefined && !urgent && hub.now() < everybodyAt) return;
      urgent = false;
      everybodyAt = hub.now() + Math.max(hub.config.factsHeadMs, hub.peerCount() * hub.config.factsPerPeerMs);
      spread(book.updateOwn({ head }));
    },
    copiesChanged: () => {
      copiesAt ??= later(hub, hub.config.factsDebounceMs);
    },
    greet: (peer) => {
      tellLeader(peer);
      factsTo(hub, peer, book.digest(false));
    },
    tellLeader,
    receive: (from, message, canReply) => {
      const { changed, replies } = book.receive(message, deps.allowed);
      for (const reply of canReply ? replies : []) factsTo(hub, from, reply);
      for (const id of changed) heard.set(id, hub.now());
      return changed;
    },
    forget: () => {
      book.forget(deps.allowed);
      for (const id of heard.keys()) if (!deps.allowed(id)) heard.delete(id);
    },
    tick: () => {
      if (copiesAt === undefined || copiesAt > hub.now()) return false;
      copiesAt = undefined;
      const deltas = book.updateOwn({ copies: deps.copies() });
      spread(deltas);
      if (deltas.length > 0) hub.emit({ type: 'notify', notice: { type: 'copies-changed' } });
      return deltas.length > 0;
    },
    nextWake: () => copiesAt,
  };
}

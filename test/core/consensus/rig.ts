import { type Consensus, createConsensus } from '../../../src/core/consensus/consensus.ts';
import {
  type ConsensusConfig,
  type ConsensusEffect,
  type ConsensusEvent,
  type ConsensusRestore,
  DEFAULT_CONSENSUS_CONFIG,
  type LogEntry,
  type Membership,
  type RaftMessage,
} from '../../../src/core/consensus/types.ts';
import { logIndex, type MonoMs, type NodeId, nodeId, term } from '../../../src/model/ids.ts';

// One core, driven by hand: what goes in and what comes out, step by step.

export type Of<K extends ConsensusEffect['type']> = Extract<ConsensusEffect, { type: K }>;
export type Message<K extends RaftMessage['type']> = Extract<RaftMessage, { type: K }>;

export const members = (voters: string, outgoing?: string): Membership => ({
  voters: voters.split('').map(nodeId),
  outgoing: outgoing === undefined ? null : outgoing.split('').map(nodeId),
});

/** Entries with these terms, from `first` on; each a command naming its index and term. */
export function entriesOf(terms: readonly number[], first = 1): LogEntry[] {
  return terms.map((t, i) => ({
    index: logIndex(first + i),
    term: term(t),
    payload: { kind: 'command', bytes: new TextEncoder().encode(`${first + i}@${t}`) },
  }));
}

export interface RigOptions {
  readonly self?: string;
  readonly voters?: Membership;
  readonly term?: number;
  readonly votedFor?: string;
  readonly log?: readonly number[];
  readonly base?: number;
  readonly applied?: number;
  readonly mayVote?: boolean;
  readonly rank?: number;
  readonly config?: Partial<ConsensusConfig>;
}

export class Rig {
  readonly core: Consensus;
  now = 0;
  all: ConsensusEffect[] = [];
  lastPersistId = 0;
  /** Of the newest append sent. */
  round = 0;

  constructor(o: RigOptions = {}) {
    const base = o.base ?? 0;
    const restore: ConsensusRestore = {
      hardState: { term: term(o.term ?? 0), votedFor: o.votedFor === undefined ? null : nodeId(o.votedFor) },
      snapshot: { index: logIndex(base), term: term(base > 0 ? 1 : 0), membership: o.voters ?? members('ABC') },
      entries: entriesOf(o.log ?? [], base + 1),
      applied: logIndex(o.applied ?? base),
      mayVote: o.mayVote ?? true,
    };
    const config = { ...DEFAULT_CONSENSUS_CONFIG, ...o.config };
    const self = nodeId(o.self ?? 'A');
    this.core = createConsensus(
      { self, config, seed: 'rig', restore, ...(o.rank === undefined ? {} : { rank: o.rank }) },
      0 as MonoMs,
    );
  }

  do(event: ConsensusEvent): ConsensusEffect[] {
    const out = this.core.step(event, this.now as MonoMs);
    for (const e of out) {
      if (e.type === 'persist') this.lastPersistId = e.persistId;
      if (e.type === 'send' && e.message.type === 'append') this.round = e.message.round;
    }
    this.all = out;
    return out;
  }

  get<K extends ConsensusEffect['type']>(type: K): Of<K>[] {
    return this.all.filter((e): e is Of<K> => e.type === type);
  }

  /** Messages of the last step of this kind. */
  sent<K extends RaftMessage['type']>(type: K): { to: NodeId; message: Message<K>; afterPersist: boolean }[] {
    return this.get('send').flatMap((s) =>
      s.message.type === type ? [{ to: s.to, message: s.message as Message<K>, afterPersist: s.afterPersist }] : [],
    );
  }

  hear(from: string, message: object): ConsensusEffect[] {
    return this.do({ type: 'message', from: nodeId(from), message: message as RaftMessage });
  }

  /** Everything asked for so far is durable. */
  flush(): ConsensusEffect[] {
    return this.do({ type: 'persisted', persistId: this.lastPersistId });
  }

  wake(): ConsensusEffect[] {
    this.now = Math.max(this.now, this.core.nextWake() ?? this.now);
    return this.do({ type: 'tick' });
  }

  propose(...ids: number[]): ConsensusEffect[] {
    return this.do({
      type: 'propose',
      proposals: ids.map((proposalId) => ({ proposalId, bytes: new Uint8Array([1]) })),
    });
  }

  append(
    from: string,
    t: number,
    prev: number,
    prevTerm: number,
    entries: readonly LogEntry[],
    more: object = {},
  ): ConsensusEffect[] {
    const fields = { type: 'append', term: t, prevIndex: prev, prevTerm, entries, commit: 0, round: 1, learner: false };
    return this.hear(from, { ...fields, ...more });
  }

  voteRequest(from: string, t: number, last: number, lastTerm: number, more: object = {}): ConsensusEffect[] {
    const fields = {
      type: 'vote-request',
      term: t,
      preVote: false,
      transfer: false,
      lastIndex: last,
      lastTerm,
      rank: 0.5,
    };
    return this.hear(from, { ...fields, ...more });
  }

  /** `from` answers with what it holds; the round is the newest sent to it unless given. */
  ack(from: string, index: number, more: object = {}): ConsensusEffect[] {
    const fields = {
      type: 'append-reply',
      term: this.core.view().term,
      ok: true,
      index,
      hintTerm: 0,
      round: this.round,
      applied: 0,
      mayVote: true,
    };
    return this.hear(from, { ...fields, ...more });
  }

  /** Elected with the others' votes; the no-op is durable here, and not acknowledged by anybody. */
  lead(): this {
    this.wake();
    const t = this.core.view().term + 1;
    const { voters } = this.core.view().membership;
    const others = voters.filter((id) => id !== nodeId('A'));
    for (const id of others) this.hear(id, { type: 'vote-reply', term: t, preVote: true, granted: true });
    this.flush();
    for (const id of others) this.hear(id, { type: 'vote-reply', term: t, preVote: false, granted: true });
    this.flush();
    if (this.core.view().role !== 'leader') throw new Error(`not elected: ${this.core.view().role}`);
    return this;
  }
}

import { type LogIndex, logIndex, type MonoMs, type NodeId, type Term, term } from '../../model/ids.ts';
import { createRng, type Rng } from '../../model/random.ts';
import { RaftLog } from './log.ts';
import type { Progress } from './progress.ts';
import type {
  ConsensusConfig,
  ConsensusEffect,
  ConsensusRestore,
  ConsensusRole,
  LogEntry,
  Membership,
  PersistOp,
  RaftMessage,
} from './types.ts';

// The state of one peer's consensus, mutable, owned by one `Consensus`; and the collecting of one step's effects. What is
// durable is tracked here: group commit means that several batches may be asked for before the first is reported, and
// that a later one may truncate what an earlier one appended.

export interface PendingRead {
  readonly id: number;
  /** The follower that asked; null = asked here. */
  readonly from: NodeId | null;
  /** Only messages numbered above this were begun after the request. */
  readonly round: number;
  /** The read index; -1 until the no-op of the term is committed (thesis 6.4, step 1). */
  index: number;
}

export interface Transfer {
  readonly to: NodeId;
  readonly deadline: MonoMs;
  /** Local stall: lead no longer even when the transfer fails. */
  readonly stepDown: boolean;
}

export interface LeaderState {
  noopIndex: number;
  readonly progress: Map<NodeId, Progress>;
  /** Progress of those sent appends. */
  served: Progress[];
  /** Learners of the topic that could not mend their gap from neighbours: served until they have caught up. */
  readonly catchUp: Set<NodeId>;
  /** Proposals not yet committed, in log order; `head` counts those already answered. */
  readonly proposals: { readonly index: number; readonly proposalId: number }[];
  head: number;
  change: { readonly proposalId: number } | null;
  transfer: Transfer | null;
  readonly reads: PendingRead[];
  /** Value of `round` when the last round for reads was begun. */
  readRound: number;
  heartbeatAt: MonoMs;
  lastBeat: MonoMs;
  /** When followers to whom nothing is on its way are told the commit index; NEVER = all know it. */
  tellAt: MonoMs;
  /** After a stall of this process: no CheckQuorum before the messages that waited have been taken in. */
  graceUntil: MonoMs;
  published: number;
  publishAt: MonoMs;
  /** Set when every served peer should be looked at for something to send. */
  flushAll: boolean;
  /** The peer whose reply this step took in. */
  flushOne: Progress | null;
}

export interface Core {
  readonly self: NodeId;
  readonly config: ConsensusConfig;
  readonly rng: Rng;
  rank: number;
  now: MonoMs;

  term: number;
  votedFor: NodeId | null;
  mayVote: boolean;
  /** Log lost: the leader has confirmed that this peer does not vote; being made a voter after that is re-admission. */
  leftVoters: boolean;
  role: ConsensusRole;
  leader: NodeId | null;
  readonly log: RaftLog;
  commit: number;
  applied: number;
  /** Last index given to the state machine. */
  handed: number;
  /** Membership entries of the log, oldest first; the first may be the snapshot's. Never empty. */
  readonly history: { readonly index: number; readonly membership: Membership }[];
  membership: Membership;
  /** Voters of both sets, each once. */
  electors: readonly NodeId[];
  eligible: boolean;
  /** The leader counts this peer among the learners, whatever its own log (which may be old) says. */
  asLearner: boolean;
  memberCommitted: number;

  electionAt: MonoMs;
  lastHeard: MonoMs;
  /** Campaigns begun since a leader was last heard. */
  attempts: number;
  /** This peer has once put its own campaign back for another's since a leader was last heard. */
  deferred: boolean;
  readonly votes: Map<NodeId, boolean>;
  /** Own vote counts once this batch is durable. */
  votePersistId: number;
  /** Pre-votes refused because a leader was heard: granted after all if it is lost. */
  readonly refusedPreVotes: Map<NodeId, number>;

  alive: ReadonlySet<NodeId>;
  learners: readonly NodeId[];
  direct: ReadonlySet<NodeId>;
  /** Rises with every append sent (thesis 6.4's rounds; also tells stale replies from fresh ones). */
  round: number;
  lead: LeaderState | null;
  readonly match: Map<NodeId, LogIndex>;
  readonly logLost: Set<NodeId>;

  /** Reads asked of the leader by this follower: deadline and whom it asked. */
  readonly remoteReads: Map<number, { readonly to: NodeId; readonly deadline: MonoMs }>;
  installing: { readonly index: number; readonly at: MonoMs } | null;
  knownCommit: number;
  fetchAt: MonoMs;
  fetchedTo: number;

  /** Entries up to here are durable. */
  durable: number;
  persistId: number;
  persistedId: number;
  hardPersistId: number;
  readonly outstanding: { readonly persistId: number; last: number }[];
  ops: PersistOp[];
  appending: LogEntry[] | null;
  hardDirty: boolean;
  readmitted: boolean;
  sends: ConsensusEffect[];
  notes: ConsensusEffect[];
  told: { role: ConsensusRole; term: number; leader: NodeId | null };
}

export interface ConsensusOptions {
  readonly self: NodeId;
  readonly config: ConsensusConfig;
  readonly seed: string;
  readonly restore: ConsensusRestore;
  /** Bully rank as 0 (lowest) to 1 (highest); 0.5 when not given. */
  readonly rank?: number;
}

export const NEVER = Number.POSITIVE_INFINITY as MonoMs;
export const LONG_AGO = Number.NEGATIVE_INFINITY as MonoMs;

export function createCore(options: ConsensusOptions, now: MonoMs): Core {
  const { restore, self } = options;
  const log = new RaftLog(restore.snapshot.index, restore.snapshot.term, restore.entries);
  const history: { index: number; membership: Membership }[] = [
    { index: restore.snapshot.index, membership: restore.snapshot.membership },
  ];
  for (const entry of restore.entries) {
    if (entry.payload.kind === 'membership') history.push({ index: entry.index, membership: entry.payload.membership });
  }
  const commit = Math.max(log.base, Math.min(restore.applied, log.last));
  const membership = (history[history.length - 1] as (typeof history)[number]).membership;
  return {
    self,
    config: options.config,
    rng: createRng(options.seed),
    rank: clampRank(options.rank),
    now,
    term: Math.max(restore.hardState.term, log.lastTerm),
    votedFor: restore.hardState.term >= log.lastTerm ? restore.hardState.votedFor : null,
    mayVote: restore.mayVote,
    leftVoters: false,
    role: 'learner',
    leader: null,
    log,
    commit,
    applied: restore.applied,
    handed: restore.applied,
    history,
    membership,
    electors: electorsOf(membership),
    eligible: false,
    asLearner: false,
    memberCommitted: commit,
    electionAt: NEVER,
    lastHeard: LONG_AGO,
    attempts: 0,
    deferred: false,
    votes: new Map(),
    votePersistId: 0,
    refusedPreVotes: new Map(),
    alive: new Set(),
    learners: [],
    direct: new Set(),
    round: 0,
    lead: null,
    match: new Map(),
    logLost: new Set(),
    remoteReads: new Map(),
    installing: null,
    knownCommit: commit,
    fetchAt: NEVER,
    fetchedTo: 0,
    durable: log.last,
    persistId: 0,
    persistedId: 0,
    hardPersistId: 0,
    outstanding: [],
    ops: [],
    appending: null,
    hardDirty: false,
    readmitted: false,
    sends: [],
    notes: [],
    told: { role: 'learner', term: -1, leader: null },
  };
}

export function clampRank(rank: number | undefined): number {
  return rank === undefined || Number.isNaN(rank) ? 0.5 : Math.min(1, Math.max(0, rank));
}

export function electorsOf(m: Membership): readonly NodeId[] {
  return m.outgoing === null ? m.voters : [...new Set([...m.voters, ...m.outgoing])];
}

/**
 * Whether this peer may campaign: it votes under the newest membership, or did under one not yet superseded by a commit.
 * The latter matters (thesis 4.2.2): it may alone hold the entry that removes it, without which the others cannot go on.
 */
export const isElector = (c: Core): boolean => c.mayVote && c.eligible;

export function computeEligible(c: Core): void {
  c.eligible = false;
  for (let i = c.history.length - 1; i >= 0 && !c.eligible; i--) {
    const item = c.history[i];
    if (item === undefined) return;
    c.eligible = item.membership.voters.includes(c.self) || (item.membership.outgoing?.includes(c.self) ?? false);
    if (item.index <= c.commit) return;
  }
}

// ---- effects of one step

export function send(c: Core, to: NodeId, message: RaftMessage, afterPersist: boolean): void {
  c.sends.push({ type: 'send', to, message, afterPersist });
}

/** True when the term or vote this peer acts on is not durable yet. */
export const hardStatePending = (c: Core): boolean => c.hardDirty || c.hardPersistId > c.persistedId;

export function note(c: Core, effect: ConsensusEffect): void {
  c.notes.push(effect);
}

export function persistAppend(c: Core, entries: readonly LogEntry[]): void {
  if (c.appending === null) {
    c.appending = [];
    c.ops.push({ type: 'append', entries: c.appending });
  }
  for (const entry of entries) c.appending.push(entry);
  c.log.append(entries);
}

/** Deletes entries from `from` on, in memory and on disk; what outstanding batches held of them counts no longer. */
export function persistTruncate(c: Core, from: number): void {
  c.ops.push({ type: 'truncate', from: logIndex(from) });
  c.appending = null;
  c.log.truncate(from);
  forgetDurable(c, from - 1);
}

export function forgetDurable(c: Core, upTo: number): void {
  c.durable = Math.min(c.durable, upTo);
  for (const batch of c.outstanding) batch.last = Math.min(batch.last, upTo);
}

export function onPersisted(c: Core, persistId: number): void {
  const id = Math.min(persistId, c.persistId);
  if (id <= c.persistedId) return;
  c.persistedId = id;
  let n = 0;
  for (const batch of c.outstanding) {
    if (batch.persistId > id) break;
    c.durable = Math.max(c.durable, batch.last);
    n++;
  }
  c.outstanding.splice(0, n);
}

/** Closes the step: one persist effect first, then sends, then what is told to the driver. */
export function takeEffects(c: Core): ConsensusEffect[] {
  const out: ConsensusEffect[] = [];
  if (c.hardDirty || c.ops.length > 0) {
    c.persistId++;
    if (c.hardDirty) {
      c.hardPersistId = c.persistId;
      const hardState = { term: term(c.term), votedFor: c.votedFor };
      c.ops.unshift({ type: 'hard-state', hardState, ...(c.readmitted ? { readmitted: true as const } : {}) });
    }
    c.outstanding.push({ persistId: c.persistId, last: c.log.last });
    out.push({ type: 'persist', persistId: c.persistId, ops: c.ops });
    c.ops = [];
    c.appending = null;
    c.hardDirty = false;
    c.readmitted = false;
  }
  if (c.sends.length > 0) {
    for (const effect of c.sends) out.push(effect);
    c.sends = [];
  }
  const told = c.told;
  if (told.role !== c.role || told.term !== c.term || told.leader !== c.leader) {
    c.told = { role: c.role, term: c.term, leader: c.leader };
    out.push({ type: 'role', role: c.role, term: c.term as Term, leader: c.leader });
  }
  if (c.notes.length > 0) {
    for (const effect of c.notes) out.push(effect);
    c.notes = [];
  }
  return out;
}

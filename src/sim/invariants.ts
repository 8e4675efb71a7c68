import type { LogEntry, Membership, PersistOp, RaftMessage } from '../core/consensus/types.ts';
import type { LeaseKey } from '../core/lease/types.ts';
import type { DesiredCopy } from '../core/reconcile/types.ts';
import { applyEntry, createState, dumpState, stateDigest } from '../core/state/state.ts';
import type { ClusterState } from '../core/state/types.ts';
import { compareGeneration, formatGeneration, type Generation } from '../model/generation.ts';
import type { LogIndex, NodeId, TaskId, Term } from '../model/ids.ts';
import { isExclusive } from '../model/task-spec.ts';

// What must hold after every event, whatever fails. Each check names the rule it stands for.

export class InvariantBroken extends Error {
  readonly rule: string;
  constructor(rule: string, message: string) {
    super(`${rule}: ${message}`);
    this.name = 'InvariantBroken';
    this.rule = rule;
  }
}

/** One exclusive copy's life on one machine as its processes see it. Times of the world, ms. */
export interface RunInterval {
  readonly slot: string;
  readonly node: NodeId;
  readonly generation: Generation;
  readonly from: number;
  /** End of the lease it runs under. */
  until: number;
  to: number | undefined;
  /** Its machine stands still; it stood still until then. */
  frozen?: boolean;
  thawedAt?: number;
}

interface Durable {
  readonly hardState: { readonly term: Term; readonly votedFor: NodeId | null };
  readonly lastIndex: number;
}

interface Clock {
  readonly now: number;
  after(ms: number, run: () => void): void;
}

const sameNodes = (a: readonly NodeId[] | null, b: readonly NodeId[] | null): boolean =>
  a === b || (a !== null && b !== null && a.length === b.length && a.every((id) => b.includes(id)));
const sameMembership = (a: Membership, b: Membership): boolean =>
  sameNodes(a.voters, b.voters) && sameNodes(a.outgoing, b.outgoing);

const sameEntry = (a: LogEntry, b: LogEntry): boolean => {
  if (a === b) return true;
  if (a.index !== b.index || a.term !== b.term || a.payload.kind !== b.payload.kind) return false;
  if (a.payload.kind === 'membership' && b.payload.kind === 'membership')
    return sameMembership(a.payload.membership, b.payload.membership);
  if (a.payload.kind !== 'command' || b.payload.kind !== 'command') return true;
  const x = a.payload.bytes;
  const y = b.payload.bytes;
  if (x === y) return true;
  if (x.length !== y.length) return false;
  for (let i = 0; i < x.length; i++) if (x[i] !== y[i]) return false;
  return true;
};

/** Entries behind the commit index whose presence on a new leader is looked at. */
const LEADER_DEPTH = 200;
/** Appended entries remembered for log matching. */
const MATCHED = 50_000;
/** Rounding of clocks, ms. */
const EPSILON = 0.02;
/** From thaw until boot's first tick, at most: what runs then without a lease is measured apart (protocols, section 5). */
const THAW_MS = 25;

export class Invariants {
  readonly #leaders = new Map<Term, NodeId>();
  /** Entry i is committed[i - 1]. */
  readonly #committed: LogEntry[] = [];
  /** Every committed entry applied once: what all peers' records have to be. */
  readonly #reference: ClusterState = createState();
  readonly #appended = new Map<string, { readonly entry: LogEntry; readonly prevTerm: Term | undefined }>();
  readonly #commit = new Map<NodeId, number>();
  /** The newest term, the vote in it, and the last entry that others were told of. */
  readonly #promised = new Map<NodeId, { term: Term; votedFor: NodeId | null; index: number }>();
  readonly #generations = new Map<string, Generation>();
  readonly #accepted = new Map<TaskId, string>();
  readonly #removed = new Set<TaskId>();
  readonly #settled = new Set<TaskId>();
  readonly #kept = new Set<TaskId>();
  readonly #told: [TaskId, string][] = [];
  /** Live copies of exclusive slots. */
  readonly #live = new Map<string, Set<RunInterval>>();
  /** Entries that change the voters, as committed. */
  readonly #voters: { readonly index: number; readonly membership: Membership }[] = [];
  exclusiveRuns = 0;
  /** Exclusive copies that ran on for a moment when their frozen machine thawed, and for how long in all. */
  thawed = 0;
  thawedMs = 0;
  /** Provisional copies that a master adopted, and that it told to stop. */
  adoptions = 0;
  drops = 0;

  readonly #world: Clock;
  constructor(world: Clock = { now: 0, after: () => {} }) {
    this.#world = world;
  }

  // ---- consensus ---------------------------------------------------------------------------------------------------------

  /** Election Safety (Raft 5.2): at most one leader a term; Leader Completeness (5.4): it holds every committed entry. */
  leader(node: NodeId, term: Term, has: (index: LogIndex) => Term | undefined): void {
    const before = this.#leaders.get(term);
    if (before !== undefined && before !== node)
      throw new InvariantBroken('one leader a term', `term ${term}: ${before} and ${node}`);
    if (before !== undefined) return;
    this.#leaders.set(term, node);
    for (let i = this.#committed.length; i > Math.max(0, this.#committed.length - LEADER_DEPTH); i--) {
      const entry = this.#committed[i - 1] as LogEntry;
      if (entry.term > term) continue;
      const held = has(entry.index);
      if (held !== undefined && held !== entry.term)
        throw new InvariantBroken('leader completeness', `${node} leads term ${term} with another entry at ${i}`);
      if (held === undefined && i === this.#committed.length)
        throw new InvariantBroken('leader completeness', `${node} leads term ${term} without entry ${i}`);
    }
  }

  /** Log Matching (5.3): entries of one index and term are the same everywhere, and so is what stands before them. */
  appended(node: NodeId, ops: readonly PersistOp[], termAt: (index: LogIndex) => Term | undefined): void {
    for (const op of ops) {
      if (op.type === 'truncate') this.takenBack(node, op.from);
      if (op.type !== 'append') continue;
      op.entries.forEach((entry, i) => {
        const prevTerm = i > 0 ? (op.entries[i - 1] as LogEntry).term : termAt((entry.index - 1) as LogIndex);
        const key = `${entry.index}/${entry.term}`;
        const known = this.#appended.get(key);
        if (known === undefined) {
          this.#appended.set(key, { entry, prevTerm });
          if (this.#appended.size > MATCHED) this.#appended.delete(this.#appended.keys().next().value as string);
        } else if (
          !sameEntry(known.entry, entry) ||
          (prevTerm !== undefined && known.prevTerm !== undefined && prevTerm !== known.prevTerm)
        ) {
          throw new InvariantBroken(
            'log matching',
            `${node} appends another entry ${entry.index} of term ${entry.term}`,
          );
        }
      });
    }
  }

  /** State Machine Safety (5.4.3): nobody applies another entry at an index. */
  applied(node: NodeId, entry: LogEntry): void {
    const known = this.#committed[entry.index - 1];
    if (known === undefined) {
      if (entry.index !== this.#committed.length + 1)
        throw new InvariantBroken('applied in order', `${node} applies ${entry.index} after ${this.#committed.length}`);
      this.#committed.push(entry);
      this.#refer(entry);
    } else if (!sameEntry(known, entry))
      throw new InvariantBroken(
        'state machine safety',
        `${node} applies another entry at ${entry.index} (term ${entry.term}, committed ${known.term})`,
      );
  }

  #refer(entry: LogEntry): void {
    const state = this.#reference;
    if (entry.payload.kind === 'membership') this.#reconfigured(entry.index, entry.payload.membership);
    if (entry.payload.kind !== 'command') {
      state.applied = entry.index;
      return;
    }
    const { command, result } = applyEntry(state, entry.index, entry.payload.bytes);
    if (command.type === 'task.submit') this.#settled.add(command.submission.id);
    if (command.type === 'task.refuse') this.#settled.add(command.id);
    if (!result.ok) return;
    if (command.type === 'task.submit') this.#accepted.set(command.submission.id, command.submission.spec.name);
    else if (command.type === 'task.remove') this.#removed.add(command.taskId);
    else if (command.type === 'slot.drop') this.drops += 1;
    else if (command.type === 'slot.assign') {
      if (command.adopts !== undefined) this.adoptions += 1;
      this.#assigned(command.taskId, command.slot, command.generation);
    }
  }

  /** Joint consensus (thesis 4.3): from one set of voters to another only through a membership of both. */
  #reconfigured(index: number, after: Membership): void {
    const before = this.#voters.at(-1)?.membership;
    this.#voters.push({ index, membership: after });
    if (before === undefined || sameMembership(before, after)) return;
    const entered = before.outgoing === null && sameNodes(after.outgoing, before.voters);
    const left = before.outgoing !== null && after.outgoing === null && sameNodes(after.voters, before.voters);
    if (!entered && !left)
      throw new InvariantBroken(
        'voters change by joint consensus',
        `at ${index} from ${JSON.stringify(before)} to ${JSON.stringify(after)}`,
      );
  }
  /** What a peer installs is what the log gives at that index. */
  snapshot(node: NodeId, s: { readonly index: number; readonly term: Term; readonly membership: Membership }): void {
    const entry = this.#committed[s.index - 1];
    if (entry === undefined || entry.term !== s.term)
      throw new InvariantBroken('snapshots are of the log', `${node}: entry ${s.index} is not of term ${s.term}`);
    const last = this.#voters.findLast((v) => v.index <= s.index)?.membership;
    if (last !== undefined && !sameMembership(last, s.membership))
      throw new InvariantBroken(
        'snapshots are of the log',
        `${node}: the voters at ${s.index} are ${JSON.stringify(last)}, not ${JSON.stringify(s.membership)}`,
      );
  }

  /** Generations of a slot strictly rise, over every assignment that took effect. */
  #assigned(task: TaskId, slotIndex: number, generation: Generation): void {
    const slot = `${task}/${slotIndex}`;
    const before = this.#generations.get(slot);
    if (before !== undefined && compareGeneration(before, generation) >= 0)
      throw new InvariantBroken(
        'generations rise',
        `${slot}: ${formatGeneration(before)} then ${formatGeneration(generation)}`,
      );
    this.#generations.set(slot, generation);
    const spec = this.#reference.tasks.get(task)?.spec;
    if (spec === undefined || !isExclusive(spec)) return;
    for (const run of this.#running(slot))
      throw new InvariantBroken(
        'no grant before expiry',
        `${slot} is assigned as ${formatGeneration(generation)} while ${formatGeneration(run.generation)} runs on ${run.node} under a lease until ${run.until}`,
      );
  }

  /** Commit never shrinks within one life of a peer. */
  commit(node: NodeId, index: number): void {
    const before = this.#commit.get(node) ?? 0;
    if (index < before) throw new InvariantBroken('commit never shrinks', `${node}: ${before} then ${index}`);
    this.#commit.set(node, index);
  }
  restarted(node: NodeId): void {
    this.#commit.delete(node);
  }

  /**
   * What a peer has promised to others stands on its disk when it comes back, or it does not vote (Raft 5.2: votedFor and log
   * on stable storage before responding).
   */
  restored(node: NodeId, found: Durable, entries: readonly LogEntry[], mayVote: boolean): void {
    for (const entry of entries) {
      const known = this.#appended.get(`${entry.index}/${entry.term}`)?.entry;
      if (known !== undefined && !sameEntry(known, entry))
        throw new InvariantBroken('log matching', `${node} reads back another entry ${entry.index}`);
    }
    const said = this.#promised.get(node);
    if (said === undefined || !mayVote) return;
    const { term, votedFor } = found.hardState;
    if (term < said.term || (term === said.term && said.votedFor !== null && votedFor !== said.votedFor))
      throw new InvariantBroken(
        'promises outlive a restart',
        `${node} promised term ${said.term} and voted for ${said.votedFor}; it comes back with ${term} and ${votedFor}`,
      );
    if (found.lastIndex < said.index)
      throw new InvariantBroken(
        'promises outlive a restart',
        `${node} acknowledged entry ${said.index}; it comes back with a log up to ${found.lastIndex}`,
      );
  }
  /** Entries from here on are taken back, or stand in a snapshot: they are no promise any more. */
  takenBack(node: NodeId, from: number): void {
    const said = this.#promised.get(node);
    if (said && said.index >= from) said.index = from - 1;
  }
  #promise(node: NodeId, term: Term, votedFor: NodeId | null, index: number): void {
    const said = this.#promised.get(node) ?? { term, votedFor: null, index: 0 };
    if (term > said.term) [said.term, said.votedFor] = [term, null];
    if (term === said.term) said.votedFor ??= votedFor;
    said.index = Math.max(said.index, index);
    this.#promised.set(node, said);
  }

  /** A vote, and word of entries held, leave the machine only when they are durable there (Raft figure 2). */
  sent(node: NodeId, to: NodeId, message: RaftMessage, durable: Durable): void {
    const { term, votedFor } = durable.hardState;
    if (message.type === 'vote-reply' && message.granted && !message.preVote) this.#promise(node, message.term, to, 0);
    if (message.type === 'append-reply' && message.ok) this.#promise(node, message.term, null, message.index);
    if (message.type === 'vote-reply' && message.granted && !message.preVote) {
      if (term > message.term || (term === message.term && votedFor === to)) return;
      throw new InvariantBroken(
        'vote durable before reply',
        `${node} votes for ${to} in term ${message.term}; on its disk: term ${term}, ${votedFor}`,
      );
    }
    if (message.type === 'append-reply' && message.ok && message.index > durable.lastIndex) {
      throw new InvariantBroken(
        'entries durable before reply',
        `${node} says it holds ${message.index}; on its disk: ${durable.lastIndex}`,
      );
    }
  }

  // ---- tasks -------------------------------------------------------------------------------------------------------------

  /** A client was told that its task is accepted. */
  acknowledged(id: TaskId, name: string): void {
    this.#told.push([id, name]);
  }
  /** After the step in which clients were told: every acceptance stands in the log. */
  told(): void {
    for (const [id, name] of this.#told)
      if (!this.#settled.has(id))
        throw new InvariantBroken(
          'accepted means committed',
          `${name} (${id}) was said to be accepted, and no entry says so`,
        );
    this.#told.length = 0;
  }
  /** A submission is durable somewhere: it has to be settled in the end. */
  kept(id: TaskId): void {
    this.#kept.add(id);
  }
  /** Kept submissions without a verdict. */
  unsettled(): TaskId[] {
    for (const id of this.#kept) if (this.#settled.has(id)) this.#kept.delete(id);
    return [...this.#kept];
  }

  /** No accepted task lost, no removed one back. `tasks`: those of a peer that has applied everything. */
  tasks(node: NodeId, tasks: { has(id: TaskId): boolean }): void {
    for (const [id, name] of this.#accepted) {
      if (!tasks.has(id) && !this.#removed.has(id))
        throw new InvariantBroken('no accepted task lost', `${name} (${id}) is not known to ${node}`);
    }
    for (const id of this.#removed)
      if (tasks.has(id)) throw new InvariantBroken('no removed task back', `${id} is back on ${node}`);
  }
  /** A peer's records are what the log gives. `state` has applied everything committed. */
  records(node: NodeId, state: ClusterState): void {
    if (!this.#sameRecords(state) && stateDigest(state) !== stateDigest(this.#reference))
      throw new InvariantBroken(
        'equal records',
        `${node}'s records differ from what the log gives at ${state.applied}: ${this.#firstDifference(state)}`,
      );
  }
  readonly #texts = { at: -1, pairs: [] as string[] };
  /** Equal to the letter, which is quicker to see than equality of digests. */
  #sameRecords(state: ClusterState): boolean {
    const reference = this.#texts;
    if (reference.at !== this.#reference.applied) {
      reference.at = this.#reference.applied;
      reference.pairs = [...dumpState(this.#reference)].map((pair) => JSON.stringify(pair));
    }
    if (state.applied !== reference.at) return false;
    let i = 0;
    for (const pair of dumpState(state)) if (JSON.stringify(pair) !== reference.pairs[i++]) return false;
    return i === reference.pairs.length;
  }

  #firstDifference(state: ClusterState): string {
    const there = new Map([...dumpState(state)].map((p) => [p.key, JSON.stringify(p.value)]));
    const here = new Map([...dumpState(this.#reference)].map((p) => [p.key, JSON.stringify(p.value)]));
    for (const key of new Set([...here.keys(), ...there.keys()]))
      if (here.get(key) !== there.get(key)) return `${key} is ${there.get(key)}, should be ${here.get(key)}`;
    return `applied ${state.applied} of ${this.#reference.applied}`;
  }

  // ---- leases and copies -------------------------------------------------------------------------------------------------

  /** It does not run, or only since its machine thawed: the documented exception, measured apart. */
  excused(run: RunInterval, now: number): boolean {
    if (run.until > now) return false;
    if (run.frozen === true) return true;
    return run.thawedAt !== undefined && run.until <= run.thawedAt && now <= run.thawedAt + THAW_MS;
  }
  runThaws(run: RunInterval): void {
    run.frozen = false;
    run.thawedAt = this.#world.now;
    if (run.until > this.#world.now) return;
    this.#world.after(THAW_MS, () => {
      if (run.to === undefined && run.frozen === false && run.until < this.#world.now)
        throw new InvariantBroken(
          'exclusive run inside its lease',
          `${run.slot} on ${run.node} runs on after its machine thawed; its lease ended at ${run.until}`,
        );
    });
  }
  *#running(slot: string): Generator<RunInterval> {
    for (const run of this.#live.get(slot) ?? []) if (!this.excused(run, this.#world.now)) yield run;
  }

  /** The holder counts on a lease until `until`: nobody else's copy of the slot may live. */
  granted(node: NodeId, key: LeaseKey, now: number, until: number): void {
    if (until <= now) return;
    for (const run of this.#running(`${key.taskId}/${key.slot}`)) {
      if (run.node === node && compareGeneration(run.generation, key.generation) === 0) continue;
      if (compareGeneration(run.generation, key.generation) > 0) continue;
      throw new InvariantBroken(
        'no grant before expiry',
        `${run.slot} ${formatGeneration(key.generation)} is granted to ${node} while ${formatGeneration(run.generation)} runs on ${run.node}`,
      );
    }
  }

  /** At most one live copy of an exclusive slot, anywhere, and only under a lease. */
  copyStarted(run: RunInterval): void {
    if (!(run.until > run.from))
      throw new InvariantBroken(
        'exclusive run inside its lease',
        `${run.slot} ${formatGeneration(run.generation)} starts on ${run.node} at ${run.from} without a lease`,
      );
    const live = this.#live.get(run.slot) ?? new Set();
    for (const other of this.#running(run.slot)) {
      throw new InvariantBroken(
        'exclusive runs once',
        `${run.slot} runs on ${other.node} (generation ${formatGeneration(other.generation)}) and on ${run.node} (${formatGeneration(run.generation)}) at ${run.from}`,
      );
    }
    live.add(run);
    this.#live.set(run.slot, live);
    this.exclusiveRuns += 1;
  }
  copyEnded(run: RunInterval, at: number): void {
    run.to = at;
    const live = this.#live.get(run.slot);
    live?.delete(run);
    if (live?.size === 0) this.#live.delete(run.slot);
    const thawedAt = run.thawedAt;
    if (thawedAt !== undefined && run.until <= thawedAt) {
      this.thawed += 1;
      this.thawedMs += at - thawedAt;
    }
    if (at > run.until + EPSILON && !this.excused(run, at))
      throw new InvariantBroken(
        'exclusive run inside its lease',
        `${run.slot} on ${run.node} ended at ${at}, its lease at ${run.until}`,
      );
  }

  /** A caretaker revives available tasks only. */
  provisionalStarted(node: NodeId, copy: DesiredCopy): void {
    if (isExclusive(copy.spec))
      throw new InvariantBroken(
        'provisional copies are of available tasks',
        `${node} starts ${copy.taskId}/${copy.slot} as ${formatGeneration(copy.generation)}, and it is exclusive`,
      );
  }

  get committedCount(): number {
    return this.#committed.length;
  }
  get acceptedCount(): number {
    return this.#accepted.size;
  }
}

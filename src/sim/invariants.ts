import type { LogEntry } from '../core/consensus/types.ts';
import { decodeCommand } from '../model/command-codec.ts';
import { compareGeneration, formatGeneration, type Generation } from '../model/generation.ts';
import type { LogIndex, NodeId, TaskId, Term } from '../model/ids.ts';

// What must hold after every event, whatever fails. Each check names the rule it stands for.

export class InvariantBroken extends Error {
  readonly rule: string;
  constructor(rule: string, message: string) {
    super(`${rule}: ${message}`);
    this.name = 'InvariantBroken';
    this.rule = rule;
  }
}

/** One copy's life on one machine as its processes see it. */
export interface RunInterval {
  readonly slot: string;
  readonly node: NodeId;
  readonly generation: Generation;
  readonly from: number;
  to: number | undefined;
}

const sameEntry = (a: LogEntry, b: LogEntry): boolean => {
  if (a === b) return true;
  if (a.index !== b.index || a.term !== b.term || a.payload.kind !== b.payload.kind) return false;
  if (a.payload.kind !== 'command' || b.payload.kind !== 'command') return true;
  const x = a.payload.bytes;
  const y = b.payload.bytes;
  if (x === y) return true;
  if (x.length !== y.length) return false;
  for (let i = 0; i < x.length; i++) if (x[i] !== y[i]) return false;
  return true;
};

export class Invariants {
  readonly #leaders = new Map<Term, NodeId>();
  /** Entry i is committed[i - 1]. */
  readonly #committed: LogEntry[] = [];
  readonly #commit = new Map<NodeId, number>();
  readonly #generations = new Map<string, Generation>();
  readonly #accepted = new Map<TaskId, string>();
  readonly #removed = new Set<TaskId>();
  /** Live copies of exclusive slots. */
  readonly #live = new Map<string, Set<RunInterval>>();
  exclusiveRuns = 0;

  /** Election Safety (Raft 5.2): at most one leader a term; Leader Completeness (5.4): it holds every committed entry. */
  leader(node: NodeId, term: Term, has: (index: LogIndex) => Term | undefined): void {
    const before = this.#leaders.get(term);
    if (before !== undefined && before !== node) throw new InvariantBroken('one leader a term', `term ${term}: ${before} and ${node}`);
    if (before !== undefined) return;
    this.#leaders.set(term, node);
    for (let i = this.#committed.length; i > Math.max(0, this.#committed.length - 200); i--) {
      const entry = this.#committed[i - 1] as LogEntry;
      const held = has(entry.index);
      if (held !== undefined && held !== entry.term) throw new InvariantBroken('leader completeness', `${node} leads term ${term} with another entry at ${i}`);
      if (held === undefined && i === this.#committed.length) throw new InvariantBroken('leader completeness', `${node} leads term ${term} without entry ${i}`);
    }
  }

  /** State Machine Safety (5.4.3) and Log Matching on what is applied; generations strictly rise. */
  applied(node: NodeId, entry: LogEntry): void {
    const known = this.#committed[entry.index - 1];
    if (known === undefined) {
      if (entry.index !== this.#committed.length + 1) throw new InvariantBroken('applied in order', `${node} applies ${entry.index} after ${this.#committed.length}`);
      this.#committed.push(entry);
      this.#note(entry);
    } else if (!sameEntry(known, entry)) throw new InvariantBroken('state machine safety', `${node} applies another entry at ${entry.index} (term ${entry.term}, committed ${known.term})`);
  }

  #note(entry: LogEntry): void {
    if (entry.payload.kind !== 'command') return;
    const decoded = decodeCommand(entry.payload.bytes);
    if (!decoded.ok) return;
    const { command } = decoded;
    if (command.type === 'task.remove') this.#removed.add(command.taskId);
  }

  /** Called with the outcome of each slot.assign that took effect, once per index. */
  assigned(slot: string, generation: Generation): void {
    const before = this.#generations.get(slot);
    if (before !== undefined && compareGeneration(before, generation) > 0) throw new InvariantBroken('generations rise', `${slot}: ${formatGeneration(before)} then ${formatGeneration(generation)}`);
    this.#generations.set(slot, generation);
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

  /** A vote leaves the machine only when it is durable there (Raft figure 2, persistent state). */
  voteSent(node: NodeId, term: Term, to: NodeId, durable: { readonly term: Term; readonly votedFor: NodeId | null }): void {
    if (durable.term > term) return;
    if (durable.term < term || durable.votedFor !== to) throw new InvariantBroken('vote durable before reply', `${node} votes for ${to} in term ${term}; on its disk: term ${durable.term}, ${durable.votedFor}`);
  }

  accepted(id: TaskId, name: string): void {
    this.#accepted.set(id, name);
  }
  removed(id: TaskId): void {
    this.#removed.add(id);
  }

  /** No accepted task lost, no removed one back. `tasks`: those of a peer that has applied everything. */
  tasks(node: NodeId, tasks: { has(id: TaskId): boolean }): void {
    for (const [id, name] of this.#accepted) {
      if (!tasks.has(id) && !this.#removed.has(id)) throw new InvariantBroken('no accepted task lost', `${name} (${id}) is not known to ${node}`);
    }
    for (const id of this.#removed) if (tasks.has(id)) throw new InvariantBroken('no removed task back', `${id} is back on ${node}`);
  }

  /** At most one live copy of an exclusive slot, anywhere. */
  copyStarted(run: RunInterval): void {
    const live = this.#live.get(run.slot) ?? new Set();
    for (const other of live) {
      throw new InvariantBroken('exclusive runs once', `${run.slot} runs on ${other.node} (generation ${formatGeneration(other.generation)}) and on ${run.node} (${formatGeneration(run.generation)}) at ${run.from}`);
    }
    live.add(run);
    this.#live.set(run.slot, live);
    this.exclusiveRuns += 1;
  }
  copyEnded(run: RunInterval, at: number): void {
    run.to = at;
    this.#live.get(run.slot)?.delete(run);
  }

  get committedCount(): number {
    return this.#committed.length;
  }
  get acceptedCount(): number {
    return this.#accepted.size;
  }
}

import type { ConsensusEffect, ConsensusRole, LogEntry, RaftMessage } from '../../../src/core/consensus/types.ts';
import type { NodeId } from '../../../src/model/ids.ts';
import type { Cluster, SimNode } from './cluster-sim.ts';
import { entryText } from './sim-disk.ts';

// The invariants of Raft (Figure 3) and of this system, checked after every step of every core.

type Verdict = Extract<ConsensusEffect, { type: 'proposal' }>['result'];

export class Checker {
  /** What is committed at each index (from 1): the truth all peers must agree with. */
  readonly log: { term: number; text: string }[] = [];
  /** Highest index of a proposal acknowledged to anybody. */
  acknowledged = 0;
  readonly leaders = new Map<number, NodeId>();
  readonly #cluster: Cluster;
  readonly #handed = new Map<NodeId, number>();
  readonly #commit = new Map<NodeId, number>();

  constructor(cluster: Cluster) {
    this.#cluster = cluster;
  }

  fail(what: string): never {
    throw new Error(`${what} (virtual time ${this.#cluster.now.toFixed(1)} ms)`);
  }

  started(n: SimNode): void {
    this.#handed.set(n.id, n.disk.applied);
    this.#commit.set(n.id, 0);
  }

  snapshot(n: SimNode, index: number): void {
    this.#handed.set(n.id, index);
  }

  stepped(n: SimNode, led: boolean): void {
    const v = n.core?.view();
    if (v === undefined) return;
    if (v.commit < (this.#commit.get(n.id) ?? 0)) this.fail(`commit of ${n.id} shrank to ${v.commit}`);
    this.#commit.set(n.id, v.commit);
    if (v.commit > v.lastIndex) this.fail(`commit of ${n.id} past its log`);
    // What the leader commits first stands, durable, on a majority of the voters of both sets.
    while (led && this.log.length < v.commit) {
      const entry = n.core?.entries((this.log.length + 1) as never, (this.log.length + 2) as never)[0];
      if (entry === undefined) this.fail(`leader ${n.id} committed what it does not hold`);
      this.#establish(n, entry);
    }
  }

  #establish(n: SimNode, entry: LogEntry): void {
    const v = n.core?.view();
    if (v === undefined) return;
    const has = (id: NodeId): boolean => this.#onDisk(this.#cluster.node(id), entry);
    for (const set of [v.membership.voters, v.membership.outgoing]) {
      // The set in force may itself have come with a later entry; the rule is checked against the newest one then.
      if (set === null || v.membership.outgoing !== null) continue;
      const n2 = set.filter((id) => has(id) || this.#cluster.wiped.has(id)).length;
      if (n2 * 2 <= set.length && v.lastIndex === entry.index)
        this.fail(`index ${entry.index} committed with ${n2} of ${set.length} durable`);
    }
    this.log.push({ term: entry.term, text: entryText(entry) });
  }

  #onDisk(n: SimNode, entry: LogEntry): boolean {
    if (n.disk.snapshot.index >= entry.index) return true;
    return n.disk.entries[entry.index - n.disk.snapshot.index - 1]?.term === entry.term;
  }

  /** Election safety: at most one leader a term. Leader completeness: it holds everything committed before. */
  role(n: SimNode, role: ConsensusRole, t: number): void {
    if (role !== 'leader') return;
    const other = this.leaders.get(t);
    if (other !== undefined && other !== n.id) this.fail(`two leaders in term ${t}: ${other} and ${n.id}`);
    if (n.disk.hardState.term < t) this.fail(`${n.id} leads term ${t} before its vote is durable`);
    if (other === undefined) {
      const last = this.log[this.log.length - 1];
      const have = n.core?.termAt(this.log.length as never);
      const covered = (n.core?.view().lastIndex ?? 0) >= this.log.length;
      if (last !== undefined && (!covered || (have !== undefined && have !== last.term)))
        this.fail(`leader ${n.id} of term ${t} lacks committed index ${this.log.length}`);
    }
    this.leaders.set(t, n.id);
  }

  /** State machine safety: the same command at the same index everywhere, in order, once. */
  committed(n: SimNode, entries: readonly LogEntry[]): void {
    for (const e of entries) {
      const handed = this.#handed.get(n.id) ?? 0;
      if (e.index !== handed + 1) this.fail(`${n.id} was handed ${e.index} after ${handed}`);
      this.#handed.set(n.id, e.index);
      const truth = this.log[e.index - 1];
      if (truth === undefined) this.fail(`${n.id} applies ${e.index}, which no leader committed`);
      if (truth.term !== e.term || truth.text !== entryText(e))
        this.fail(`${n.id} applies another entry at ${e.index}`);
    }
  }

  /** What a peer says on the wire must be true of its disk. */
  leaving(n: SimNode, to: NodeId, m: RaftMessage): void {
    const { hardState, entries, snapshot } = n.disk;
    if (m.type === 'vote-reply' && m.granted && !m.preVote) {
      if (!n.disk.mayVote) this.fail(`${n.id} votes without a right to`);
      const kept = hardState.term > m.term || (hardState.term === m.term && hardState.votedFor === to);
      if (!kept) this.fail(`${n.id} votes for ${to} in term ${m.term} before that is durable`);
    }
    if (m.type === 'append' && hardState.term < m.term) this.fail(`${n.id} leads term ${m.term}, not durable`);
    if (m.type === 'append-reply' && m.ok && hardState.term === m.term) {
      if (snapshot.index + entries.length < m.index && n.disk.applied < m.index)
        this.fail(`${n.id} acknowledges ${m.index}, holds ${snapshot.index + entries.length}`);
    }
  }

  proposalDone(n: SimNode, id: number, result: Verdict): void {
    const p = this.#cluster.proposals.get(id);
    if (p === undefined) this.fail(`verdict on unknown proposal ${id}`);
    if (p.result !== null) this.fail(`two verdicts on proposal ${id}`);
    p.result = result.ok ? 'ok' : result.reason;
    if (!result.ok) return;
    const entry = n.core?.entries(result.index, (result.index + 1) as never)[0];
    if (entry === undefined || entryText(entry) !== p.text) this.fail(`proposal ${id} acknowledged at a wrong index`);
    const others = [...this.#cluster.nodes.values()].filter((o) => this.#onDisk(o, entry)).length;
    if (result.copies > others + this.#cluster.wiped.size)
      this.fail(`copies ${result.copies} of index ${result.index}, on disk ${others}`);
    this.acknowledged = Math.max(this.acknowledged, result.index);
  }

  readDone(id: number, ok: boolean, index: number): void {
    const r = this.#cluster.reads.get(id);
    if (r === undefined || r.done) this.fail(`read ${id} answered twice`);
    r.done = true;
    r.ok = ok;
    if (ok && index < r.floor) this.fail(`read ${id} at index ${index}, but ${r.floor} was acknowledged before it`);
  }

  /** Log matching: entries of the same index and term are the same, and so is everything before. */
  logMatching(): void {
    const up = [...this.#cluster.nodes.values()].flatMap((n) => (n.core === null ? [] : [n.core]));
    for (let i = 0; i < up.length; i++) {
      for (let j = i + 1; j < up.length; j++) {
        const [a, b] = [up[i], up[j]];
        if (a === undefined || b === undefined) continue;
        let same = false;
        for (let x = Math.min(a.view().lastIndex, b.view().lastIndex); x > 0; x--) {
          const ta = a.termAt(x as never);
          const tb = b.termAt(x as never);
          if (ta === undefined || tb === undefined) break;
          if (ta === tb) same = true;
          else if (same) this.fail(`logs differ at ${x} below an equal entry`);
        }
      }
    }
  }
}

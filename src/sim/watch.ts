import type { LogEntry, Membership, RaftMessage } from '../core/consensus/types.ts';
import type { DesiredCopy } from '../core/reconcile/types.ts';
import { formatGeneration } from '../model/generation.ts';
import type { NodeId, Term } from '../model/ids.ts';
import { InvariantBroken } from './invariants.ts';
import type { Machine } from './machine.ts';
import type { World } from './world.ts';

// What must hold between machines, seen from above: majorities that are really there. No peer could look at any of it.

const LOOK_MS = 250;
/** Nothing was broken or mended for this long: who is still cut off then knows it. CheckQuorum takes a second. */
const QUIET_MS = 4000;

const majority = (nodes: readonly NodeId[], is: (id: NodeId) => boolean): boolean =>
  nodes.filter(is).length > nodes.length / 2;
const quorum = (m: Membership, is: (id: NodeId) => boolean): boolean =>
  majority(m.voters, is) && (m.outgoing === null || majority(m.outgoing, is));

export class Watch {
  readonly #world: World;
  /** Who granted a pre-vote, `candidate/term`; who was told by its leader to campaign. */
  readonly #preVotes = new Map<string, Set<NodeId>>();
  readonly #told = new Set<string>();
  readonly #ordered = new Set<string>();
  #looking = false;

  constructor(world: World) {
    this.#world = world;
  }

  sent(from: Machine, to: NodeId, m: RaftMessage): void {
    if (!this.#looking) this.#look();
    if (m.type === 'timeout-now') this.#told.add(`${to}/${m.term + 1}`);
    if (m.type !== 'vote-reply' || !m.preVote || !m.granted) return;
    const key = `${to}/${m.term}`;
    const by = this.#preVotes.get(key) ?? new Set();
    this.#preVotes.set(key, by.add(from.id));
  }
  /** PreVote (thesis 9.6): nobody raises the term before a majority would vote for it. */
  campaigns(machine: Machine, term: Term): void {
    const { id, peer } = machine;
    const by = this.#preVotes.get(`${id}/${term}`);
    if (peer === undefined || this.#told.has(`${id}/${term}`)) return;
    if (!quorum(peer.consensus().membership, (voter) => voter === id || by?.has(voter) === true))
      throw new InvariantBroken('no campaign without pre-votes', `${id} campaigns in term ${term}`);
  }
  /** A majority has the vote for it on its disks, or is in a later term by now (Raft 5.2). */
  elected(machine: Machine, term: Term): void {
    const { id, peer } = machine;
    if (peer === undefined) return;
    const voted = (voter: NodeId): boolean => {
      const { hardState } = this.#world.machine(voter).disk;
      return hardState.term > term || (hardState.term === term && hardState.votedFor === id);
    };
    if (!quorum(peer.consensus().membership, voted))
      throw new InvariantBroken('a leader has the votes of a majority', `${id} leads term ${term} without them`);
  }
  /** Committed is what stands on the disks of a majority (Raft 5.3, 5.4): of the voters then, or of those that came since. */
  committed(machine: Machine, entry: LogEntry): void {
    const { peer } = machine;
    if (peer === undefined) return;
    const holds = (voter: NodeId): boolean => {
      const { disk } = this.#world.machine(voter);
      if (disk.snapshot.index >= entry.index) return true;
      const held = disk.entries[entry.index - disk.snapshot.index - 1];
      return held !== undefined && held.index === entry.index && held.term === entry.term;
    };
    if (!quorum(peer.membershipAt(entry.index), holds) && !quorum(peer.consensus().membership, holds))
      throw new InvariantBroken(
        'committed is what a majority holds',
        `${machine.id} applies entry ${entry.index} of term ${entry.term}, which too few have`,
      );
  }
  /** ReadIndex (thesis 6.4). */
  read(machine: Machine, index: number, floor: number): void {
    if (index < floor)
      throw new InvariantBroken(
        'reads are current',
        `${machine.id} answers with ${index}; ${floor} was committed when it was asked`,
      );
  }

  /** CheckQuorum (thesis 6.2): whoever is cut off from a majority leads no longer. */
  #look(): void {
    this.#looking = true;
    const world = this.#world;
    world.after(LOOK_MS, () => this.#look());
    if (world.now - world.disturbedAt < QUIET_MS) return;
    for (const m of world.machines) {
      const view = m.peer?.consensus();
      if (m.frozen || view?.role !== 'leader') continue;
      if (!quorum(view.membership, (id) => this.#inReach(m, id)))
        throw new InvariantBroken('a leader reaches a majority', `${m.id} leads term ${view.term}, cut off`);
    }
  }
  #inReach(from: Machine, id: NodeId): boolean {
    const { network } = this.#world;
    const other = this.#world.machine(id);
    return other === from || (other.powered && network.reaches(from.id, id) && network.reaches(id, from.id));
  }

  /** A provisional copy is ordered where no majority is in reach. The same order may be carried out again later. */
  provisional(machine: Machine, copy: DesiredCopy): void {
    const name = `${copy.taskId}/${copy.slot} ${formatGeneration(copy.generation)}`;
    if (this.#ordered.has(name)) return;
    this.#ordered.add(name);
    const world = this.#world;
    if (world.now - world.disturbedAt < QUIET_MS) return;
    const leader = world.leader();
    const view = leader?.peer?.consensus();
    if (leader === undefined || view === undefined || leader.frozen || !this.#inReach(machine, leader.id)) return;
    if (quorum(view.membership, (id) => this.#inReach(leader, id) && world.machine(id).up))
      throw new InvariantBroken(
        'provisional copies are of sides without a majority',
        `${machine.id} is to start ${name}, and ${leader.id} leads`,
      );
  }
}

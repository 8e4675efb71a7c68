import type { EpochFact, NodeFacts } from '../../model/facts.ts';
import type { MonoMs, NodeId } from '../../model/ids.ts';
import type { Hub } from './hub.ts';
import type { Stamped } from './types.ts';

// Epochs: a recovery by force begins a new one, and logs of different epochs never mix. Consensus messages of a recovered
// cluster carry its epoch; whoever is of another does not read them. A peer whose epoch was superseded sets its log aside and
// comes back as a learner, unless the majority it belongs to lives on: then an operator has to choose.

/** A peer that has had a master for this long before it meets a newer epoch does not leave it by itself. */
const LASTING_MS = 10_000;
/** The same conflict is told again this often. */
const REPEAT_MS = 60_000;

export interface Epochs {
  /** What goes onto consensus messages: empty in a cluster that was never recovered. */
  stamp(): Stamped;
  /** False: of another epoch, not to be read. A peer without any records takes on the epoch that it first hears. */
  accepts(message: Stamped): boolean;
  /** Whether a peer reads this one's log, as far as its facts tell: then it can be counted on to hold entries. */
  shares(facts: NodeFacts | undefined): boolean;
  /** What this peer says of itself. */
  own(): EpochFact | undefined;
  /** Facts of a peer came in. */
  met(peer: NodeId, facts: NodeFacts | undefined): void;
  leaderChanged(leader: NodeId | null): void;
}

export function createEpochs(hub: Hub, given: string | undefined): Epochs {
  let heard: string | undefined;
  let ledSince: MonoMs | undefined;
  let leaving = false;
  const told = new Map<string, number>();

  const current = (): string => {
    if (given !== undefined) return given;
    const cluster = hub.state().cluster;
    if (cluster === undefined) return heard ?? '';
    return cluster.epoch > 1 ? cluster.epochId : '';
  };

  /** Ids by which this peer's epoch is known to those after it. */
  const mine = (): string => {
    const cluster = hub.state().cluster;
    return given ?? cluster?.epochId ?? '';
  };

  return {
    stamp: () => {
      const epoch = current();
      return epoch === '' ? {} : { epoch };
    },
    accepts: (message) => {
      const theirs = message.epoch ?? '';
      if (theirs === current()) return true;
      if (given !== undefined || hub.state().cluster !== undefined || heard !== undefined || theirs === '')
        return false;
      heard = theirs;
      return true;
    },
    shares: (facts) => current() === '' || facts?.epoch?.id === current(),
    own: () => {
      const cluster = hub.state().cluster;
      if (cluster?.parents === undefined || (given !== undefined && cluster.epochId !== given)) return undefined;
      return { number: cluster.epoch, id: cluster.epochId, parents: cluster.parents };
    },
    met: (peer, facts) => {
      const epoch = facts?.epoch;
      const own = hub.state().cluster;
      if (leaving || epoch === undefined || own === undefined || epoch.id === mine()) return;
      // It is of an earlier epoch than this one, and will come.
      if (own.parents?.includes(epoch.id) === true) return;
      const newer = epoch.parents.includes(mine());
      const lasting = ledSince !== undefined && hub.now() - ledSince >= LASTING_MS;
      if (newer && !lasting) {
        leaving = true;
        hub.emit({ type: 'rejoin', epochId: epoch.id, from: peer });
        return;
      }
      const key = `${peer} ${epoch.id}`;
      if (hub.now() < (told.get(key) ?? Number.NEGATIVE_INFINITY)) return;
      told.set(key, hub.now() + REPEAT_MS);
      hub.emit({ type: 'notify', notice: { type: 'epoch-conflict', peer, epoch, at: hub.wall() } });
    },
    leaderChanged: (leader) => {
      if (leader === null) ledSince = undefined;
      else ledSince ??= hub.now();
    },
  };
}

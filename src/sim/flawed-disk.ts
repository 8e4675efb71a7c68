import { type LogIndex, logIndex, term } from '../model/ids.ts';
import type { StatePut } from '../core/state/types.ts';
import { Disk } from './disk.ts';
import type { Machine } from './machine.ts';
import type { World } from './world.ts';

// What planted defects make of what is read back, or given to others.

type Restored = ReturnType<Disk['restore']>;

/** Disks as they were at some earlier start. */
const backups = new WeakMap<Machine, Restored>();
/** Records as they were when a snapshot was last asked for. */
const dumps = new WeakMap<Machine, readonly StatePut[]>();

export function flawedRestore(world: World, machine: Machine, restored: Restored): Restored {
  if (world.defects.size === 0) return restored;
  const { consensus } = restored;
  if (world.has('forgets-vote'))
    return { ...restored, consensus: { ...consensus, hardState: { ...consensus.hardState, votedFor: null } } };
  if (world.has('forgets-term'))
    return {
      ...restored,
      consensus: { ...consensus, hardState: { term: consensus.entries.at(-1)?.term ?? term(0), votedFor: null } },
    };
  if (world.has('loses-tail') && (consensus.entries.at(-1)?.index ?? 0) > consensus.applied) {
    const entries = consensus.entries.slice(0, -1);
    machine.disk.entries = [...entries];
    return { ...restored, consensus: { ...consensus, entries } };
  }
  if (world.has('wipe-and-vote') && machine.boots > 1 && consensus.entries.length > 0) {
    const empty = new Disk(consensus.snapshot.membership.voters);
    const { voters } = machine.lastVoters() ?? consensus.snapshot.membership;
    return wipe(machine, { ...empty.restore(), pending: restored.pending }, voters);
  }
  if (world.has('restored-from-backup')) {
    const backup = backups.get(machine);
    if (backup === undefined && consensus.entries.length > 5) backups.set(machine, structuredClone(restored));
    else if (backup) return wipe(machine, { ...structuredClone(backup), pending: restored.pending });
  }
  return restored;
}

/** The disk itself becomes what was read back. */
function wipe(machine: Machine, to: Restored, voters = to.consensus.snapshot.membership.voters): Restored {
  const { disk } = machine;
  const { consensus } = to;
  const snapshot = { ...consensus.snapshot, membership: { voters, outgoing: null } };
  disk.hardState = consensus.hardState;
  disk.snapshot = snapshot;
  disk.entries = [...consensus.entries];
  disk.applied = logIndex(consensus.applied) as LogIndex;
  disk.state = new Map(to.state.map(({ key, value }) => [key, value]));
  return { ...to, consensus: { ...consensus, snapshot } };
}

export function flawedPairs(world: World, machine: Machine, pairs: StatePut[]): StatePut[] {
  if (world.has('partial-snapshot')) {
    const task = pairs.find(({ key }) => key.startsWith('task/'))?.key;
    return pairs.filter(({ key }) => key !== task);
  }
  if (!world.has('stale-snapshot')) return pairs;
  const before = dumps.get(machine);
  dumps.set(machine, pairs);
  return structuredClone([...(before ?? pairs)]);
}

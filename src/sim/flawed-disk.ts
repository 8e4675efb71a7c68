import type { LogEntry, Membership, PersistOp } from '../core/consensus/types.ts';
import { type LogIndex, logIndex, term } from '../model/ids.ts';
import type { StatePut } from '../core/state/types.ts';
import { Disk, type Snapshot } from './disk.ts';
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
  if (world.has('bit-rot')) return { ...restored, consensus: { ...consensus, entries: rotten(consensus.entries) } };
  if (world.has('records-rot')) {
    const state = restored.state.map((put) =>
      put.key.startsWith('task/') ? { ...put, value: { ...(put.value as object), desired: 'stopped' } } : put,
    );
    return { ...restored, state };
  }
  if (world.has('forgets-verdicts'))
    return { ...restored, state: restored.state.filter(({ key }) => !key.startsWith('verdict/')) };
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

/** One bit of the last command is another. */
function rotten(entries: Restored['consensus']['entries']): Restored['consensus']['entries'] {
  const last = entries.findLastIndex((e) => e.payload.kind === 'command');
  return entries.map((e, i) => (i === last ? garbled(e) : e));
}
export function garbled(entry: LogEntry): LogEntry {
  if (entry.payload.kind !== 'command') return entry;
  const bytes = entry.payload.bytes.slice();
  const at = bytes.length >> 1;
  bytes[at] = (bytes[at] ?? 0) ^ 1;
  return { ...entry, payload: { kind: 'command', bytes } };
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

export function flawedSnapshot(world: World, snapshot: Snapshot): Snapshot {
  if (world.has('snapshot-of-another-term')) return { ...snapshot, term: term(snapshot.term + 1) };
  if (!world.has('snapshot-of-old-voters')) return snapshot;
  const [founder] = world.machines;
  return { ...snapshot, membership: { voters: founder ? [founder.id] : [], outgoing: null } };
}

/** A leader's entry for joint consensus loses the outgoing voters, for everybody who will ever hold it. */
export function inOneStep(ops: readonly PersistOp[]): void {
  for (const op of ops)
    for (const { payload } of op.type === 'append' ? op.entries : [])
      if (payload.kind === 'membership') (payload.membership as { outgoing: Membership['outgoing'] }).outgoing = null;
}

import type { HardState, LogEntry, Membership, PersistOp } from '../../../src/core/consensus/types.ts';
import { type LogIndex, logIndex, term } from '../../../src/model/ids.ts';

// What one simulated peer's disk holds, and how writes change it.

export interface Disk {
  hardState: HardState;
  snapshot: { index: LogIndex; term: number; membership: Membership };
  entries: LogEntry[];
  /** Text of every command applied, in order: the state machine. */
  state: string[];
  applied: number;
  mayVote: boolean;
}

export function freshDisk(membership: Membership): Disk {
  return {
    hardState: { term: term(0), votedFor: null },
    snapshot: { index: logIndex(0), term: 0, membership },
    entries: [],
    state: [],
    applied: 0,
    mayVote: true,
  };
}

export function applyOp(disk: Disk, op: PersistOp): void {
  switch (op.type) {
    case 'hard-state':
      disk.hardState = op.hardState;
      if (op.readmitted) disk.mayVote = true;
      return;
    case 'append':
      for (const e of op.entries) {
        if (e.index !== disk.snapshot.index + disk.entries.length + 1) throw new Error(`disk gap at ${e.index}`);
        disk.entries.push(e);
      }
      return;
    case 'truncate':
      disk.entries = disk.entries.filter((e) => e.index < op.from);
      return;
    case 'compact':
      disk.entries = disk.entries.filter((e) => e.index > op.upTo);
      disk.snapshot = { index: op.upTo, term: op.term, membership: op.membership };
      return;
  }
}

export function applyEntry(disk: Disk, e: LogEntry): number {
  if (e.index <= disk.applied) return disk.applied;
  if (e.index !== disk.applied + 1) throw new Error(`applied out of order: ${e.index} after ${disk.applied}`);
  disk.applied = e.index;
  disk.state.push(entryText(e));
  return disk.applied;
}

export function entryText(e: LogEntry): string {
  return e.payload.kind === 'command' ? new TextDecoder().decode(e.payload.bytes) : e.payload.kind;
}

export function committedMembership(disk: Disk, index: number): Membership {
  let m = disk.snapshot.membership;
  for (const e of disk.entries) if (e.index <= index && e.payload.kind === 'membership') m = e.payload.membership;
  return m;
}

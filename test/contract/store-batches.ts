import type { LogEntry, PersistOp } from '../../src/core/consensus/types.ts';
import { logIndex, nodeId, term } from '../../src/model/ids.ts';
import type { StoreBatch } from '../../src/ports/store.ts';

// Short forms of store batches, for the contract and for the processes that tests kill.

export const batch = (parts: Partial<StoreBatch> = {}): StoreBatch => ({
  consensus: [],
  state: [],
  applied: null,
  addSubmissions: [],
  removeSubmissions: [],
  local: [],
  sync: true,
  ...parts,
});
export const command = (index: number, t: number, text = `command ${index}`): LogEntry => ({
  index: logIndex(index),
  term: term(t),
  payload: { kind: 'command', bytes: new TextEncoder().encode(text) },
});
export const commands = (from: number, to: number, t: number): LogEntry[] =>
  Array.from({ length: to - from + 1 }, (_, i) => command(from + i, t));
export const append = (...entries: LogEntry[]): PersistOp => ({ type: 'append', entries });
export const vote = (t: number, votedFor: string | null): PersistOp => ({
  type: 'hard-state',
  hardState: { term: term(t), votedFor: votedFor === null ? null : nodeId(votedFor) },
});
/** A peer whose log was lost may vote again. */
export const readmission = (t: number): PersistOp => ({
  type: 'hard-state',
  hardState: { term: term(t), votedFor: null },
  readmitted: true,
});

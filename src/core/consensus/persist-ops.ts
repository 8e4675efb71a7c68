import { logIndex } from '../../model/ids.ts';
import type { PersistOp } from './types.ts';

/**
 * What of `ops` is still to be done to a durable log that begins after `snapshotIndex`. A snapshot is installed by the store
 * before the core hears of it, so what the core asked for meanwhile may still speak of entries that the snapshot stands for:
 * those are gone already (Raft figure 13, rules 6 and 7).
 */
export function aboveSnapshot(ops: readonly PersistOp[], snapshotIndex: number): readonly PersistOp[] {
  const below = (op: PersistOp): boolean =>
    op.type === 'truncate'
      ? op.from <= snapshotIndex
      : op.type === 'append' && op.entries[0] !== undefined && op.entries[0].index <= snapshotIndex;
  if (!ops.some(below)) return ops;
  return ops.map((op) => {
    if (!below(op)) return op;
    if (op.type === 'truncate') return { ...op, from: logIndex(snapshotIndex + 1) };
    return op.type === 'append' ? { ...op, entries: op.entries.filter((e) => e.index > snapshotIndex) } : op;
  });
}

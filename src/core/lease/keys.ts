import { formatGeneration, sameGeneration } from '../../model/generation.ts';
import type { DurationMs } from '../../model/ids.ts';
import type { SlotRecord } from '../../model/records.ts';
import type { ClusterState } from '../state/types.ts';
import type { LeaseConfig, LeaseKey, SlotKey } from './types.ts';

/** Leases (and releases) in one renewal; more than that on one machine are left out, hence never started. */
export const LEASES_PER_RENEWAL = 4096;

/** The record of a slot, if the task has it. */
export function slotRecord(state: ClusterState, key: SlotKey): SlotRecord | undefined {
  const slots = state.tasks.get(key.taskId)?.slots;
  const direct = slots?.[key.slot];
  return direct === undefined || direct.slot === key.slot ? direct : slots?.find((s) => s.slot === key.slot);
}

/** `TASKID.SLOT`: the map key of a slot. */
export const slotText = (key: SlotKey): string => `${key.taskId}.${key.slot}`;
/** `TASKID.SLOT.GENERATION`: the map key of a lease. */
export const leaseText = (key: LeaseKey): string => `${key.taskId}.${key.slot}.${formatGeneration(key.generation)}`;

export const sameLease = (a: LeaseKey, b: LeaseKey): boolean =>
  a.taskId === b.taskId && a.slot === b.slot && sameGeneration(a.generation, b.generation);

/** L(1-r), rounded down: what the holder may count on, on its own clock, from the send time of an acknowledged renewal. */
export const holderLeaseMs = (c: LeaseConfig): DurationMs =>
  c.unsafeHolderMs ?? (Math.floor(c.leaseMs * (1 - c.clockRateError)) as DurationMs);

/** L(1+r), rounded up: what the master waits, on its own clock, from the receipt of the last renewal. */
export const granterWaitMs = (c: LeaseConfig): DurationMs =>
  Math.ceil(c.leaseMs * (1 + c.clockRateError)) as DurationMs;

import type { Generation } from '../../model/generation.ts';
import type { DurationMs, MonoMs, NodeId, TaskId } from '../../model/ids.ts';

// Leases of exclusive slots (Gray & Cheriton 1989).

export interface LeaseConfig {
  /** L */
  readonly leaseMs: DurationMs;
  readonly renewEveryMs: DurationMs;
  /** r: bound on the rate error between two clocks, e.g. 0.01. */
  readonly clockRateError: number;
  /** S: time a kill may take. */
  readonly stopAllowanceMs: DurationMs;
  /**
   * Only to prove that a witness of overlaps sees them: what a holder counts on, whatever the master waits. Never set by
   * any setting.
   */
  readonly unsafeHolderMs?: DurationMs;
}

export const DEFAULT_LEASE_CONFIG: LeaseConfig = {
  leaseMs: 4000 as DurationMs,
  renewEveryMs: 400 as DurationMs,
  clockRateError: 0.01,
  stopAllowanceMs: 1000 as DurationMs,
};

export interface SlotKey {
  readonly taskId: TaskId;
  readonly slot: number;
}
export interface LeaseKey extends SlotKey {
  readonly generation: Generation;
}

/** Holder -> master, one for all its exclusive slots. `seq` rises; the holder remembers the send time of each. */
export interface RenewMessage {
  readonly type: 'lease-renew';
  readonly seq: number;
  readonly leases: readonly LeaseKey[];
  /** Copies the holder proves dead (boot reaped them): the master need not wait for their lease. */
  readonly released: readonly LeaseKey[];
}
/** Master -> holder. `acked` are renewed as of the send time of `seq`; `refused` must stop now. */
export interface RenewAckMessage {
  readonly type: 'lease-ack';
  readonly seq: number;
  readonly acked: readonly LeaseKey[];
  readonly refused: readonly LeaseKey[];
}
export type LeaseMessage = RenewMessage | RenewAckMessage;

/** Holder: a copy may run while now < deadline - S; it is dead by deadline. */
export interface HeldLease {
  readonly key: LeaseKey;
  /** undefined before the first acknowledged renewal: must not start. */
  readonly deadline: MonoMs | undefined;
}
export type { NodeId };

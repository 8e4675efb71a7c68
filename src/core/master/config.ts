import type { DurationMs } from '../../model/ids.ts';

const ms = (n: number): DurationMs => n as DurationMs;

export interface MasterConfig {
  /** Agent silent, boot answering: this long before what it ran counts as lost. Same as membership's. */
  readonly agentDownMs: DurationMs;
  /** A proposal not seen applied after this is thought lost and decided again. */
  readonly proposalTimeoutMs: DurationMs;
  /** Slots placed in one go; the rest follow in the next evaluation. */
  readonly placeAtOnce: number;
  readonly submissionsAtOnce: number;
  /** What could not be placed is tried again when machines change, but not more often than this. */
  readonly retryWaitingMs: DurationMs;
  /** A machine that could not run a slot is avoided for it this long, doubled with each failure up to the cap. */
  readonly avoidMs: DurationMs;
  readonly avoidCapMs: DurationMs;
  /** A drained machine's next copy moves when the last one runs elsewhere, or after this. */
  readonly drainStepMs: DurationMs;
  /** A better ranked voter, or a dead voter, must have been so for this long. */
  readonly stableMs: DurationMs;
  /** After a transfer: no other to the same peer for this long; doubled (to the cap) each time it did not keep it. */
  readonly transferPauseMs: DurationMs;
  readonly transferPauseCapMs: DurationMs;
  /** Lifeguard's local health above which mastery is handed over. */
  readonly maxLocalHealth: number;
  /** Entries that a peer may be behind the commit index and still count as caught up. */
  readonly caughtUpEntries: number;
}

export const DEFAULT_MASTER_CONFIG: MasterConfig = {
  agentDownMs: ms(5000),
  proposalTimeoutMs: ms(5000),
  placeAtOnce: 1024,
  submissionsAtOnce: 512,
  retryWaitingMs: ms(250),
  avoidMs: ms(30_000),
  avoidCapMs: ms(600_000),
  drainStepMs: ms(10_000),
  stableMs: ms(10_000),
  transferPauseMs: ms(60_000),
  transferPauseCapMs: ms(3_600_000),
  maxLocalHealth: 3,
  caughtUpEntries: 64,
};

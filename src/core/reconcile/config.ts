import type { DurationMs } from '../../model/ids.ts';

const ms = (n: number): DurationMs => n as DurationMs;

export interface ReconcileConfig {
  /** Starts in flight at once; the rest queue by priority. More gains nothing on one engine. */
  readonly startsAtOnce: number;
  /** S of the lease: an exclusive copy is stopped when its deadline is this near. */
  readonly stopAllowanceMs: DurationMs;
  /** A copy that was up this long starts its back-off from the beginning again. */
  readonly steadyAfterMs: DurationMs;
  /** First and longest pause before a failed start that may succeed is tried again. */
  readonly startRetryMs: DurationMs;
  readonly startRetryCapMs: DurationMs;
  /** A copy that cannot start here (image missing, say) is tried again this often, while the master looks elsewhere. */
  readonly blockedRetryMs: DurationMs;
  readonly stopRetryMs: DurationMs;
  readonly stopRetryCapMs: DurationMs;
  /** A second stop of a copy whose first was answered is waited for this long. */
  readonly stopAnswerMs: DurationMs;
  /** The end of a run is reported until the master has committed it. */
  readonly endRetryMs: DurationMs;
  readonly endRetryCapMs: DurationMs;
  /** An ended copy is kept (for its logs) this long after its end is committed. */
  readonly keepEndedMs: DurationMs;
  /** Ended copies kept; the oldest go first. */
  readonly keepEnded: number;
  /** `released` is said again this often while the record still names this machine. */
  readonly releaseRepeatMs: DurationMs;
}

export const DEFAULT_RECONCILE_CONFIG: ReconcileConfig = {
  startsAtOnce: 16,
  stopAllowanceMs: ms(1000),
  steadyAfterMs: ms(10_000),
  startRetryMs: ms(500),
  startRetryCapMs: ms(30_000),
  blockedRetryMs: ms(15_000),
  stopRetryMs: ms(500),
  stopRetryCapMs: ms(30_000),
  stopAnswerMs: ms(5000),
  endRetryMs: ms(500),
  endRetryCapMs: ms(10_000),
  keepEndedMs: ms(600_000),
  keepEnded: 64,
  releaseRepeatMs: ms(2000),
};

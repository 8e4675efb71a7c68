import type { TaskId, WallMs } from '../../model/ids.ts';
import { LIMITS } from '../../model/limits.ts';
import type { Submission } from '../../model/records.ts';

// Submissions heard and not yet settled. Each is kept durably by every peer that hears it until its verdict is in the log
// or it expires, so a task published while there is no master is taken up by the next one.

export interface Intake {
  readonly pending: ReadonlyMap<TaskId, Submission>;
  /** 'new': keep it durably, then offer it; 'known': nothing to do; 'full': refuse as busy. */
  add(submission: Submission): 'new' | 'known' | 'full';
  /** Removes settled ones; returns those that were pending here. */
  settle(ids: Iterable<TaskId>): TaskId[];
  /** Removes expired ones. */
  expire(now: WallMs): TaskId[];
}

export function createIntake(restored: readonly Submission[]): Intake {
  const pending = new Map<TaskId, Submission>(restored.map((s) => [s.id, s]));
  return {
    pending,
    add: (s) => {
      if (pending.has(s.id)) return 'known';
      if (pending.size >= LIMITS.pendingSubmissions) return 'full';
      pending.set(s.id, s);
      return 'new';
    },
    settle: (ids) => [...ids].filter((id) => pending.delete(id)),
    expire: (now) => {
      const gone = [...pending.values()].filter((s) => s.expiresAt < now).map((s) => s.id);
      for (const id of gone) pending.delete(id);
      return gone;
    },
  };
}

import type { ApplyResult } from '../../model/commands.ts';
import type { LogIndex, MonoMs, NodeId, TaskId } from '../../model/ids.ts';
import type { ClientResult } from './types.ts';

// Who waits for what: local clients, forwarded proposals of other peers, and the master core itself. A proposal is answered
// once its entry is applied here, with what applying it did.

export type Origin =
  | { readonly kind: 'client'; readonly requestId: number }
  | { readonly kind: 'peer'; readonly peer: NodeId; readonly requestId: number }
  | { readonly kind: 'master' };

interface Committed {
  readonly origin: Origin;
  readonly copies: number;
}

/** Results of entries applied before their proposal verdict arrived in the same step; small, since both come together. */
const RECENT_RESULTS = 8192;

export interface Requests {
  /** A new proposal id for consensus. */
  proposed(origin: Origin): number;
  /** Consensus took proposal at `index`; returns the origin when its result is known already. */
  committed(
    proposalId: number,
    index: LogIndex,
    copies: number,
  ): { origin: Origin; result: ApplyResult; copies: number } | undefined;
  rejected(proposalId: number): Origin | undefined;
  applied(index: LogIndex, result: ApplyResult): { origin: Origin; copies: number } | undefined;
  /** Client requests that wait (forwarded, or for a submission verdict) with a deadline. */
  wait(requestId: number, until: MonoMs, submission: TaskId | null): void;
  isWaiting(requestId: number): boolean;
  done(requestId: number): boolean;
  waitingFor(submission: TaskId): number[];
  expired(now: MonoMs): number[];
  nextDeadline(): MonoMs | undefined;
  /** Proposals without an answer, and clients that wait. */
  sizes(): { readonly proposals: number; readonly clients: number };
}

export const clientFailure = (
  reason: Extract<ClientResult, { ok: false }>['reason'],
  message: string,
): ClientResult => ({ ok: false, reason, message });

export function createRequests(): Requests {
  let nextId = 1;
  const origins = new Map<number, Origin>();
  const byIndex = new Map<number, Committed>();
  const recent = new Map<number, ApplyResult>();
  const waiting = new Map<number, { until: MonoMs; submission: TaskId | null }>();
  const bySubmission = new Map<TaskId, Set<number>>();

  const done = (requestId: number): boolean => {
    const w = waiting.get(requestId);
    if (!w) return false;
    waiting.delete(requestId);
    if (w.submission !== null) {
      const set = bySubmission.get(w.submission);
      set?.delete(requestId);
      if (set?.size === 0) bySubmission.delete(w.submission);
    }
    return true;
  };

  return {
    proposed: (origin) => {
      const id = nextId++;
      origins.set(id, origin);
      return id;
    },
    committed: (proposalId, index, copies) => {
      const origin = origins.get(proposalId);
      if (!origin) return undefined;
      origins.delete(proposalId);
      const result = recent.get(index);
      if (result) return { origin, result, copies };
      byIndex.set(index, { origin, copies });
      return undefined;
    },
    rejected: (proposalId) => {
      const origin = origins.get(proposalId);
      origins.delete(proposalId);
      return origin;
    },
    applied: (index, result) => {
      const waiter = byIndex.get(index);
      if (waiter) {
        byIndex.delete(index);
        return waiter;
      }
      recent.set(index, result);
      if (recent.size > RECENT_RESULTS) {
        const first = recent.keys().next();
        if (!first.done) recent.delete(first.value);
      }
      return undefined;
    },
    wait: (requestId, until, submission) => {
      waiting.set(requestId, { until, submission });
      if (submission === null) return;
      const set = bySubmission.get(submission) ?? new Set<number>();
      set.add(requestId);
      bySubmission.set(submission, set);
    },
    isWaiting: (requestId) => waiting.has(requestId),
    done,
    waitingFor: (submission) => [...(bySubmission.get(submission) ?? [])],
    sizes: () => ({ proposals: origins.size + byIndex.size, clients: waiting.size }),
    // Requests wait equally long, so the map is in order of their deadlines.
    expired: (now) => {
      const out: number[] = [];
      for (const [id, w] of waiting) {
        if (w.until > now) break;
        out.push(id);
      }
      for (const id of out) done(id);
      return out;
    },
    nextDeadline: () => {
      const first = waiting.values().next();
      return first.done ? undefined : first.value.until;
    },
  };
}

import type { ApplyResult } from '../../model/commands.ts';
import { logIndex, type MonoMs, type NodeId, type TaskId } from '../../model/ids.ts';
import { LIMITS } from '../../model/limits.ts';
import type { ControlMessage } from '../../model/peer-messages.ts';
import type { Submission } from '../../model/records.ts';
import { sameValue } from '../state/stable.ts';
import type { Applied } from '../state/types.ts';
import { control, type Hub, later } from './hub.ts';
import { createIntake } from './intake.ts';
import type { Office } from './office.ts';
import { clientFailure, type Requests } from './requests.ts';

// Submissions: taken in durably, spread on the topic, offered to the master until the log holds their verdict.

/** Sent again to the master in one go; the rest follow at the next turn. */
const MAX_RESENT = 200;

export interface Submissions {
  readonly pending: ReadonlyMap<TaskId, Submission>;
  fromClient(requestId: number, submission: Submission): void;
  heard(submission: Submission): void;
  fromPeer(from: NodeId, message: Extract<ControlMessage, { type: 'submission' | 'submission-verdict' }>): void;
  kept(id: TaskId): void;
  /** A (new) master is known. */
  offer(): void;
  settle(results: readonly Applied[]): void;
  tick(): void;
  nextWake(): MonoMs | undefined;
}

export function createSubmissions(
  hub: Hub,
  restored: readonly Submission[],
  requests: Requests,
  office: Office,
): Submissions {
  const intake = createIntake(restored);
  let retryAt: MonoMs | undefined;

  function takeIn(submission: Submission): 'new' | 'known' | 'full' | 'settled' | 'expired' {
    const state = hub.state();
    if (state.verdicts.has(submission.id) || state.tasks.has(submission.id)) return 'settled';
    if (submission.expiresAt < hub.wall()) return 'expired';
    const outcome = intake.add(submission);
    if (outcome === 'new') {
      hub.emit({ type: 'keep-submission', submission });
      office.mark({ submissions: true });
    }
    return outcome;
  }

  function settledResult(submission: Submission, outcome: 'settled' | 'expired'): ApplyResult {
    if (outcome === 'expired') return { ok: false, code: 'refused', reason: 'the submission has expired' };
    const task = hub.state().tasks.get(submission.id);
    if (task && task.specVersion === 1 && !sameValue(task.spec, submission.spec)) return idTaken(submission.id);
    const verdict = hub.state().verdicts.get(submission.id);
    return verdict && verdict.verdict !== 'accepted'
      ? { ok: false, code: verdict.code ?? 'refused', reason: verdict.reason || verdict.verdict }
      : { ok: true };
  }

  const idTaken = (id: TaskId): ApplyResult => ({
    ok: false,
    code: 'already_exists',
    reason: `another task document was submitted under the id ${id}`,
  });

  function offer(): void {
    const leader = hub.leader();
    if (leader === null || intake.pending.size === 0) return;
    if (leader === hub.self) return office.mark({ submissions: true });
    let n = 0;
    for (const submission of intake.pending.values()) {
      if (n++ >= MAX_RESENT) break;
      control(hub, leader, { type: 'submission', submission });
    }
  }

  if (intake.pending.size > 0) retryAt = 0 as MonoMs;
  return {
    pending: intake.pending,
    heard: (submission) => void takeIn(submission),
    fromClient: (requestId, submission) => {
      requests.wait(requestId, later(hub, hub.config.requestTimeoutMs), submission.id);
      const waiting = intake.pending.get(submission.id);
      if (waiting && !sameValue(waiting.spec, submission.spec)) {
        requests.done(requestId);
        const result = { ok: true as const, index: hub.state().applied, result: idTaken(submission.id), copies: 0 };
        return hub.emit({ type: 'client-reply', requestId, result });
      }
      const outcome = takeIn(submission);
      // 'new': spread once it is durable here (kept). 'known': the same submission waits already.
      if (outcome === 'new' || outcome === 'known') return;
      requests.done(requestId);
      const result =
        outcome === 'full'
          ? clientFailure('busy', `refused: busy (${LIMITS.pendingSubmissions} submissions wait for a master)`)
          : {
              ok: true as const,
              index: hub.state().verdicts.get(submission.id)?.index ?? hub.state().applied,
              result: settledResult(submission, outcome),
              copies: 0,
            };
      hub.emit({ type: 'client-reply', requestId, result });
    },
    fromPeer: (from, message) => {
      if (message.type === 'submission') {
        if (takeIn(message.submission) === 'full')
          control(hub, from, {
            type: 'submission-verdict',
            id: message.submission.id,
            verdict: 'busy',
            index: logIndex(0),
            reason: 'the master holds as many submissions as it may',
          });
        return;
      }
      // Accepted and refused come with the log; only `busy` is told apart, and the client may try again.
      for (const requestId of message.verdict === 'busy' ? requests.waitingFor(message.id) : []) {
        requests.done(requestId);
        hub.emit({
          type: 'client-reply',
          requestId,
          result: clientFailure('busy', `refused: busy (${message.reason})`),
        });
      }
    },
    kept: (id) => {
      const submission = intake.pending.get(id);
      if (!submission) return;
      const leader = hub.leader();
      if (submission.from === hub.self) {
        hub.emit({ type: 'publish', topic: 'tasks', message: submission });
        if (leader !== null && leader !== hub.self) control(hub, leader, { type: 'submission', submission });
      }
      retryAt ??= later(hub, hub.config.submissionRetryMs);
    },
    offer,
    settle: (results) => {
      const settled = new Map<TaskId, ApplyResult>();
      for (const { command, result } of results) {
        if (command.type === 'task.submit') settled.set(command.submission.id, result);
        else if (command.type === 'task.refuse')
          settled.set(command.id, { ok: false, code: 'refused', reason: command.reason });
        else if (command.type === 'task.remove')
          settled.set(command.taskId, { ok: false, code: 'refused', reason: 'removed' });
      }
      if (settled.size === 0) return;
      // Under one id two peers may have taken in two documents: whoever waits here is told what became of theirs.
      for (const [id, result] of settled) {
        const own = intake.pending.get(id);
        if (own && result.ok) settled.set(id, settledResult(own, 'settled'));
      }
      const ids = intake.settle(settled.keys());
      if (ids.length > 0) hub.emit({ type: 'drop-submissions', ids });
      for (const [id, result] of settled) {
        for (const requestId of requests.waitingFor(id)) {
          requests.done(requestId);
          hub.emit({
            type: 'client-reply',
            requestId,
            result: { ok: true, index: hub.state().applied, result, copies: 0 },
          });
        }
      }
    },
    tick: () => {
      if (retryAt === undefined || retryAt > hub.now()) return;
      const gone = intake.expire(hub.wall());
      if (gone.length > 0) hub.emit({ type: 'drop-submissions', ids: gone });
      offer();
      retryAt = intake.pending.size > 0 ? later(hub, hub.config.submissionRetryMs) : undefined;
    },
    nextWake: () => retryAt,
  };
}

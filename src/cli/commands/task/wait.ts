import { TaskOrgError } from '../../../model/errors.ts';
import type { SubmitView, TaskView, VerdictView } from '../../../services/api/schemas.ts';
import type { ApiClient } from '../../client.ts';
import { note } from '../../output.ts';

const POLL_MS = 100;

/** Waits until a master has settled a published task. Throws refused with its reason, or timeout. */
export async function waitForVerdict(client: ApiClient, { id, name }: SubmitView, timeoutMs: number): Promise<void> {
  const until = Date.now() + timeoutMs;
  for (;;) {
    const { verdict, reason } = await client.get<VerdictView>(`/v1/submissions/${encodeURIComponent(id)}`);
    if (verdict === 'accepted') return;
    if (verdict === 'refused' || verdict === 'removed')
      throw new TaskOrgError('refused', `task ${name} was ${verdict}${reason ? `: ${reason}` : ''}`);
    if (Date.now() > until)
      throw new TaskOrgError('timeout', `task ${name} is kept, but no master has taken it up yet`, {
        hint: 'task-org cluster status',
      });
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  }
}

/** Waits until the task runs (or has ended well), saying what it waits for when that changes. */
export async function waitForTask(client: ApiClient, id: string, timeoutMs: number): Promise<TaskView> {
  const until = Date.now() + timeoutMs;
  let said = '';
  for (;;) {
    const task = await client.get<TaskView>(`/v1/tasks/${encodeURIComponent(id)}`).catch((error: unknown) => {
      // Accepted by the master, not yet applied on the peer asked.
      if (error instanceof TaskOrgError && error.code === 'not_found') return undefined;
      throw error;
    });
    if (task?.state === 'running' || task?.state === 'finished') return task;
    if (task?.state === 'failed')
      throw new TaskOrgError('runtime_failed', `task ${task.name} failed: ${task.error}`, {
        hint: `task-org logs ${task.name}`,
      });
    const words = task ? `${task.state}${task.error ? `: ${task.error}` : ''}` : 'waiting for the record';
    if (words !== said && process.stderr.isTTY) note(`${task?.name ?? id}: ${words}`);
    said = words;
    if (Date.now() > until)
      throw new TaskOrgError(
        'timeout',
        `task ${task?.name ?? id} does not run after ${Math.round(timeoutMs / 1000)} s (${words})`,
        { hint: `task-org why ${task?.name ?? id}` },
      );
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  }
}

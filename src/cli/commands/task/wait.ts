import { TaskOrgError } from '../../../model/errors.ts';
import type { TaskView } from '../../../services/api/schemas.ts';
import type { ApiClient } from '../../client.ts';
import { note } from '../../output.ts';

const POLL_MS = 100;

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
    if (task?.state === 'failed') throw new TaskOrgError('runtime_failed', `task ${task.name} failed: ${task.error}`, { hint: `task-org logs ${task.name}` });
    const words = task ? `${task.state}${task.error ? `: ${task.error}` : ''}` : 'waiting for the record';
    if (words !== said && process.stderr.isTTY) note(`${task?.name ?? id}: ${words}`);
    said = words;
    if (Date.now() > until) throw new TaskOrgError('timeout', `task ${task?.name ?? id} does not run after ${Math.round(timeoutMs / 1000)} s (${words})`, { hint: `task-org why ${task?.name ?? id}` });
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  }
}

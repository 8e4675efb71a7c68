import type { Command } from 'commander';
import { TaskOrgError } from '../../../model/errors.ts';
import type { ChangeView, SubmitView, TaskView } from '../../../services/api/schemas.ts';
import { examples, whole, withClient } from '../../command.ts';
import { print } from '../../output.ts';
import { readDocuments } from './documents.ts';
import { waitForTask } from './wait.ts';

export function applyCommand(program: Command): void {
  const command = program
    .command('apply')
    .description('make the tasks of a file so: create what is new, update what differs, start what is stopped')
    .requiredOption('-f, --file <file>', 'YAML (one or many documents) or JSON; - for standard input')
    .option('--wait', 'return when all run')
    .option('--wait-timeout <seconds>', 'for --wait', whole(1), 60);
  command.addHelpText(
    'after',
    examples('task-org apply -f web.yaml --wait', 'cat web.yaml db.yaml | task-org apply -f -'),
  );
  command.action(
    withClient(command, async (client, options: { file: string; wait?: boolean; waitTimeout: number }) => {
      const ids: string[] = [];
      for (const document of await readDocuments(options.file)) {
        const name = (document as { name?: string }).name ?? '';
        const existing = await client.get<TaskView>(`/v1/tasks/${encodeURIComponent(name)}`).catch((error: unknown) => {
          if (error instanceof TaskOrgError && error.code === 'not_found') return undefined;
          throw error;
        });
        let done = 'created';
        if (existing) {
          done = (await client.json<ChangeView>('PUT', `/v1/tasks/${existing.id}`, document)).changed
            ? 'updated'
            : 'unchanged';
          if (existing.desired === 'stopped') {
            await client.json('POST', `/v1/tasks/${existing.id}/start`);
            done = done === 'updated' ? 'updated and started' : 'started';
          }
        }
        const id = existing?.id ?? (await client.json<SubmitView>('POST', '/v1/tasks', document)).id;
        ids.push(id);
        print(`${name} ${done}`);
      }
      if (options.wait) for (const id of ids) await waitForTask(client, id, options.waitTimeout * 1000);
    }),
  );
}

import type { Command } from 'commander';
import { TaskOrgError } from '../../../model/errors.ts';
import type { SubmitView } from '../../../services/api/schemas.ts';
import { examples, withClient } from '../../command.ts';
import { print } from '../../output.ts';
import { readDocuments } from './documents.ts';
import { waitForTask } from './wait.ts';

export function applyCommand(program: Command): void {
  const command = program.command('apply').description('make the tasks of a file so: create what is new, update what is there')
    .requiredOption('-f, --file <file>', 'YAML (one or many documents) or JSON; - for standard input').option('--wait', 'return when all run').option('--wait-timeout <seconds>', 'for --wait', '60');
  command.addHelpText('after', examples('task-org apply -f config/tasks/web.yaml --wait'));
  command.action(withClient(command, async (client, options: { file: string; wait?: boolean; waitTimeout: string }) => {
    const ids: string[] = [];
    for (const document of await readDocuments(options.file)) {
      const name = (document as { name?: string }).name ?? '';
      const existing = await client.get<{ id: string }>(`/v1/tasks/${encodeURIComponent(name)}`).catch((error: unknown) => {
        if (error instanceof TaskOrgError && error.code === 'not_found') return undefined;
        throw error;
      });
      if (existing) await client.json('PUT', `/v1/tasks/${encodeURIComponent(existing.id)}`, document);
      const id = existing?.id ?? (await client.json<SubmitView>('POST', '/v1/tasks', document)).id;
      ids.push(id);
      print(`${name} ${existing ? 'updated' : 'created'}`);
    }
    if (options.wait) for (const id of ids) await waitForTask(client, id, Number(options.waitTimeout) * 1000);
  }));
}

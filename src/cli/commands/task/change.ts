import type { Command } from 'commander';
import { TaskOrgError } from '../../../model/errors.ts';
import type { ApiClient } from '../../client.ts';
import { examples, withClient } from '../../command.ts';
import { print, printError } from '../../output.ts';

/** stop, start, restart, rm: each takes several tasks, goes on after an error, and says with its exit code. */
export function changeCommands(program: Command): void {
  const verbs = [
    ['stop', 'stop tasks; their records and volumes stay'],
    ['start', 'run stopped tasks again'],
    ['restart', 'stop and start tasks where they are'],
  ] as const;
  for (const [verb, what] of verbs) {
    const command = program.command(`${verb} <task...>`).description(what);
    command.addHelpText('after', examples(`task-org ${verb} web`));
    command.action(
      withClient(command, (client, tasks: string[]) =>
        each(client, tasks, (t) => client.json('POST', `/v1/tasks/${encodeURIComponent(t)}/${verb}`)),
      ),
    );
  }
  const rm = program
    .command('rm <task...>')
    .description('remove tasks; named volumes stay')
    .option('-f, --force', 'also running ones');
  rm.addHelpText('after', examples('task-org rm web', 'task-org rm -f $(task-org ps -aq)'));
  rm.action(
    withClient(rm, (client, tasks: string[], options: { force?: boolean }) =>
      each(client, tasks, (t) =>
        client.json('DELETE', `/v1/tasks/${encodeURIComponent(t)}${options.force ? '?force=true' : ''}`),
      ),
    ),
  );
}

async function each(
  _client: ApiClient,
  tasks: readonly string[],
  act: (task: string) => Promise<unknown>,
): Promise<void> {
  let failed = 0;
  for (const task of tasks) {
    try {
      await act(task);
      print(task);
    } catch (error) {
      if (tasks.length === 1) throw error;
      printError(error);
      failed += 1;
    }
  }
  if (failed > 0) throw new TaskOrgError('refused', `${failed} of ${tasks.length} were not changed`);
}

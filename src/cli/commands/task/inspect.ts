import type { Command } from 'commander';
import { examples, withClient } from '../../command.ts';
import { print } from '../../output.ts';

export function inspectCommand(program: Command): void {
  const command = program.command('inspect <task...>').description('everything known of tasks, as JSON');
  command.addHelpText('after', examples('task-org inspect web'));
  command.action(
    withClient(command, async (client, tasks: string[]) => {
      print(
        JSON.stringify(await Promise.all(tasks.map((t) => client.get(`/v1/tasks/${encodeURIComponent(t)}`))), null, 2),
      );
    }),
  );
}

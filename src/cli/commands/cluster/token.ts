import type { Command } from 'commander';
import { TaskOrgError } from '../../../model/errors.ts';
import { parseDurationMs } from '../../../model/human-units.ts';
import { examples, whole, withClient } from '../../command.ts';
import { note, print } from '../../output.ts';

export function tokenCommand(program: Command): void {
  const command = program
    .command('token')
    .description('make a join token for another machine')
    .option('--expires <duration>', 'how long it is good for', '1h')
    .option('--uses <n>', 'how many machines may join with it', whole(1, 10_000), 1);
  command.addHelpText(
    'after',
    examples(
      'task-org token',
      'task-org token --expires 10m --uses 5',
      'task-org-peer --join "$(ssh node1 task-org token)"',
    ),
  );
  command.action(
    withClient(command, async (client, options: { expires: string; uses: number }) => {
      const expiresMs = parseDurationMs(options.expires);
      if (expiresMs === undefined)
        throw new TaskOrgError('invalid_input', `--expires ${options.expires}: expected a duration such as 10m or 1h`);
      const { token } = await client.json<{ token: string }>('POST', '/v1/tokens', { expiresMs, uses: options.uses });
      print(token);
      if (process.stdout.isTTY) note(`on the other machine: task-org-peer --join ${token}`);
    }),
  );
}

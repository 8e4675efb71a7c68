import type { Command } from 'commander';
import { TaskOrgError } from '../../../model/errors.ts';
import { decodeFrames, FRAME } from '../../../services/remote/stream-frames.ts';
import { examples, withClient } from '../../command.ts';

export function logsCommand(program: Command): void {
  const command = program.command('logs <task>').description('output of a task, wherever it runs')
    .option('-f, --follow', 'go on as it comes').option('-n, --tail <lines>', 'only the last lines').option('-t, --timestamps', 'with times').option('--slot <n>', 'which replica', '0');
  command.addHelpText('after', examples('task-org logs web', 'task-org logs -f --tail 20 web'));
  command.action(withClient(command, async (client, task: string, options: { follow?: boolean; tail?: string; timestamps?: boolean; slot: string }) => {
    const query = new URLSearchParams({ slot: options.slot });
    if (options.follow) query.set('follow', 'true');
    if (options.timestamps) query.set('timestamps', 'true');
    if (options.tail !== undefined && options.tail !== 'all') query.set('tail', options.tail);
    const response = await client.stream('GET', `/v1/tasks/${encodeURIComponent(task)}/logs?${query}`);
    for await (const frame of decodeFrames(response)) {
      if (frame.kind === FRAME.error) throw new TaskOrgError('runtime_failed', new TextDecoder().decode(frame.body));
      (frame.kind === FRAME.stderr ? process.stderr : process.stdout).write(frame.body);
    }
  }));
}

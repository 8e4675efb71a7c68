import type { Command } from 'commander';
import { LIMITS } from '../../../model/limits.ts';
import { decodeFrames, errorOfFrame, FRAME } from '../../../services/remote/stream-frames.ts';
import { examples, whole, withClient } from '../../command.ts';

export function logsCommand(program: Command): void {
  const command = program
    .command('logs <task>')
    .description('output of a task, wherever it runs')
    .option('-f, --follow', 'go on as it comes')
    .option('-n, --tail <lines>', 'only the last lines, or all', (text) =>
      text === 'all' ? undefined : whole(0, LIMITS.logsTailLines)(text),
    )
    .option('-t, --timestamps', 'with times')
    .option('--slot <n>', 'which replica', whole(0), 0);
  command.addHelpText('after', examples('task-org logs web', 'task-org logs -f --tail 20 web'));
  command.action(
    withClient(
      command,
      async (
        client,
        task: string,
        options: { follow?: boolean; tail?: number; timestamps?: boolean; slot: number },
      ) => {
        const query = new URLSearchParams({ slot: String(options.slot) });
        if (options.follow) query.set('follow', 'true');
        if (options.timestamps) query.set('timestamps', 'true');
        if (options.tail !== undefined) query.set('tail', String(options.tail));
        const response = await client.stream('GET', `/v1/tasks/${encodeURIComponent(task)}/logs?${query}`);
        for await (const frame of decodeFrames(response)) {
          if (frame.kind === FRAME.error) throw errorOfFrame(frame.body);
          (frame.kind === FRAME.stderr ? process.stderr : process.stdout).write(frame.body);
        }
      },
    ),
  );
}

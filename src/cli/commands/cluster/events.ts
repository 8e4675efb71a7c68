import { createInterface } from 'node:readline';
import type { Command } from 'commander';
import { TaskOrgError } from '../../../model/errors.ts';
import { parseDurationMs } from '../../../model/human-units.ts';
import type { EventView } from '../../../services/api/schemas.ts';
import { examples, formatOption, withClient } from '../../command.ts';
import { print, time } from '../../output.ts';

/** `--since`: a duration back from now ('10m') or a date. */
function since(text: string | undefined): number {
  if (text === undefined) return 0;
  const back = parseDurationMs(text);
  if (back !== undefined) return Date.now() - back;
  const at = Date.parse(text);
  if (Number.isNaN(at))
    throw new TaskOrgError('invalid_input', `--since ${text}: expected a duration such as 10m, or a date`);
  return at;
}

export function eventsCommand(program: Command): void {
  const command = program
    .command('events')
    .description('what happened in the cluster')
    .option('-f, --follow', 'go on as events come')
    .option('--since <when>', 'a duration back, or a date')
    .addOption(formatOption('table, or json (one object a line)'));
  command.addHelpText('after', examples('task-org events -f', 'task-org events --since 10m'));
  command.action(
    withClient(command, async (client, options: { follow?: boolean; since?: string; format?: string }) => {
      const show = (e: EventView): void =>
        print(
          options.format === 'json'
            ? JSON.stringify(e)
            : `${time(e.at)}  ${e.type.padEnd(16)} ${e.subject}  ${e.message}`,
        );
      const path = `/v1/events?since=${since(options.since)}`;
      if (!options.follow) {
        for (const e of (await client.get<{ items: EventView[] }>(path)).items) show(e);
        return;
      }
      const response = await client.stream('GET', `${path}&follow=true`);
      for await (const line of createInterface({ input: response }))
        if (line !== '') show(JSON.parse(line) as EventView);
    }),
  );
}

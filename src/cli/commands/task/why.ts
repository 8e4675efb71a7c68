import type { Command } from 'commander';
import type { WhyView } from '../../../services/api/schemas.ts';
import { examples, formatOption, withClient } from '../../command.ts';
import { print, time } from '../../output.ts';

export function whyCommand(program: Command): void {
  const command = program
    .command('why <task>')
    .description('the recorded decisions: who suspected, who confirmed, what was chosen and why')
    .addOption(formatOption('text, or json'));
  command.addHelpText('after', examples('task-org why web', 'task-org why web --format json'));
  command.action(
    withClient(command, async (client, task: string, options: { format?: string }) => {
      const why = await client.get<WhyView>(`/v1/tasks/${encodeURIComponent(task)}/why`);
      if (options.format === 'json') return print(JSON.stringify(why));
      print(`${why.name}: ${why.now}`);
      for (const r of why.rejections) print(`  - ${r}`);
      for (const d of why.decisions) {
        print(
          `${time(d.at)}  #${d.index}  ${d.what}${d.node ? ` ${d.what === 'assigned' ? 'to' : 'on'} ${d.node}` : ''}${d.generation ? `, generation ${d.generation}` : ''} (${d.slot < 0 ? 'whole task' : `slot ${d.slot}`}), by ${d.by}`,
        );
        if (d.reason) print(`    ${d.reason}`);
        for (const e of d.evidence) print(`    - ${e}`);
      }
    }),
  );
}

import type { Command } from 'commander';
import { examples, listOptions, withClient } from '../../command.ts';
import { printList, type Listing, type ListOptions } from '../../output.ts';

export function configCommands(program: Command): void {
  const config = program.command('config').description("this machine's settings");
  const command = listOptions(config.command('show').description('each value and where it came from'));
  command.addHelpText('after', examples('task-org config show', 'task-org config show --filter origin=flag'));
  command.action(withClient(command, async (client, options: ListOptions) => {
    const listing = await client.get<Listing<{ key: string; value: string; origin: string }>>('/v1/config');
    printList(listing, [{ title: 'KEY', value: (r) => r.key }, { title: 'VALUE', value: (r) => r.value, width: 80 }, { title: 'ORIGIN', value: (r) => r.origin }], (r) => r.key, options);
  }));
}

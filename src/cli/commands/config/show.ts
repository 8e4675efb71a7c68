import type { Command } from 'commander';
import { examples, withClient } from '../../command.ts';
import { printList, type Listing } from '../../output.ts';

export function configCommands(program: Command): void {
  const config = program.command('config').description("this machine's settings");
  const command = config.command('show').description('each value and where it came from').option('--format <format>', 'table, or json');
  command.addHelpText('after', examples('task-org config show'));
  command.action(withClient(command, async (client, options: { format?: string }) => {
    const listing = await client.get<Listing<{ key: string; value: string; origin: string }>>('/v1/config');
    printList(listing, [{ title: 'KEY', value: (r) => r.key }, { title: 'VALUE', value: (r) => r.value, width: 80 }, { title: 'ORIGIN', value: (r) => r.origin }], (r) => r.key, options);
  }));
}

import type { Command } from 'commander';
import { examples, withClient } from '../../command.ts';
import { print } from '../../output.ts';

export function inspectCommand(node: Command): void {
  const command = node.command('inspect <node...>').description('everything known of machines, as JSON');
  command.addHelpText('after', examples('task-org node inspect node2'));
  command.action(
    withClient(command, async (client, nodes: string[]) => {
      const views = await Promise.all(nodes.map((n) => client.get(`/v1/nodes/${encodeURIComponent(n)}`)));
      print(JSON.stringify(views, null, 2));
    }),
  );
}

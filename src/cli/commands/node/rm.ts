import type { Command } from 'commander';
import { examples, withClient } from '../../command.ts';
import { print } from '../../output.ts';

export function rmCommand(node: Command): void {
  const command = node
    .command('rm <node...>')
    .description('strike machines from the cluster; the cluster secret is changed')
    .option('--force', 'also a machine that is alive');
  command.addHelpText('after', examples('task-org node rm node2', 'task-org node rm --force node2'));
  command.action(
    withClient(command, async (client, nodes: string[], options: { force?: boolean }) => {
      for (const n of nodes) {
        await client.json('DELETE', `/v1/nodes/${encodeURIComponent(n)}${options.force ? '?force=true' : ''}`);
        print(n);
      }
    }),
  );
}

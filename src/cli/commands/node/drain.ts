import type { Command } from 'commander';
import { examples, withClient } from '../../command.ts';
import { print } from '../../output.ts';

export function drainCommand(node: Command): void {
  for (const [verb, what] of [
    ['drain', 'move its tasks away and give it nothing new'],
    ['undrain', 'let it run tasks again'],
  ] as const) {
    const command = node.command(`${verb} <node...>`).description(what);
    command.addHelpText('after', examples(`task-org node ${verb} node2`));
    command.action(
      withClient(command, async (client, nodes: string[]) => {
        for (const n of nodes) {
          await client.json('POST', `/v1/nodes/${encodeURIComponent(n)}/${verb}`);
          print(n);
        }
      }),
    );
  }
}

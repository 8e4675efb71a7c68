import type { Command } from 'commander';
import type { NodeView } from '../../../services/api/schemas.ts';
import { examples, listOptions, withClient } from '../../command.ts';
import { bytes, type Listing, type ListOptions, printList, shortId } from '../../output.ts';

export function lsCommand(node: Command): void {
  const command = listOptions(node.command('ls').description('list machines'));
  command.addHelpText(
    'after',
    examples('task-org node ls', 'task-org node ls --filter status=dead', 'task-org node ls --format json'),
  );
  command.action(
    withClient(command, async (client, options: ListOptions) => {
      const listing = await client.get<Listing<NodeView>>('/v1/nodes');
      printList(
        listing,
        [
          { title: 'ID', value: (n) => (options.trunc === false ? n.id : shortId(n.id)) },
          { title: 'NAME', value: (n) => n.name, width: 32 },
          { title: 'STATUS', value: (n) => n.status },
          { title: 'ROLE', value: (n) => n.role },
          { title: 'AVAILABILITY', value: (n) => n.availability },
          {
            title: 'ADDRESS',
            value: (n) => (options.trunc === false ? n.address : n.address.replace(/\/p2p\/.*/, '')),
            width: 48,
          },
          { title: 'CPUS', value: (n) => String(n.cpus) },
          { title: 'MEMORY', value: (n) => bytes(n.memoryBytes) },
          { title: 'COPIES', value: (n) => String(n.copies) },
          { title: 'VERSION', value: (n) => n.version },
        ],
        (n) => n.id,
        options,
      );
    }),
  );
}

import type { Command } from 'commander';
import type { TaskView } from '../../../services/api/schemas.ts';
import { examples, listOptions, withClient } from '../../command.ts';
import { age, type Listing, type ListOptions, printList, shortId } from '../../output.ts';

const ports = (t: TaskView): string =>
  [...new Set(t.slots.flatMap((s) => s.ports.map((p) => `${p.host}->${p.container}/${p.protocol}`)))].join(', ');

export function psCommand(program: Command): void {
  const command = listOptions(
    program.command('ps').description('list tasks').option('-a, --all', 'also stopped and ended ones'),
  );
  command.addHelpText(
    'after',
    examples('task-org ps', 'task-org ps -a --filter state=failed', 'task-org ps -q', 'task-org ps --format json'),
  );
  command.action(
    withClient(command, async (client, options: ListOptions & { all?: boolean }) => {
      const listing = await client.get<Listing<TaskView>>(`/v1/tasks?all=${options.all === true}`);
      printList(
        listing,
        [
          { title: 'ID', value: (t) => (options.trunc === false ? t.id : shortId(t.id)) },
          { title: 'NAME', value: (t) => t.name, width: 32 },
          { title: 'IMAGE OR COMMAND', value: (t) => t.image || t.command.join(' '), width: 36 },
          { title: 'NODE', value: (t) => t.node, width: 28 },
          {
            title: 'STATE',
            value: (t) =>
              t.slots.length > 1
                ? `${t.state} ${t.slots.filter((s) => s.state === 'running').length}/${t.slots.length}`
                : t.state,
          },
          { title: 'STARTED', value: (t) => age(t.startedAt) },
          { title: 'GENERATION', value: (t) => t.generation },
          { title: 'PORTS', value: ports, width: 30 },
          { title: 'ERROR', value: (t) => t.error, width: 48 },
        ],
        (t) => t.id,
        options,
      );
    }),
  );
}

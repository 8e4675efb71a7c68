import type { Command } from 'commander';
import type { SubmitView } from '../../../services/api/schemas.ts';
import { examples, withClient } from '../../command.ts';
import { print } from '../../output.ts';
import { readDocuments } from './documents.ts';

export function publishCommand(program: Command): void {
  const command = program.command('publish').description('put a task straight onto the gossip topic; it is taken up as soon as there is a master')
    .requiredOption('-f, --file <file>', 'YAML or JSON; - for standard input');
  command.addHelpText('after', examples('task-org publish -f task.yaml'));
  command.action(withClient(command, async (client, options: { file: string }) => {
    for (const document of await readDocuments(options.file)) print((await client.json<SubmitView>('POST', '/v1/publish', document)).id);
  }));
}

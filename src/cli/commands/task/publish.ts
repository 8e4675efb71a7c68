import type { Command } from 'commander';
import type { SubmitView } from '../../../services/api/schemas.ts';
import { examples, whole, withClient } from '../../command.ts';
import { print } from '../../output.ts';
import { readDocuments } from './documents.ts';
import { waitForVerdict } from './wait.ts';

export function publishCommand(program: Command): void {
  const command = program
    .command('publish')
    .description('put a task straight onto the gossip topic; it is taken up as soon as there is a master')
    .requiredOption('-f, --file <file>', 'YAML or JSON; - for standard input')
    .option('--wait', 'return when a master has accepted it')
    .option('--wait-timeout <seconds>', 'for --wait', whole(1), 60);
  command.addHelpText('after', examples('task-org publish -f task.yaml', 'task-org publish --wait -f task.yaml'));
  command.action(
    withClient(command, async (client, options: { file: string; wait?: boolean; waitTimeout: number }) => {
      const published: SubmitView[] = [];
      for (const document of await readDocuments(options.file)) {
        const submitted = await client.json<SubmitView>('POST', '/v1/publish', document);
        published.push(submitted);
        print(submitted.id);
      }
      if (options.wait)
        for (const submitted of published) await waitForVerdict(client, submitted, options.waitTimeout * 1000);
    }),
  );
}

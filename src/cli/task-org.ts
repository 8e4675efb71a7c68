#!/usr/bin/env node
import { Command, CommanderError } from 'commander';
import { VERSION } from '../model/version.ts';
import { examples, finish } from './command.ts';
import { eventsCommand } from './commands/cluster/events.ts';
import { clusterCommands } from './commands/cluster/status.ts';
import { tokenCommand } from './commands/cluster/token.ts';
import { completionCommand } from './commands/completion.ts';
import { configCommands } from './commands/config/show.ts';
import { nodeCommands } from './commands/node/index.ts';
import { scenarioCommands } from './commands/scenario/run.ts';
import { taskCommands } from './commands/task/index.ts';
import { endWithReader, printError } from './output.ts';

endWithReader();

const program = new Command('task-org')
  .description('Runs tasks on a cluster of peers, and brings them back elsewhere when a machine dies.')
  .version(VERSION)
  .option('--host <host>', 'peer to talk to: unix:/path/api.sock or http://host:port (TASKORG_HOST)')
  .option('--data-dir <dir>', "data directory of this machine's peer (TASKORG_DATA_DIR; default ~/.task-org)")
  .enablePositionalOptions()
  .configureOutput({ outputError: (text, write) => write(text.replace(/^error: /, 'Error: ')) })
  .exitOverride()
  .addHelpText(
    'after',
    examples(
      'task-org run --name web -p 8080:80 nginx:1',
      'task-org ps',
      'task-org logs -f web',
      'task-org why web',
      'task-org token    # to join another machine',
    ),
  );

for (const add of [
  nodeCommands,
  taskCommands,
  clusterCommands,
  tokenCommand,
  eventsCommand,
  configCommands,
  scenarioCommands,
  completionCommand,
])
  add(program);

finish(program, 'task-org');

program.parseAsync(process.argv).catch((error: unknown) => {
  // Commander has said what is wrong already; help and version end well.
  process.exitCode =
    error instanceof CommanderError
      ? error.exitCode === 0 || error.code === 'commander.help'
        ? error.exitCode
        : 2
      : printError(error);
});

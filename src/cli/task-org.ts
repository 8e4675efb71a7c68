#!/usr/bin/env node
import { Command } from 'commander';
import { VERSION } from '../model/version.ts';
import { clusterCommands } from './commands/cluster/status.ts';
import { completionCommand } from './commands/completion.ts';
import { configCommands } from './commands/config/show.ts';
import { eventsCommand } from './commands/cluster/events.ts';
import { tokenCommand } from './commands/cluster/token.ts';
import { nodeCommands } from './commands/node/index.ts';
import { scenarioCommands } from './commands/scenario/run.ts';
import { taskCommands } from './commands/task/index.ts';
import { printError } from './output.ts';

const program = new Command('task-org')
  .description('Runs tasks on a cluster of peers, and brings them back elsewhere when a machine dies.')
  .version(VERSION)
  .option('--host <host>', 'peer to talk to: unix:/path/api.sock or http://host:port (TASKORG_HOST)')
  .option('--data-dir <dir>', "data directory of this machine's peer (TASKORG_DATA_DIR; default ~/.task-org)")
  .enablePositionalOptions()
  .showHelpAfterError('(task-org --help lists the commands)');

for (const add of [nodeCommands, taskCommands, clusterCommands, tokenCommand, eventsCommand, configCommands, scenarioCommands, completionCommand]) add(program);

program.parseAsync(process.argv).catch((error: unknown) => {
  process.exitCode = printError(error);
});

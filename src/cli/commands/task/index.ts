import type { Command } from 'commander';
import { applyCommand } from './apply.ts';
import { changeCommands } from './change.ts';
import { execCommand } from './exec.ts';
import { inspectCommand } from './inspect.ts';
import { logsCommand } from './logs.ts';
import { psCommand } from './ps.ts';
import { publishCommand } from './publish.ts';
import { runCommand } from './run.ts';
import { statsCommand } from './stats.ts';
import { whyCommand } from './why.ts';

export function taskCommands(program: Command): void {
  for (const add of [
    runCommand,
    applyCommand,
    publishCommand,
    psCommand,
    inspectCommand,
    logsCommand,
    execCommand,
    changeCommands,
    statsCommand,
    whyCommand,
  ])
    add(program);
}

import type { Command } from 'commander';
import { drainCommand } from './drain.ts';
import { inspectCommand } from './inspect.ts';
import { lsCommand } from './ls.ts';
import { rmCommand } from './rm.ts';

export function nodeCommands(program: Command): void {
  const node = program.command('node').description('machines of the cluster');
  for (const add of [lsCommand, inspectCommand, drainCommand, rmCommand]) add(node);
}

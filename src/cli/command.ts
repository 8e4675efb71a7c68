import type { Command } from 'commander';
import { ApiClient, resolveTarget } from './client.ts';
import { printError } from './output.ts';

/** Options every command understands. */
export interface GlobalOptions {
  readonly host?: string;
  readonly dataDir?: string;
}

/** Runs an action with a client for the peer the flags name; errors become words and an exit code. */
export function withClient<A extends unknown[]>(command: Command, action: (client: ApiClient, ...args: A) => Promise<void>): (...args: A) => Promise<void> {
  return async (...args) => {
    try {
      await action(new ApiClient(resolveTarget(command.optsWithGlobals<GlobalOptions>())), ...args);
    } catch (error) {
      process.exitCode = printError(error);
    }
  };
}

export const collect = (value: string, before: readonly string[]): string[] => [...before, value];

/** The options of every listing. */
export function listOptions(command: Command): Command {
  return command
    .option('--format <format>', 'table, or json (one object a line)')
    .option('-q, --quiet', 'only ids')
    .option('-f, --filter <key=value>', 'only rows where it holds; may be repeated', collect, [])
    .option('--no-trunc', 'do not cut long fields');
}

export const examples = (...lines: string[]): string => `\nExamples:\n${lines.map((l) => `  $ ${l}`).join('\n')}`;

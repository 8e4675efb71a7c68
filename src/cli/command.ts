import { type Command, InvalidArgumentError, Option } from 'commander';
import { TaskOrgError } from '../model/errors.ts';
import { ApiClient, resolveTarget } from './client.ts';
import { printError } from './output.ts';

/** Options every command understands. */
export interface GlobalOptions {
  readonly host?: string;
  readonly dataDir?: string;
}

/** Runs an action with a client for the peer the flags name; errors become words and an exit code. */
export function withClient<A extends unknown[]>(
  command: Command,
  action: (client: ApiClient, ...args: A) => Promise<void>,
): (...args: A) => Promise<void> {
  return async (...args) => {
    try {
      await action(new ApiClient(resolveTarget(command.optsWithGlobals<GlobalOptions>())), ...args);
    } catch (error) {
      process.exitCode = printError(error);
    }
  };
}

export const formatOption = (description: string): Option =>
  new Option('--format <format>', description).choices(['table', 'json']).default('table', 'table');

/** Parser of a whole number within bounds, for commander. */
export const whole =
  (minimum: number, maximum = Number.MAX_SAFE_INTEGER) =>
  (text: string): number => {
    const n = /^\d+$/.test(text) ? Number(text) : Number.NaN;
    if (!(n >= minimum && n <= maximum))
      throw new InvalidArgumentError(
        `expected a whole number from ${minimum}${maximum === Number.MAX_SAFE_INTEGER ? '' : ` to ${maximum}`}`,
      );
    return n;
  };

/** NAME=VALUE pairs of a repeated option. */
export function pairs(option: string, texts: readonly string[]): Record<string, string> {
  return Object.fromEntries(
    texts.map((text) => {
      const eq = text.indexOf('=');
      if (eq < 1) throw new TaskOrgError('invalid_input', `${option} ${text}: expected name=value`);
      return [text.slice(0, eq), text.slice(eq + 1)];
    }),
  );
}

/** What every command has: --host and --data-dir also after its name, the way to its help in errors, exit code 2 for wrong input. */
export function finish(command: Command, path: string): void {
  command.showHelpAfterError(`Hint: ${path} --help`);
  for (const sub of command.commands) finish(sub, `${path} ${sub.name()}`);
  if (command.commands.length > 0 || command.parent === null) return;
  for (const flags of ['--host <host>', '--data-dir <dir>']) command.addOption(new Option(flags).hideHelp());
}

export const collect = (value: string, before: readonly string[]): string[] => [...before, value];

/** The options of every listing. */
export function listOptions(command: Command): Command {
  return command
    .addOption(formatOption('table, or json (one object a line)'))
    .option('-q, --quiet', 'only ids')
    .option('-f, --filter <key=value>', 'only rows where it holds; may be repeated', collect, [])
    .option('--no-trunc', 'do not cut long fields');
}

export const examples = (...lines: string[]): string => `\nExamples:\n${lines.map((l) => `  $ ${l}`).join('\n')}`;

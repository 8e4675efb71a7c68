import { Argument, type Command } from 'commander';
import { examples } from '../command.ts';
import { print } from '../output.ts';

/** Every word a shell may offer after the words typed so far. */
function words(program: Command, path: readonly string[]): string[] {
  let at: Command | undefined = program;
  for (const word of path) at = at?.commands.find((c) => c.name() === word) ?? at;
  return at
    ? [...at.commands.map((c) => c.name()), ...at.options.map((o) => o.long ?? '').filter(Boolean), '--help']
    : [];
}

const SCRIPTS: Record<string, string> = {
  bash: `_task_org() {
  local cur=\${COMP_WORDS[COMP_CWORD]}
  COMPREPLY=($(compgen -W "$(task-org __complete "\${COMP_WORDS[@]:1:COMP_CWORD-1}" 2>/dev/null)" -- "$cur"))
}
complete -o default -F _task_org task-org`,
  zsh: `#compdef task-org
_task_org() { compadd -- $(task-org __complete "\${words[@]:1:CURRENT-2}" 2>/dev/null) }
compdef _task_org task-org`,
  fish: `complete -c task-org -f -a '(task-org __complete (commandline -opc)[2..-1] 2>/dev/null)'`,
};

export function completionCommand(program: Command): void {
  const command = program
    .command('completion')
    .description('shell completion script')
    .addArgument(new Argument('<shell>').choices(['bash', 'zsh', 'fish']));
  command.addHelpText('after', examples('source <(task-org completion bash)'));
  command.action((shell: string) => print(SCRIPTS[shell] ?? ''));
  program
    .command('__complete [words...]', { hidden: true })
    .passThroughOptions()
    .allowUnknownOption()
    .action((typed: string[]) =>
      print(
        words(
          program,
          typed.filter((w) => !w.startsWith('-')),
        ).join('\n'),
      ),
    );
}

import { type Command, Option } from 'commander';
import { scenarioMain } from '../../../scenario/main.ts';
import { STAGES } from '../../../scenario/stages.ts';
import { simulatedStage } from '../../../sim/simulated-stage.ts';
import { examples } from '../../command.ts';

interface RunOptions {
  simulated?: boolean;
  processes?: boolean;
  hosts?: boolean;
  runtime?: string;
  seed?: string;
  dir?: string;
  times?: string;
  keep?: boolean;
  format?: string;
}

export function scenarioCommands(program: Command): void {
  const scenario = program
    .command('scenario')
    .description('chaos scenarios: machines are killed, and the run says what held');
  const stages = new Map([...STAGES, ['simulated', simulatedStage] as const]);
  const command = scenario
    .command('run <scenario...>')
    .description('play scenarios, by name or file')
    .option('--simulated', 'on virtual time')
    .option('--processes', 'as processes of this machine (default)')
    .option('--hosts', 'on hosts made here, each with its own network and engine (root)')
    .option('--runtime <runtime>', "docker or process, instead of the scenario's own")
    .option('--seed <text>', 'of every random choice')
    .option('--dir <dir>', 'disks and logs')
    .addOption(
      new Option(
        '--times <mode>',
        'limits of time are judged, or only shown where the machine is short of CPU',
      ).choices(['judged', 'shown']),
    )
    .option('--keep', 'leave everything as it is at the end')
    .addOption(new Option('--format <format>', 'text, or json').choices(['text', 'json']));
  command.addHelpText(
    'after',
    examples(
      'task-org scenario run kill-one',
      'task-org scenario run --simulated --seed 7 rolling-kill',
      'task-org scenario run --hosts scenarios/engine-crash.yaml',
    ),
  );
  command.action(async (names: string[], o: RunOptions) => {
    const stage = o.simulated ? 'simulated' : o.hosts ? 'hosts' : 'processes';
    const argv = ['run', ...names, '--stage', stage];
    // Peers of one machine share its engine, so only processes can die with their peer.
    const runtime = o.runtime ?? (stage === 'hosts' ? undefined : 'process');
    for (const [flag, value] of [
      ['--runtime', runtime],
      ['--seed', o.seed],
      ['--dir', o.dir],
      ['--times', o.times],
    ] as const)
      if (value !== undefined) argv.push(flag, value);
    if (o.keep) argv.push('--keep');
    if (o.format === 'json') argv.push('--json');
    process.exitCode = await scenarioMain(argv, { stages });
  });
  const ls = scenario.command('ls').description('list the scenarios that come with it');
  ls.addHelpText('after', examples('task-org scenario ls'));
  ls.action(async () => {
    process.exitCode = await scenarioMain(['list'], { stages });
  });
}

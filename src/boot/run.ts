import { raisePriority } from '../adapters/host/priority.ts';
import { EXIT_CONFIGURATION } from '../model/boot-protocol.ts';
import { TaskOrgError } from '../model/errors.ts';
import { createBootLog } from './log.ts';
import { parseBootArguments } from './options.ts';
import { Supervisor } from './supervisor.ts';

/** Runs boot in this process until the agent has ended for good. Resolves to the exit code. */
export async function runBoot(argv: readonly string[]): Promise<number> {
  const log = createBootLog();
  let supervisor: Supervisor;
  try {
    supervisor = new Supervisor(parseBootArguments(argv), log);
  } catch (error) {
    const hint = error instanceof TaskOrgError && error.hint !== undefined ? `\n  hint: ${error.hint}` : '';
    process.stderr.write(`task-org-peer: ${error instanceof Error ? error.message : String(error)}${hint}\n`);
    return EXIT_CONFIGURATION;
  }
  // A supervisor that dies of its own fault would leave the machine to its guard.
  process.on('uncaughtException', (error) => log.error({ error: error.stack }, 'fault in boot'));
  process.on('unhandledRejection', (error) => log.error({ error: String(error) }, 'fault in boot'));
  for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP'] as const) {
    process.on(signal, () => supervisor.stop(signal === 'SIGHUP' ? 'SIGTERM' : signal));
  }
  raisePriority();
  await supervisor.start();
  const code = await supervisor.finished;
  await supervisor.close();
  return code;
}

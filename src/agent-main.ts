import { raisePriority } from './adapters/host/priority.ts';
import { startAgent } from './agent.ts';
import { EXIT_CONFIGURATION } from './model/boot-protocol.ts';
import { TaskOrgError } from './model/errors.ts';

// The agent's process, started by boot. Errors that a restart cannot mend end with EXIT_CONFIGURATION, so that boot gives up.

const FINAL = new Set([
  'invalid_input',
  'data_dir_locked',
  'data_dir_unusable',
  'token_expired',
  'token_invalid',
  'token_other_cluster',
  'port_in_use',
  'log_lost',
  'no_runtime',
  'wrong_version',
]);

function report(error: unknown): number {
  if (!(error instanceof TaskOrgError)) {
    process.stderr.write(`task-org-peer: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}\n`);
    return 1;
  }
  process.stderr.write(`task-org-peer: ${error.message}\n`);
  for (const issue of error.details)
    process.stderr.write(`  ${issue.path === '' ? '' : `${issue.path}: `}${issue.message}\n`);
  if (error.hint) process.stderr.write(`  hint: ${error.hint}\n`);
  return FINAL.has(error.code) ? EXIT_CONFIGURATION : 1;
}

process.on('unhandledRejection', (error) => {
  process.stderr.write(`task-org-peer: fault in the agent: ${error instanceof Error ? error.stack : String(error)}\n`);
  process.exit(1);
});

raisePriority();
try {
  const agent = await startAgent(process.argv.slice(2), process.env);
  const end = (): void => void agent.stop();
  process.once('SIGTERM', end);
  process.once('SIGINT', end);
  const code = await agent.finished;
  // After a fault nothing more may be said or acknowledged: the others find out as they do of any death.
  if (code === 0) await Promise.race([agent.stop(), new Promise((resolve) => setTimeout(resolve, 5000).unref())]);
  process.exit(code);
} catch (error) {
  process.exit(report(error));
}

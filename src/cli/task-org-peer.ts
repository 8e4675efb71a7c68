#!/usr/bin/env node
// The peer's program: boot in this process, the agent as its child. Kept free of imports that boot does not need, since this
// process lives as long as the machine and is to stay small.

const REQUIRED_NODE = 22;
const major = Number(process.versions.node.split('.')[0]);
if (major < REQUIRED_NODE) {
  process.stderr.write(
    `task-org-peer needs Node ${REQUIRED_NODE} or newer; this is ${process.version}.\nInstall a newer Node, or run it from a clone with npx, which brings its own.\n`,
  );
  process.exit(78);
}

const argv = process.argv.slice(2);
if (argv.includes('--help') || argv.includes('-h')) {
  const { PEER_USAGE } = await import('../agent/settings.ts');
  process.stdout.write(PEER_USAGE);
  process.exit(0);
}
if (argv.includes('--version')) {
  const { VERSION } = await import('../model/version.ts');
  process.stdout.write(`${VERSION}\n`);
  process.exit(0);
}

const { homedir } = await import('node:os');
const { join, resolve } = await import('node:path');
const { runBoot } = await import('../boot/run.ts');

/** The one setting boot needs too; the agent checks all of them. */
function dataDir(): string {
  const at = argv.findIndex((a) => a === '--data-dir' || a.startsWith('--data-dir='));
  const flag = at === -1 ? undefined : argv[at]?.includes('=') ? argv[at]?.slice('--data-dir='.length) : argv[at + 1];
  return resolve(flag || process.env.TASKORG_DATA_DIR || join(homedir(), '.task-org'));
}

const agentArgs = argv.filter(
  (a, i) => a !== '--data-dir' && !a.startsWith('--data-dir=') && argv[i - 1] !== '--data-dir',
);
process.exitCode = await runBoot([
  '--data-dir',
  dataDir(),
  '--agent-node-arg',
  '--max-semi-space-size=16',
  '--',
  '--data-dir',
  dataDir(),
  ...agentArgs,
]);
process.exit();

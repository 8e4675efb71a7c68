import { readFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { type ConfigOrigin, type PeerSettings, resolveConfig } from '../model/config.ts';
import { TaskOrgError } from '../model/errors.ts';

/**
 * `1`: this machine takes every lease of an exclusive copy for valid for an hour, so that neither agent nor boot nor guard ends
 * it when it expires. Two copies of one exclusive task may then run. No setting, on purpose, and in no help: only the
 * campaign sets it, to show that its witness sees such copies (src/campaign).
 */
export const NO_ENFORCEMENT = 'TASKORG_UNSAFE_NO_ENFORCEMENT';

/** Environment names that other programs of task-org read. */
const OTHER_ENV = ['TASKORG_HOST', 'TASKORG_TEST_DOCKER', 'TASKORG_NODE_ARGS', NO_ENFORCEMENT];

export interface LoadedSettings {
  readonly settings: PeerSettings;
  readonly origins: Readonly<Record<string, ConfigOrigin>>;
  readonly dataDir: string;
  /** False only in proofs: see NO_ENFORCEMENT. */
  readonly enforcesLeases: boolean;
}

export const PEER_USAGE = `Usage: task-org-peer [options]

Runs this machine's peer: the agent and its supervisor. Founds a cluster unless told to join one.

Options:
  --join TOKEN           join token of a cluster (task-org token, on any of its machines)
  --data-dir DIR         identity, log and state (default ~/.task-org; TASKORG_DATA_DIR)
  --name NAME            name of this machine in tables (default: its host name)
  --config FILE          settings as YAML or JSON
  --runtime KIND         auto | docker | process | none (default auto)
  --listen MULTIADDR     address to listen on, may be repeated (default /ip4/0.0.0.0/tcp/7420)
  --label k=v            label for placement, may be repeated; zone=... spreads voters
  --priority N           rank: the highest healthy voter becomes master
  --witness              votes, runs nothing
  --no-mdns              do not look for peers on the LAN
  --log-level LEVEL      error | warn | info | debug
  --set key=value        any other setting (task-org config show lists them)
  --version, --help

Every setting can stand in the file, or as TASKORG_NAME in the environment; flags go first.

Examples:
  $ task-org-peer                                  first machine
  $ task-org-peer --join torg1_...                 the others
  $ task-org-peer --data-dir /srv/task-org --label zone=attic --runtime docker
`;

/** Flags, environment, file, defaults. Throws invalid_input naming every wrong value and where it stands. */
export function loadSettings(
  argv: readonly string[],
  env: Readonly<Record<string, string | undefined>>,
): LoadedSettings {
  const { values } = parse(argv);
  const flags: Record<string, unknown> = {
    join: values.join,
    dataDir: values['data-dir'],
    name: values.name,
    runtime: values.runtime,
    listen: values.listen,
    labels: values.label,
    priority: values.priority,
    witness: values.witness,
    mdns: values['no-mdns'] === true ? false : undefined,
    logLevel: values['log-level'],
  };
  for (const pair of values.set ?? []) {
    const eq = pair.indexOf('=');
    if (eq < 1) throw new TaskOrgError('invalid_input', `--set ${pair}: expected key=value`);
    flags[pair.slice(0, eq)] = pair.slice(eq + 1);
  }
  const path = values.config;
  const file = path === undefined ? undefined : { path, text: readConfig(path) };
  const resolved = resolveConfig({ flags, env, ...(file ? { file } : {}), otherEnv: OTHER_ENV });
  if (!resolved.ok)
    throw new TaskOrgError('invalid_input', 'the settings are not as expected', {
      details: resolved.issues,
      hint: 'task-org-peer --help lists the flags',
    });
  const dataDir = resolve(resolved.config.dataDir === '' ? join(homedir(), '.task-org') : resolved.config.dataDir);
  return { settings: resolved.config, origins: resolved.origins, dataDir, enforcesLeases: env[NO_ENFORCEMENT] !== '1' };
}

function parse(argv: readonly string[]) {
  try {
    return parseArgs({
      args: [...argv],
      strict: true,
      allowPositionals: false,
      options: {
        join: { type: 'string' },
        'data-dir': { type: 'string' },
        name: { type: 'string' },
        config: { type: 'string' },
        runtime: { type: 'string' },
        listen: { type: 'string', multiple: true },
        label: { type: 'string', multiple: true },
        priority: { type: 'string' },
        witness: { type: 'boolean' },
        'no-mdns': { type: 'boolean' },
        'log-level': { type: 'string' },
        set: { type: 'string', multiple: true },
      },
    });
  } catch (cause) {
    throw new TaskOrgError('invalid_input', (cause as Error).message, {
      cause,
      hint: 'task-org-peer --help lists the flags',
    });
  }
}

function readConfig(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch (cause) {
    throw new TaskOrgError('invalid_input', `cannot read the settings file ${path}: ${(cause as Error).message}`, {
      cause,
    });
  }
}

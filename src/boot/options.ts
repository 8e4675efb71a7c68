import { resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

export interface BootOptions {
  /** The peer's data directory; boot's own files stand in `run/` below it. */
  readonly dataDir: string;
  /** The agent's program. */
  readonly agentPath: string;
  readonly agentArgs: readonly string[];
  /** Node's own flags for the agent. */
  readonly agentNodeArgs: readonly string[];
  /** UDP port of the probe responder; 0 = any. */
  readonly probePort: number;
  readonly probeHost: string;
  /** Longest time from SIGTERM to SIGKILL of the agent. */
  readonly stopGraceMs: number;
}

export const BOOT_USAGE = `usage: boot --data-dir DIR [--agent FILE] [--agent-node-arg ARG]... [--probe-port N] [--probe-host IP]
            [--stop-grace-ms N] [-- AGENT-ARGUMENT...]`;

/** Throws Error with a message for people. */
export function parseBootArguments(argv: readonly string[]): BootOptions {
  const end = argv.indexOf('--');
  const own = end === -1 ? argv : argv.slice(0, end);
  const values = new Map<string, string>();
  const agentNodeArgs: string[] = [];
  for (let i = 0; i < own.length; i++) {
    const [name = '', inline] = (own[i] ?? '').split(/=(.*)/s);
    if (
      !['--data-dir', '--agent', '--agent-node-arg', '--probe-port', '--probe-host', '--stop-grace-ms'].includes(name)
    ) {
      throw new Error(`unknown argument '${own[i]}'\n${BOOT_USAGE}`);
    }
    const value = inline ?? own[++i];
    if (value === undefined) throw new Error(`${name} needs a value\n${BOOT_USAGE}`);
    if (name === '--agent-node-arg') agentNodeArgs.push(value);
    else values.set(name, value);
  }
  const number = (name: string, fallback: number, max: number): number => {
    const text = values.get(name);
    const n = text === undefined ? fallback : Number(text);
    if (!Number.isInteger(n) || n < 0 || n > max)
      throw new Error(`${name} must be a whole number from 0 to ${max}, not '${text}'`);
    return n;
  };
  const dataDir = values.get('--data-dir');
  if (dataDir === undefined || dataDir === '') throw new Error(`--data-dir is missing\n${BOOT_USAGE}`);
  return {
    dataDir: resolve(dataDir),
    agentPath: resolve(values.get('--agent') ?? fileURLToPath(new URL('./agent.js', import.meta.url))),
    agentArgs: end === -1 ? [] : argv.slice(end + 1),
    agentNodeArgs,
    probePort: number('--probe-port', 0, 65_535),
    probeHost: values.get('--probe-host') ?? '',
    stopGraceMs: number('--stop-grace-ms', 15_000, 600_000),
  };
}

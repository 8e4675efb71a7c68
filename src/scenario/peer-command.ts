import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { TaskOrgError } from '../model/errors.ts';

// How a peer is started, in one place.

export interface PeerStart {
  readonly dataDir: string;
  readonly name: string;
  /** Undefined: the first peer, or one that has joined before. */
  readonly token?: string;
  readonly witness?: boolean;
  /** Several peers on one machine: this port of the loopback interface, and no engine, since none could lose its own. */
  readonly localPort?: number;
  readonly labels?: Readonly<Record<string, string>>;
}

/** The built program: next to the bundle that runs us, or in `dist` of the source tree. Throws when it is not built. */
export function peerProgram(): string {
  const here = dirname(fileURLToPath(import.meta.url));
  const candidates = [join(here, 'task-org-peer.js'), join(here, '..', '..', 'dist', 'task-org-peer.js')];
  const found = candidates.find((path) => existsSync(path));
  if (found === undefined)
    throw new TaskOrgError('not_found', 'the peer program is not built', { hint: 'npm run build' });
  return found;
}

/** argv of a peer under this very Node. */
export function peerCommand(start: PeerStart): string[] {
  const labels = Object.entries(start.labels ?? {}).flatMap(([key, value]) => ['--label', `${key}=${value}`]);
  return [
    process.execPath,
    peerProgram(),
    ...['--data-dir', start.dataDir, '--name', start.name],
    ...(start.token === undefined ? [] : ['--join', start.token]),
    ...(start.localPort === undefined
      ? []
      : ['--listen', `/ip4/127.0.0.1/tcp/${start.localPort}`, '--runtime', 'process', '--no-mdns']),
    ...(start.witness ? ['--witness'] : []),
    ...labels,
  ];
}

export const apiSocket = (dataDir: string): string => join(dataDir, 'api.sock');

/** True for the command line of an agent, as boot starts it. */
export function isAgentCommand(commandLine: readonly string[]): boolean {
  return commandLine.some((word) => /(^|\/)agent(-main)?\.(js|ts)$/.test(word));
}

/** True for any process of a peer: boot or its agent. */
export function isPeerCommand(commandLine: readonly string[]): boolean {
  return isAgentCommand(commandLine) || commandLine.some((word) => /(^|\/)task-org-peer\.(js|ts)$/.test(word));
}

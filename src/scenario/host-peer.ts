import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { Fleet, nodeName } from './fleet.ts';
import type { HostLab, HostProcess } from './hosts/types.ts';
import { apiSocket, peerCommand } from './peer-command.ts';

/** Directory of a peer's data below $HOME of its host. */
const DATA = 'task-org';

/** As seen from outside the host. */
export const peerDataDir = (lab: HostLab, node: number): string => join(lab.paths(node).home, DATA);

/** Starts the peer program of a host, as a person would; its output goes to the host's log `task-org-peer`. */
export async function launchPeer(
  lab: HostLab,
  node: number,
  options: { readonly token?: string; readonly witness: boolean },
): Promise<HostProcess> {
  mkdirSync(peerDataDir(lab, node), { recursive: true, mode: 0o700 });
  const start = { dataDir: join(lab.homeInside, DATA), name: nodeName(node), ...options };
  return await lab.spawn(node, 'task-org-peer', peerCommand(start));
}

/** One peer per host. */
export function fleetOnHosts(lab: HostLab): Fleet {
  return new Fleet({
    socketPath: (node) => apiSocket(peerDataDir(lab, node)),
    launch: async (node, options) => void (await launchPeer(lab, node, options)),
  });
}

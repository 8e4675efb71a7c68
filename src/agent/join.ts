import type { Ed25519PrivateKey } from '@libp2p/interface';
import {
  type ClusterCredentials,
  foundCluster,
  loadCredentials,
  saveCredentials,
} from '../adapters/data-dir/data-dir.ts';
import { joinCluster } from '../adapters/libp2p/join.ts';
import type { PeerSettings } from '../model/config-schema.ts';
import { TaskOrgError } from '../model/errors.ts';
import { clusterId } from '../model/ids.ts';
import { decodeToken } from '../model/token.ts';
import type { Log } from '../ports/log.ts';

/** How long a joiner looks for a member that lets it in. */
const JOIN_TIMEOUT_MS = 60_000;

/**
 * The cluster this peer belongs to: as kept in its data directory, or joined with a token, or a new one. `listen` has its
 * ports settled where a join had to name them.
 */
export async function enterCluster(options: {
  readonly dataDir: string;
  readonly settings: PeerSettings;
  readonly name: string;
  readonly privateKey: Ed25519PrivateKey;
  readonly log: Log;
}): Promise<{ credentials: ClusterCredentials; listen: readonly string[] }> {
  const { dataDir, settings, log } = options;
  const kept = await loadCredentials(dataDir);
  const token = settings.join === '' ? undefined : decodeToken(settings.join);
  if (kept) {
    if (token && token.clusterId !== kept.clusterId) {
      throw new TaskOrgError(
        'token_other_cluster',
        `this data directory belongs to cluster ${kept.clusterId}, the token is for ${token.clusterId}`,
        { hint: 'start without --join, or with another --data-dir' },
      );
    }
    return { credentials: kept, listen: settings.listen };
  }
  if (!token) {
    const credentials = foundCluster();
    await saveCredentials(dataDir, credentials);
    log.info({ clusterId: credentials.clusterId }, 'new cluster founded');
    return { credentials, listen: settings.listen };
  }
  if (token.expiresAt <= Date.now()) {
    throw new TaskOrgError('token_expired', `the join token expired at ${new Date(token.expiresAt).toISOString()}`, {
      hint: 'make a new one with: task-org token (and compare the clocks of both machines)',
    });
  }
  log.info({ clusterId: token.clusterId, addresses: token.addresses.length }, 'joining');
  const grant = await joinCluster(
    {
      privateKey: options.privateKey,
      token,
      listen: settings.listen,
      mdns: settings.mdns,
      request: {
        name: options.name,
        addresses: [...settings.announce],
        labels: settings.labels,
        priority: settings.priority,
        witness: settings.witness,
      },
    },
    AbortSignal.timeout(JOIN_TIMEOUT_MS),
    { log },
  );
  const credentials: ClusterCredentials = {
    clusterId: clusterId(grant.clusterId),
    secrets: [grant.secret],
    dataKeys: grant.dataKeys,
    founding: false,
    seeds: grant.peers.map((p) => ({ id: p.id, addresses: [...p.addresses] })),
  };
  await saveCredentials(dataDir, credentials);
  log.info({ clusterId: credentials.clusterId, peers: credentials.seeds.length }, 'admitted');
  return { credentials, listen: grant.listen };
}

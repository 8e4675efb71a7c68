import type { Ed25519PrivateKey } from '@libp2p/interface';
import {
  type ClusterCredentials,
  foundCluster,
  loadCredentials,
  saveCredentials,
} from '../adapters/data-dir/data-dir.ts';
import { joinCluster } from '../adapters/libp2p/join.ts';
import type { PeerSettings } from '../model/config-schema.ts';
import { type ErrorCode, TaskOrgError } from '../model/errors.ts';
import { clusterId } from '../model/ids.ts';
import { decodeToken } from '../model/token.ts';
import type { Log } from '../ports/log.ts';

/** How long a joiner looks for a member that lets it in. */
const JOIN_TIMEOUT_MS = 60_000;

/** What to do about a refusal, by its code; members refuse in few words. */
const HINTS: Partial<Record<ErrorCode, string>> = {
  token_expired: 'make a new one with: task-org token (and compare the clocks of both machines)',
  token_invalid: 'make a new one on a machine of the cluster with: task-org token --uses N',
  token_other_cluster:
    'is the token of the cluster you mean? Make a new one on one of its machines with: task-org token',
  name_in_use: 'give this machine another name with --name',
  unreachable: 'does a peer of the cluster run, and does this machine reach one of the addresses in the token?',
};

function withHint(error: unknown): unknown {
  if (!(error instanceof TaskOrgError) || error.hint !== undefined || HINTS[error.code] === undefined) return error;
  const { code, message, retryable, details } = error;
  return new TaskOrgError(code, message, { retryable, details, cause: error, hint: HINTS[code] as string });
}

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
  ).catch((error: unknown) => {
    throw withHint(error);
  });
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

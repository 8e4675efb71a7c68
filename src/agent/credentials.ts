import { randomBytes } from 'node:crypto';
import { type ClusterCredentials, saveCredentials } from '../adapters/data-dir/data-dir.ts';
import type { Libp2pTransport } from '../adapters/libp2p/transport.ts';
import type { ClusterState } from '../core/state/types.ts';

/** Setting in the replicated records that holds the cluster secret once it was rotated. */
export const SECRET_SETTING = 'cluster.secret';

/**
 * Follows the records: committed invitations open the door to joiners, and a rotated secret replaces the present one (peers
 * struck from the allow-list never receive it, since they no longer receive the log).
 */
export function createCredentialKeeper(
  options: {
    readonly dataDir: string;
    readonly transport: Libp2pTransport;
    readonly onSecrets: (secrets: readonly Uint8Array[]) => void;
    readonly onFailure: (error: unknown) => void;
  },
  initial: ClusterCredentials,
) {
  let credentials = initial;
  let saving = Promise.resolve();

  const save = (next: ClusterCredentials): void => {
    credentials = next;
    saving = saving.then(() => saveCredentials(options.dataDir, next)).catch(options.onFailure);
  };

  return {
    current: (): ClusterCredentials => credentials,
    founded: (): void => save({ ...credentials, founding: false }),
    refresh(state: ClusterState): void {
      options.transport.setInvitations(
        [...state.invitations.values()].map((i) => ({
          id: i.id,
          key: new Uint8Array(Buffer.from(i.key, 'base64url')),
          expiresAt: i.expiresAt,
          usesLeft: i.usesLeft,
        })),
      );
      const text = state.settings.get(SECRET_SETTING);
      if (text === undefined) return;
      const secret = new Uint8Array(Buffer.from(text, 'base64url'));
      const [present] = credentials.secrets;
      if (secret.length !== 32 || (present !== undefined && Buffer.from(present).equals(secret))) return;
      save({ ...credentials, secrets: [secret, ...credentials.secrets].slice(0, 4) });
      const [current, ...previous] = credentials.secrets;
      if (current) options.transport.setSecrets({ current, previous: previous.slice(0, 3) });
      options.onSecrets(credentials.secrets);
    },
    newSecret: (): string => randomBytes(32).toString('base64url'),
    idle: (): Promise<void> => saving,
  };
}

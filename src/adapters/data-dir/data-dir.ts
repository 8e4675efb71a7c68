import { randomBytes } from 'node:crypto';
import { constants } from 'node:fs';
import { access, mkdir, open, readFile, rename } from 'node:fs/promises';
import { join } from 'node:path';
import { generateKeyPairFromSeed } from '@libp2p/crypto/keys';
import type { Ed25519PrivateKey } from '@libp2p/interface';
import { Type } from 'typebox';
import { Compile } from 'typebox/compile';
import { TaskOrgError } from '../../model/errors.ts';
import { type ClusterId, clusterId } from '../../model/ids.ts';

// What stands in a peer's data directory besides the store: its key and its cluster's credentials, mode 0600.

export interface ClusterCredentials {
  readonly clusterId: ClusterId;
  /** Newest first; the older ones still admit peers on the allow-list that missed a rotation. */
  readonly secrets: readonly Uint8Array[];
  readonly dataKeys: readonly Uint8Array[];
  /** True for the peer that made the cluster and has not yet committed its first record. */
  readonly founding: boolean;
  /** Peers named at admission, for the first dial. */
  readonly seeds: readonly { readonly id: string; readonly addresses: readonly string[] }[];
}

/** Secrets kept for peers that missed a rotation. */
const SECRETS_KEPT = 4;

const Stored = Compile(
  Type.Object({
    clusterId: Type.String({ minLength: 1, maxLength: 128 }),
    secrets: Type.Array(Type.String({ pattern: '^[A-Za-z0-9_-]{43}$' }), { minItems: 1, maxItems: SECRETS_KEPT }),
    dataKeys: Type.Array(Type.String({ pattern: '^[A-Za-z0-9_-]{43}$' }), { minItems: 1 }),
    founding: Type.Boolean(),
    seeds: Type.Array(Type.Object({ id: Type.String(), addresses: Type.Array(Type.String()) })),
  }),
);

const hint = 'choose another with --data-dir, or mend the owner and mode of this one';

/** Creates the directory (0700) and checks that it can be used. Throws data_dir_unusable. */
export async function prepareDataDir(dir: string): Promise<void> {
  try {
    await mkdir(dir, { recursive: true, mode: 0o700 });
    await access(dir, constants.R_OK | constants.W_OK | constants.X_OK);
    // Root passes access() on a read-only mount: only a write tells.
    await writeWhole(join(dir, '.probe'), new Uint8Array(1));
  } catch (cause) {
    const code = (cause as NodeJS.ErrnoException).code ?? '';
    if (code === 'ENOSPC' || code === 'EDQUOT')
      throw new TaskOrgError('disk_full', `the disk of the data directory ${dir} is full`, {
        cause,
        hint: 'free some space and start again; nothing was lost',
      });
    throw new TaskOrgError('data_dir_unusable', `the data directory ${dir} cannot be used (${code || String(cause)})`, {
      cause,
      hint,
    });
  }
}

/** Atomic: temporary file, fsync, rename, fsync of the directory. */
export async function writeWhole(path: string, bytes: Uint8Array): Promise<void> {
  const temporary = `${path}.tmp`;
  const file = await open(temporary, 'w', 0o600);
  try {
    await file.writeFile(bytes);
    await file.sync();
  } finally {
    await file.close();
  }
  await rename(temporary, path);
  const directory = await open(join(path, '..'), 'r');
  try {
    await directory.sync();
  } finally {
    await directory.close();
  }
}

export const readOptional = async (path: string): Promise<Uint8Array | undefined> => {
  try {
    return await readFile(path);
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw new TaskOrgError('data_dir_unusable', `cannot read ${path}`, { cause, hint });
  }
};

/** The peer's Ed25519 key; made on first use. Throws data_dir_unusable when the file is damaged (never replaced silently). */
export async function loadIdentity(dir: string): Promise<Ed25519PrivateKey> {
  const path = join(dir, 'identity.key');
  const existing = await readOptional(path);
  if (existing && existing.length !== 32) {
    throw new TaskOrgError('data_dir_unusable', `${path} is damaged (${existing.length} bytes, 32 expected)`, {
      hint: 'restore it from a copy, or remove the data directory and join again with a new token',
    });
  }
  const seed = existing ?? randomBytes(32);
  if (!existing) await writeWhole(path, seed);
  return generateKeyPairFromSeed('Ed25519', seed);
}

const toText = (b: Uint8Array): string => Buffer.from(b).toString('base64url');
const toBytes = (t: string): Uint8Array => new Uint8Array(Buffer.from(t, 'base64url'));

/** undefined when this peer belongs to no cluster yet. */
export async function loadCredentials(dir: string): Promise<ClusterCredentials | undefined> {
  const path = join(dir, 'cluster.json');
  const bytes = await readOptional(path);
  if (!bytes) return undefined;
  let stored: unknown;
  try {
    stored = JSON.parse(new TextDecoder().decode(bytes));
  } catch (cause) {
    throw new TaskOrgError('data_dir_unusable', `${path} is damaged`, {
      cause,
      hint: 'restore it from a copy, or remove the data directory and join again with a new token',
    });
  }
  if (!Stored.Check(stored))
    throw new TaskOrgError('data_dir_unusable', `${path} is not as expected`, {
      hint: 'restore it from a copy, or remove the data directory and join again with a new token',
    });
  return {
    clusterId: clusterId(stored.clusterId),
    secrets: stored.secrets.map(toBytes),
    dataKeys: stored.dataKeys.map(toBytes),
    founding: stored.founding,
    seeds: stored.seeds,
  };
}

export async function saveCredentials(dir: string, c: ClusterCredentials): Promise<void> {
  const stored = {
    clusterId: c.clusterId,
    secrets: c.secrets.slice(0, SECRETS_KEPT).map(toText),
    dataKeys: c.dataKeys.map(toText),
    founding: c.founding,
    seeds: c.seeds,
  };
  await writeWhole(join(dir, 'cluster.json'), new TextEncoder().encode(`${JSON.stringify(stored, null, 2)}\n`));
}

/** A new cluster: id, secret and first data key, kept apart so that rotating the secret never orphans data. */
export function foundCluster(): ClusterCredentials {
  return {
    clusterId: clusterId(randomBytes(12).toString('hex')),
    secrets: [new Uint8Array(randomBytes(32))],
    dataKeys: [new Uint8Array(randomBytes(32))],
    founding: true,
    seeds: [],
  };
}

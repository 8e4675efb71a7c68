import { createHmac, hkdfSync, randomBytes, timingSafeEqual } from 'node:crypto';
import { decode, encode } from '@ipld/dag-cbor';
import { TaskOrgError } from '../../model/errors.ts';
import type { ClusterId, NodeId } from '../../model/ids.ts';
import { ADMISSION_LABEL, errorCode } from '../../model/wire.ts';
import type { FrameChannel } from './frame-channel.ts';
import { FrameError } from './frame-reader.ts';

// Admission: run by the dialler of a connection before any other protocol is open on it. Noise has proven the PeerIds;
// here both ends prove that they hold the same key, from the cluster's secret (members) or an invitation (joining):
//
//   dialler  -> hello     {kinds of proof it can give: key ids, its nonce}
//   listener -> challenge {key id chosen, its nonce, MAC(listener, ...)}      | refused {code}
//   dialler  -> proof     {MAC(dialler, ...)}                                 | refused {code}
//
// MAC = HMAC-SHA256(HKDF(secret), label | mode | role | cluster id | both PeerIds | both nonces | key id), each part with
// its length. Nothing can be reflected: role and both PeerIds, which noise binds to the connection, are under the MAC.
// Key ids are short one-way marks of a key; they tell nothing of it and let secrets be rotated without a flag day.
// A plain challenge-response in the manner of ISO/IEC 9798-4, mutual, three passes.

const NONCE_BYTES = 32;
const MAC_BYTES = 32;
/** Secrets offered in one hello: the current one and those of the grace after a rotation. */
const MAX_KEYS = 4;

export type AdmissionMode = 'member' | 'join';

/** A key either end may prove. `current` is false for secrets kept for a grace after a rotation. */
export interface AdmissionKey {
  readonly id: string;
  readonly key: Uint8Array;
  readonly current: boolean;
}

export function secretKey(secret: Uint8Array, cluster: ClusterId, current: boolean): AdmissionKey {
  const key = deriveKey(secret, cluster);
  return { id: createHmac('sha256', key).update('task-org admission key id').digest('hex').slice(0, 16), key, current };
}

export function invitationKey(id: string, key: Uint8Array, cluster: ClusterId): AdmissionKey {
  return { id, key: deriveKey(key, cluster), current: true };
}

function deriveKey(secret: Uint8Array, cluster: ClusterId): Uint8Array {
  return new Uint8Array(hkdfSync('sha256', secret, cluster, ADMISSION_LABEL, 32));
}

export interface Parties {
  readonly clusterId: ClusterId;
  readonly dialler: NodeId;
  readonly listener: NodeId;
}

export interface Transcript extends Parties {
  readonly mode: AdmissionMode;
  readonly keyId: string;
  readonly diallerNonce: Uint8Array;
  readonly listenerNonce: Uint8Array;
}

/** The proof of one role over one transcript. Exported for the tests of reflection and tampering. */
export function proofMac(key: Uint8Array, role: 'dialler' | 'listener', t: Transcript): Uint8Array {
  const mac = createHmac('sha256', key);
  for (const part of [
    ADMISSION_LABEL,
    t.mode,
    role,
    t.clusterId,
    t.dialler,
    t.listener,
    t.diallerNonce,
    t.listenerNonce,
    t.keyId,
  ]) {
    const bytes = typeof part === 'string' ? Buffer.from(part) : part;
    const length = Buffer.allocUnsafe(4);
    length.writeUInt32BE(bytes.length);
    mac.update(length).update(bytes);
  }
  return mac.digest();
}

const sameMac = (a: Uint8Array, b: Uint8Array): boolean => a.length === b.length && timingSafeEqual(a, b);

/** Dialler's side. Resolves with the key both have proven. Rejects with the listener's refusal, or not_admitted. */
export async function proveAsDialler(
  channel: FrameChannel,
  mode: AdmissionMode,
  keys: readonly AdmissionKey[],
  parties: Parties,
): Promise<AdmissionKey> {
  const diallerNonce = randomBytes(NONCE_BYTES);
  const offered = keys.slice(0, MAX_KEYS);
  channel.write(encode({ t: 'hello', m: mode, n: diallerNonce, k: offered.map((key) => key.id) }));
  const challenge = readMessage(await channel.read());
  throwIfRefused(challenge);
  const key = offered.find((candidate) => candidate.id === challenge.k);
  const listenerNonce = bytesField(challenge, 'n', NONCE_BYTES);
  const theirs = bytesField(challenge, 'p', MAC_BYTES);
  if (challenge.t !== 'challenge' || key === undefined) throw new FrameError('malformed', 'not an answer to a hello');
  const transcript: Transcript = { ...parties, mode, keyId: key.id, diallerNonce, listenerNonce };
  if (!sameMac(theirs, proofMac(key.key, 'listener', transcript))) {
    refuse(channel, 'not_admitted', 'proof does not match');
    throw new TaskOrgError('not_admitted', 'the peer does not hold the key it was asked to prove');
  }
  channel.write(encode({ t: 'proof', p: proofMac(key.key, 'dialler', transcript) }));
  return key;
}

/**
 * Listener's side: `choose` gives the key for the mode and one of the offered ids, or the refusal to answer with.
 * Rejects with not_admitted (or the refusal) when the dialler fails.
 */
export async function proveAsListener(
  channel: FrameChannel,
  choose: (mode: AdmissionMode, keyIds: readonly string[]) => AdmissionKey | TaskOrgError,
  parties: Parties,
): Promise<{ readonly mode: AdmissionMode; readonly key: AdmissionKey }> {
  const hello = readMessage(await channel.read());
  const mode = hello.m;
  const ids = hello.k;
  const diallerNonce = bytesField(hello, 'n', NONCE_BYTES);
  if (hello.t !== 'hello' || (mode !== 'member' && mode !== 'join')) throw new FrameError('malformed', 'not a hello');
  if (!Array.isArray(ids) || ids.length > MAX_KEYS || !ids.every((id) => typeof id === 'string' && id.length <= 128)) {
    throw new FrameError('malformed', 'key ids of a hello');
  }
  const key = choose(mode, ids);
  if (key instanceof TaskOrgError) {
    refuse(channel, key.code, key.message);
    throw key;
  }
  const listenerNonce = randomBytes(NONCE_BYTES);
  const transcript: Transcript = { ...parties, mode, keyId: key.id, diallerNonce, listenerNonce };
  channel.write(encode({ t: 'challenge', k: key.id, n: listenerNonce, p: proofMac(key.key, 'listener', transcript) }));
  const proof = readMessage(await channel.read());
  throwIfRefused(proof);
  if (proof.t !== 'proof' || !sameMac(bytesField(proof, 'p', MAC_BYTES), proofMac(key.key, 'dialler', transcript))) {
    refuse(channel, 'not_admitted', 'proof does not match');
    throw new TaskOrgError('not_admitted', 'the peer does not hold the key it claims');
  }
  return { mode, key };
}

/** The refusal that tells a proven member that it was removed. */
export const NOT_LISTED = 'not in the allow-list';

/**
 * After the proofs of two members: each says `ok` once the other stands in its allow-list, `held` while it does not yet.
 * `allowed` resolves then, or rejects to refuse. `onHeld` prolongs the deadline. Resolves when both have said ok.
 */
export async function agree(
  channel: FrameChannel,
  allowed: Promise<void>,
  onLocalOk: () => void,
  onHeld: () => void,
): Promise<void> {
  let settled = false;
  const ours = allowed.then(
    () => {
      settled = true;
      onLocalOk();
      channel.write(encode({ t: 'ok' }));
    },
    (cause) => {
      settled = true;
      refuse(channel, 'not_admitted', NOT_LISTED);
      throw cause;
    },
  );
  // An allowed peer's promise settles within this turn; only then is it known to be held.
  await Promise.resolve();
  if (!settled) {
    onHeld();
    channel.write(encode({ t: 'held' }));
  }
  const theirs = (async () => {
    for (let frames = 0; frames < 8; frames++) {
      const message = readMessage(await channel.read());
      throwIfRefused(message);
      if (message.t === 'ok') return;
      if (message.t !== 'held') throw new FrameError('malformed', 'not a verdict');
      onHeld();
    }
    throw new FrameError('unexpected', 'too many verdicts');
  })();
  await Promise.all([ours, theirs]);
}

export function refuse(channel: FrameChannel, code: string, message: string): void {
  try {
    channel.write(encode({ t: 'refused', c: code, r: message }));
  } catch {
    // The stream is gone: nobody is left to be told.
  }
}

export function throwIfRefused(message: Readonly<Record<string, unknown>>): void {
  if (message.t !== 'refused') return;
  const reason = typeof message.r === 'string' ? message.r.slice(0, 512) : 'no reason given';
  throw new TaskOrgError(errorCode(message.c), reason, { retryable: message.x === true });
}

/** Decodes one frame into a plain map. Throws FrameError('malformed'). */
export function readMessage(bytes: Uint8Array): Readonly<Record<string, unknown>> {
  let value: unknown;
  try {
    value = decode(bytes);
  } catch {
    throw new FrameError('malformed', 'not dag-cbor');
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value) || value instanceof Uint8Array) {
    throw new FrameError('malformed', 'not a map');
  }
  return value as Record<string, unknown>;
}

export function bytesField(message: Readonly<Record<string, unknown>>, field: string, length: number): Uint8Array {
  const value = message[field];
  if (!(value instanceof Uint8Array) || value.length !== length) throw new FrameError('malformed', `field ${field}`);
  return value;
}

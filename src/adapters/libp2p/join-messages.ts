import { encode } from '@ipld/dag-cbor';
import { type NodeId, nodeId } from '../../model/ids.ts';
import type { JoinGrant, JoinRequest, KnownPeer } from '../../ports/transport.ts';
import { readMessage } from './admission.ts';
import { FrameError } from './frame-reader.ts';

// What follows a proven invitation, on the same stream: the request of the one who joins, the grant of the member.

const MAX_ADDRESSES = 32;
const MAX_LABELS = 128;
const MAX_KEYS = 64;
const MAX_PEERS = 1000;

/** What the joining peer says of itself; who it is and by which invitation, the connection has proven. */
export type JoinInfo = Omit<JoinRequest, 'from' | 'invitationId'>;

export function encodeJoinRequest(info: JoinInfo): Uint8Array {
  return encode({
    t: 'join',
    n: info.name,
    a: [...info.addresses],
    l: { ...info.labels },
    p: info.priority,
    w: info.witness,
  });
}

export function decodeJoinRequest(bytes: Uint8Array, from: NodeId, invitationId: string): JoinRequest {
  const { t, n, a, l, p, w } = readMessage(bytes);
  if (t !== 'join' || typeof n !== 'string' || n.length > 128) throw new FrameError('malformed', 'join request');
  if (typeof p !== 'number' || !Number.isFinite(p) || typeof w !== 'boolean')
    throw new FrameError('malformed', 'join request');
  if (typeof l !== 'object' || l === null || Object.keys(l).length > MAX_LABELS)
    throw new FrameError('malformed', 'labels');
  const labels: Record<string, string> = {};
  for (const [key, value] of Object.entries(l)) {
    if (key.length > 128 || typeof value !== 'string' || value.length > 1024)
      throw new FrameError('malformed', 'labels');
    labels[key] = value;
  }
  return { from, invitationId, name: n, addresses: strings(a, MAX_ADDRESSES), labels, priority: p, witness: w };
}

export function encodeGrant(grant: JoinGrant): Uint8Array {
  return encode({
    t: 'grant',
    c: grant.clusterId,
    s: grant.secret,
    d: [...grant.dataKeys],
    p: grant.peers.map((peer) => ({ i: peer.id, a: [...peer.addresses] })),
  });
}

export function decodeGrant(message: Readonly<Record<string, unknown>>): JoinGrant {
  const { t, c, s, d, p } = message;
  if (t !== 'grant' || typeof c !== 'string' || !(s instanceof Uint8Array)) throw new FrameError('malformed', 'grant');
  if (!Array.isArray(d) || d.length > MAX_KEYS || !d.every((key) => key instanceof Uint8Array))
    throw new FrameError('malformed', 'data keys');
  if (!Array.isArray(p) || p.length > MAX_PEERS) throw new FrameError('malformed', 'peers');
  const peers = p.map((peer: unknown): KnownPeer => {
    const { i, a } = (peer ?? {}) as Record<string, unknown>;
    if (typeof i !== 'string') throw new FrameError('malformed', 'peer of a grant');
    return { id: nodeId(i), addresses: strings(a, MAX_ADDRESSES) };
  });
  return { clusterId: c, secret: s, dataKeys: d, peers };
}

function strings(value: unknown, most: number): string[] {
  if (!Array.isArray(value) || value.length > most || !value.every((x) => typeof x === 'string' && x.length <= 256)) {
    throw new FrameError('malformed', 'a list of texts');
  }
  return value;
}

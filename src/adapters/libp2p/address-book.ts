import { type Multiaddr, multiaddr } from '@multiformats/multiaddr';
import type { NodeId } from '../../model/ids.ts';

// Where a peer may be reached: what the log says, what it says itself or announces on the LAN, and what has worked.

const LEARNED_PER_PEER = 16;
const PROVEN_PER_PEER = 4;
/** Announced peers that are not in the allow-list yet (their admission may be on its way). */
const UNKNOWN_PEERS = 64;

interface Entry {
  committed: readonly string[];
  /** Newest first. */
  learned: string[];
  /** Addresses through which a connection was admitted, newest first. */
  proven: string[];
  /** IPs a connection of this peer came from or went to: 'connection refused' from these is about this peer's machine. */
  provenIps: string[];
}

export class AddressBook {
  readonly #known = new Map<NodeId, Entry>();
  readonly #unknown = new Map<NodeId, Entry>();

  setKnown(peers: readonly { readonly id: NodeId; readonly addresses: readonly string[] }[]): void {
    const keep = new Set<NodeId>();
    for (const { id, addresses } of peers) {
      keep.add(id);
      const entry = this.#known.get(id) ?? this.#unknown.get(id) ?? empty();
      this.#unknown.delete(id);
      entry.committed = addresses.map(withoutPeerId).filter((address) => address !== null);
      this.#known.set(id, entry);
    }
    for (const id of this.#known.keys()) if (!keep.has(id)) this.#known.delete(id);
  }

  isKnown(peer: NodeId): boolean {
    return this.#known.has(peer);
  }

  known(): NodeId[] {
    return [...this.#known.keys()];
  }

  /** What the peer says of itself or announces. Bounded; true when something was new. */
  learn(peer: NodeId, addresses: readonly string[]): boolean {
    const entry = this.#entry(peer);
    let news = false;
    for (const text of addresses.slice(0, LEARNED_PER_PEER)) {
      const address = withoutPeerId(text);
      if (address === null || entry.learned[0] === address) continue;
      news ||= !entry.learned.includes(address) && !entry.committed.includes(address);
      entry.learned = [address, ...entry.learned.filter((other) => other !== address)].slice(0, LEARNED_PER_PEER);
    }
    return news;
  }

  /** A connection with this peer was admitted over `remote`; only a dialled one shows an address to dial again. */
  prove(peer: NodeId, remote: string, dialled: boolean): void {
    const entry = this.#entry(peer);
    const address = withoutPeerId(remote);
    if (address === null) return;
    const ip = ipOf(address);
    if (ip !== null)
      entry.provenIps = [ip, ...entry.provenIps.filter((other) => other !== ip)].slice(0, PROVEN_PER_PEER);
    if (dialled)
      entry.proven = [address, ...entry.proven.filter((other) => other !== address)].slice(0, PROVEN_PER_PEER);
  }

  /** Addresses to try, best first: what worked last, then what was learned last, then the log's; loopback at the end. */
  addresses(peer: NodeId): string[] {
    const entry = this.#known.get(peer) ?? this.#unknown.get(peer);
    if (!entry) return [];
    const all = [...new Set([...entry.proven, ...entry.learned, ...entry.committed])];
    const [first, ...rest] = all;
    if (first === undefined) return [];
    const head = entry.proven.length > 0 ? [first] : [];
    const tail = entry.proven.length > 0 ? rest : all;
    return [...head, ...tail.filter((a) => !isLoopback(a)), ...tail.filter(isLoopback)];
  }

  /** Did the peer ever stand behind the IP of this address? */
  provenIp(peer: NodeId, address: string): boolean {
    const ip = ipOf(address);
    return ip !== null && (this.#known.get(peer)?.provenIps.includes(ip) ?? false);
  }

  hasProof(peer: NodeId): boolean {
    return (this.#known.get(peer)?.provenIps.length ?? 0) > 0;
  }

  #entry(peer: NodeId): Entry {
    const found = this.#known.get(peer) ?? this.#unknown.get(peer);
    if (found) return found;
    const entry = empty();
    this.#unknown.set(peer, entry);
    if (this.#unknown.size > UNKNOWN_PEERS) {
      const oldest = this.#unknown.keys().next().value;
      if (oldest !== undefined) this.#unknown.delete(oldest);
    }
    return entry;
  }
}

const empty = (): Entry => ({ committed: [], learned: [], proven: [], provenIps: [] });

/** `/ip4/1.2.3.4/tcp/5`, without the trailing `/p2p/...`; null for what is no TCP multiaddr with a port. */
export function withoutPeerId(text: string): string | null {
  const parsed = parse(text);
  if (!parsed) return null;
  const parts = parsed.getComponents();
  const host = parts[0];
  const port = parts[1];
  if (host?.value === undefined || port?.name !== 'tcp' || port.value === undefined || Number(port.value) === 0)
    return null;
  if (!['ip4', 'ip6', 'dns', 'dns4', 'dns6'].includes(host.name) || host.value === '0.0.0.0' || host.value === '::')
    return null;
  return `/${host.name}/${host.value}/tcp/${port.value}`;
}

export const ipOf = (address: string): string | null => /^\/ip[46]\/([^/]+)\//.exec(address)?.[1] ?? null;
export const isLoopback = (address: string): boolean => /^\/ip4\/127\.|^\/ip6\/::1\//.test(address);

/** The PeerId an address names, if any. */
export const peerIdOf = (text: string): string | null =>
  parse(text)
    ?.getComponents()
    .findLast((part) => part.name === 'p2p')?.value ?? null;

function parse(text: string): Multiaddr | null {
  try {
    return multiaddr(text);
  } catch {
    return null;
  }
}

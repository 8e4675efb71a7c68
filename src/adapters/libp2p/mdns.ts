import { createHash, randomBytes } from 'node:crypto';
import { networkInterfaces } from 'node:os';
import { peerIdFromString } from '@libp2p/peer-id';
import multicastDns from 'multicast-dns';
import { type ClusterId, type NodeId, nodeId } from '../../model/ids.ts';
import { ipOf, isLoopback, peerIdOf, withoutPeerId } from './address-book.ts';
import type { Counters, TransportLog } from './counters.ts';

// mDNS (RFC 6762) in libp2p's wire form (PTR query for the service tag; PTR plus TXT `dnsaddr=<multiaddr>` in answer), with
// one socket per IPv4 interface: the stock module sends through the default route's interface only, and without one not at
// all. The service tag is a hash of the cluster id, so clusters on one LAN do not see each other. Nothing heard here is
// trusted: it is an address to try, and admission follows.

const SCAN_MS = 5_000;
const MAX_INTERFACES = 32;
/** Queries: every second at first (the first ones faster: a lost packet must not cost one), then less and less. */
const QUERY_STEPS = [
  { untilMs: 500, everyMs: 200 },
  { untilMs: 10_000, everyMs: 1_000 },
  { untilMs: 70_000, everyMs: 10_000 },
] as const;
const QUERY_SLOWEST_MS = 60_000;
/**
 * RFC 6762 section 6: a record is not multicast again within a second, however many ask. A few may follow at once, for
 * peers that start one after the other; then one a second, and an answer held back is sent when its second is over.
 */
const ANSWER_BURST = 4;
const ANSWER_GAP_MS = 1_000;
const TTL_S = 120;
const MAX_TXT_BYTES = 255;
const MAX_ANSWER_ADDRESSES = 8;

export const serviceTag = (cluster: ClusterId): string =>
  `_torg-${createHash('sha256').update(`task-org mdns|${cluster}`).digest('hex').slice(0, 24)}._udp.local`;

export interface MdnsOptions {
  readonly clusterId: ClusterId;
  readonly self: NodeId;
  /** This peer's dialable addresses at the moment. */
  readonly addresses: () => readonly string[];
  /** False: it only asks (not a member yet). */
  readonly announce: boolean;
  /** Test only: another port than 5353. */
  readonly port?: number;
}

interface Socket {
  readonly address: string;
  readonly mdns: ReturnType<typeof multicastDns>;
  /** Answers that may be sent now; refilled by one each ANSWER_GAP_MS. */
  answers: number;
  refilledAt: number;
  heldBack: NodeJS.Timeout | null;
  broken: boolean;
}

interface DnsRecord {
  readonly type: string;
  readonly name: string;
  readonly data?: unknown;
}

export class Mdns {
  readonly #options: MdnsOptions;
  readonly #tag: string;
  readonly #name = randomBytes(16).toString('hex');
  readonly #onPeer: (peer: NodeId, addresses: readonly string[]) => void;
  readonly #counters: Counters;
  readonly #log: TransportLog;
  readonly #sockets = new Map<string, Socket>();
  #startedAt = 0;
  /** When anybody's query for our tag was last heard: it asks for us too. */
  #lastQueryHeardAt = Number.NEGATIVE_INFINITY;
  #queryTimer: NodeJS.Timeout | null = null;
  #scanTimer: NodeJS.Timeout | null = null;

  constructor(
    options: MdnsOptions,
    onPeer: (peer: NodeId, addresses: readonly string[]) => void,
    counters: Counters,
    log: TransportLog,
  ) {
    this.#options = options;
    this.#tag = serviceTag(options.clusterId);
    this.#onPeer = onPeer;
    this.#counters = counters;
    this.#log = log;
  }

  start(): void {
    this.#startedAt = performance.now();
    this.#scan();
    this.#scanTimer = setInterval(() => this.#scan(), SCAN_MS);
    this.#scheduleQuery();
  }

  async stop(): Promise<void> {
    if (this.#queryTimer) clearTimeout(this.#queryTimer);
    if (this.#scanTimer) clearInterval(this.#scanTimer);
    const closing = [...this.#sockets.values()].map((socket) => destroy(socket));
    this.#sockets.clear();
    await Promise.all(closing);
  }

  #scheduleQuery(): void {
    const ageMs = performance.now() - this.#startedAt;
    const everyMs = QUERY_STEPS.find((step) => ageMs < step.untilMs)?.everyMs ?? QUERY_SLOWEST_MS;
    // Spread, so that one peer asks for all: whoever hears a question in the slow phase keeps its own (RFC 6762, 7.3).
    this.#queryTimer = setTimeout(
      () => {
        if (everyMs <= 1_000 || performance.now() - this.#lastQueryHeardAt > everyMs / 2)
          this.#query([...this.#sockets.values()]);
        this.#scheduleQuery();
      },
      everyMs * (0.9 + 0.2 * Math.random()),
    );
  }

  /** Sockets follow the interfaces: new ones ask and announce at once, those gone or broken are closed. */
  #scan(): void {
    const wanted = new Set(interfaceAddresses(this.#options.addresses()));
    for (const [address, socket] of this.#sockets) {
      if (wanted.has(address) && !socket.broken) continue;
      this.#sockets.delete(address);
      void destroy(socket);
    }
    for (const address of wanted) if (!this.#sockets.has(address)) this.#open(address);
  }

  #open(address: string): void {
    const mdns = multicastDns({
      interface: address,
      bind: '0.0.0.0',
      ttl: 255,
      loopback: true,
      reuseAddr: true,
      ...(this.#options.port === undefined ? {} : { port: this.#options.port }),
    });
    const socket: Socket = {
      address,
      mdns,
      answers: ANSWER_BURST,
      refilledAt: performance.now(),
      heldBack: null,
      broken: false,
    };
    const trouble = (cause: unknown): void => {
      this.#counters.add('mdns_errors');
      this.#log.debug({ address, detail: String(cause) }, 'mdns trouble on an interface');
    };
    mdns.on('warning', trouble);
    mdns.on('error', (cause) => {
      socket.broken = true;
      trouble(cause);
    });
    mdns.on('query', (packet) => {
      if (!packet.questions?.some((question) => question.name === this.#tag)) return;
      // Our own, come back by multicast loopback.
      if ((packet.answers as DnsRecord[] | undefined)?.some((answer) => answer.data === `${this.#name}.${this.#tag}`))
        return;
      this.#counters.add('mdns_queries_in');
      this.#lastQueryHeardAt = performance.now();
      this.#answer(socket);
    });
    mdns.on('response', (packet) =>
      this.#onResponse([...(packet.answers ?? []), ...(packet.additionals ?? [])] as DnsRecord[]),
    );
    mdns.on('ready', () => {
      this.#query([socket]);
      this.#answer(socket);
    });
    this.#sockets.set(address, socket);
  }

  #query(sockets: readonly Socket[]): void {
    for (const socket of sockets) {
      this.#counters.add('mdns_queries_out');
      socket.mdns.query({
        questions: [{ name: this.#tag, type: 'PTR' }],
        // The known answer (RFC 6762, 7.1): it asks for others than itself.
        answers: [{ name: this.#tag, type: 'PTR', class: 'IN', ttl: TTL_S, data: `${this.#name}.${this.#tag}` }],
      });
    }
  }

  #answer(socket: Socket): void {
    if (!this.#options.announce || socket.heldBack) return;
    const earned = Math.floor((performance.now() - socket.refilledAt) / ANSWER_GAP_MS);
    socket.refilledAt += earned * ANSWER_GAP_MS;
    socket.answers = Math.min(ANSWER_BURST, socket.answers + earned);
    if (socket.answers < 1) {
      socket.heldBack = setTimeout(() => {
        socket.heldBack = null;
        this.#answer(socket);
      }, ANSWER_GAP_MS);
      return;
    }
    // Only what can be reached through this interface; an address of another one would be tried in vain.
    const addresses = this.#options.addresses().filter((address) => ipOf(address) === socket.address);
    const name = `${this.#name}.${this.#tag}`;
    const texts = addresses
      .slice(0, MAX_ANSWER_ADDRESSES)
      .map((address) => `dnsaddr=${withoutPeerId(address)}/p2p/${this.#options.self}`)
      .filter((text) => text.length <= MAX_TXT_BYTES);
    if (texts.length === 0) return;
    socket.answers--;
    this.#counters.add('mdns_answers_out');
    socket.mdns.respond({
      answers: [
        { name: this.#tag, type: 'PTR', class: 'IN', ttl: TTL_S, data: name },
        ...texts.map((data) => ({ name, type: 'TXT' as const, class: 'IN' as const, ttl: TTL_S, data })),
      ],
    });
  }

  #onResponse(records: readonly DnsRecord[]): void {
    const pointer = records.find((record) => record.type === 'PTR' && record.name === this.#tag);
    if (!pointer || (typeof pointer.data === 'string' && pointer.data.startsWith(this.#name))) return;
    const byPeer = new Map<string, string[]>();
    for (const record of records.slice(0, 64)) {
      if (record.type !== 'TXT' || !record.name.endsWith(this.#tag)) continue;
      for (const data of Array.isArray(record.data) ? record.data : [record.data]) {
        const text = String(data);
        if (!text.startsWith('dnsaddr=')) continue;
        const peer = peerIdOf(text.slice('dnsaddr='.length));
        const address = withoutPeerId(text.slice('dnsaddr='.length));
        if (peer === null || address === null || peer === this.#options.self) continue;
        const list = byPeer.get(peer) ?? [];
        if (list.push(address) === 1) byPeer.set(peer, list);
      }
    }
    for (const [peer, addresses] of byPeer) {
      if (!isPeerId(peer)) continue;
      this.#counters.add('mdns_answers_in');
      this.#onPeer(nodeId(peer), addresses.slice(0, MAX_ANSWER_ADDRESSES));
    }
  }
}

/**
 * Every IPv4 address that is not internal. Loopback when there is no other, or when this peer can be reached there only
 * (several peers on one machine): then the LAN is not bothered.
 */
function interfaceAddresses(own: readonly string[]): string[] {
  const all = Object.values(networkInterfaces())
    .flat()
    .filter((address) => address?.family === 'IPv4');
  const outer = all.filter((address) => !address?.internal);
  const inner = all.filter((address) => address?.internal);
  const loopbackOnly = outer.length === 0 || (own.length > 0 && own.every(isLoopback));
  return (loopbackOnly ? inner : outer)
    .flatMap((address) => (address ? [address.address] : []))
    .slice(0, MAX_INTERFACES);
}

function isPeerId(text: string): boolean {
  try {
    return peerIdFromString(text) !== undefined;
  } catch {
    return false;
  }
}

function destroy(socket: Socket): Promise<void> {
  if (socket.heldBack) clearTimeout(socket.heldBack);
  return new Promise((resolve) => {
    try {
      socket.mdns.destroy(() => resolve());
    } catch {
      resolve();
    }
  });
}

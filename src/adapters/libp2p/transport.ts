import type { Connection, PrivateKey, Stream } from '@libp2p/interface';
import { peerIdFromPrivateKey, peerIdFromString } from '@libp2p/peer-id';
import { TaskOrgError, toTaskOrgError } from '../../model/errors.ts';
import { type ClusterId, type NodeId, nodeId } from '../../model/ids.ts';
import { LIMITS } from '../../model/limits.ts';
import type { ByteStream, Channel, KnownPeer, Topic, Transport, TransportHandlers } from '../../ports/transport.ts';
import { AddressBook } from './address-book.ts';
import { type AdmissionKey, secretKey } from './admission.ts';
import { StrangerAllowance } from './allowance.ts';
import { BulkServer, bulkProtocol, openBulk } from './bulk-server.ts';
import { Counters, silentLog, type TransportLog } from './counters.ts';
import { race } from './dialer.ts';
import { AdmissionGate, admissionProtocol, type GateLimits, type Invitation } from './gate.ts';
import { GossipRoom } from './gossip.ts';
import { PeerLinks, rpcProtocol } from './links.ts';
import { listenAddresses } from './listen-addresses.ts';
import { Mdns } from './mdns.ts';
import { type BuiltNode, createNode, STREAMS_PER_PROTOCOL, startNode } from './node.ts';
import { Redialer } from './redial.ts';

export interface ClusterSecrets {
  /** 32 bytes. */
  readonly current: Uint8Array;
  /** Accepted for a grace after a rotation, newest first; at most three. */
  readonly previous: readonly Uint8Array[];
}

export interface TransportLimits extends GateLimits {
  readonly rpcFrameBytes: number;
  readonly rpcQueueBytes: number;
  readonly rpcInFlight: number;
  readonly gossipFrameBytes: number;
  /** Transfers in progress with one peer, per direction. */
  readonly bulkStreams: number;
}

export const TRANSPORT_LIMITS: TransportLimits = {
  admissionMs: 1_000,
  heldMs: 10_000,
  joinMs: 30_000,
  pendingConnections: 256,
  joinsInFlight: 16,
  rpcFrameBytes: LIMITS.rpcFrameBytes,
  rpcQueueBytes: LIMITS.rpcQueueBytes,
  rpcInFlight: LIMITS.rpcInFlight,
  gossipFrameBytes: LIMITS.gossipFrameBytes,
  bulkStreams: STREAMS_PER_PROTOCOL / 2,
};

export interface Libp2pTransportOptions {
  /** Ed25519; its PeerId is the peer's name. */
  readonly privateKey: PrivateKey;
  readonly clusterId: ClusterId;
  readonly secrets: ClusterSecrets;
  /** Multiaddrs, e.g. `/ip4/0.0.0.0/tcp/0`. Empty: dial only. */
  readonly listen: readonly string[];
  readonly mdns: boolean;
  /** Another port than 5353, for tests. */
  readonly mdnsPort?: number;
  readonly limits?: Partial<TransportLimits>;
}

export interface Libp2pTransportDeps {
  readonly log?: TransportLog;
  /** Wall milliseconds, for the expiry of invitations. */
  readonly wallNow?: () => number;
}

export interface Libp2pTransport extends Transport {
  setSecrets(secrets: ClusterSecrets): void;
  /** The committed invitations; a peer that holds one of their keys may ask to join. */
  setInvitations(invitations: readonly Invitation[]): void;
}

/** Time for the framed stream to open once a connection stands. */
const UP_MS = 3_000;

export function createLibp2pTransport(
  options: Libp2pTransportOptions,
  deps: Libp2pTransportDeps = {},
): Libp2pTransport {
  return new Libp2pTransportImpl(options, deps);
}

class Libp2pTransportImpl implements Libp2pTransport {
  readonly self: NodeId;
  readonly #options: Libp2pTransportOptions;
  readonly #limits: TransportLimits;
  readonly #log: TransportLog;
  readonly #counters = new Counters();
  readonly #allowance = new StrangerAllowance(this.#counters);
  readonly #book = new AddressBook();
  readonly #gate: AdmissionGate;
  readonly #links: PeerLinks;
  readonly #redial: Redialer;
  readonly #bulk: BulkServer;
  #keys: readonly AdmissionKey[];
  #node: BuiltNode | null = null;
  #gossip: GossipRoom | null = null;
  #mdns: Mdns | null = null;
  #handlers: TransportHandlers | null = null;
  #stopping = false;

  constructor(options: Libp2pTransportOptions, deps: Libp2pTransportDeps) {
    this.self = nodeId(peerIdFromPrivateKey(options.privateKey).toString());
    this.#options = options;
    this.#limits = { ...TRANSPORT_LIMITS, ...options.limits };
    this.#log = deps.log ?? silentLog;
    this.#keys = deriveKeys(options.secrets, options.clusterId);
    this.#gate = new AdmissionGate(
      { clusterId: options.clusterId, self: this.self, limits: this.#limits },
      {
        keys: () => this.#keys,
        isKnown: (peer) => this.#book.isKnown(peer),
        onAdmitted: (connection, peer) => this.#onAdmitted(connection, peer),
        onStruck: (by) => this.#guard(() => this.#handlers?.onStruck?.(by)),
        onGone: (connection, peer) => this.#onGone(connection, peer),
        onJoinRequest: (request, signal) =>
          this.#handlers
            ? this.#handlers.onJoinRequest(request, signal)
            : Promise.reject(new TaskOrgError('busy', 'not started', { retryable: true })),
        wallNow: deps.wallNow ?? Date.now,
      },
      this.#allowance,
      this.#counters,
      this.#log,
    );
    this.#links = new PeerLinks(
      { self: this.self, clusterId: options.clusterId, limits: this.#limits },
      {
        onUp: (peer, connection, addresses) => this.#onUp(peer, connection, addresses),
        onDown: (peer) => this.#onDown(peer),
        onMessage: (from, channel, payload) => this.#guard(() => this.#handlers?.onMessage(from, channel, payload)),
        onRequest: async (from, method, payload, signal) => {
          if (!this.#handlers) throw new TaskOrgError('busy', 'not started', { retryable: true });
          return this.#handlers.onRequest(from, method, payload, signal);
        },
        ownAddresses: () => this.addresses(),
      },
      this.#counters,
      this.#log,
    );
    this.#bulk = new BulkServer(
      this.#limits,
      async (from, method, payload, stream, aborted) => {
        if (!this.#handlers) throw new TaskOrgError('busy', 'not started', { retryable: true });
        await this.#handlers.onStream(from, method, payload, stream, aborted);
      },
      this.#counters,
    );
    this.#redial = new Redialer(this.self, {
      attempt: (peer) => this.dial(peer, AbortSignal.timeout(UP_MS * 2)),
      connected: (peer) => this.#links.get(peer) !== undefined,
      random: Math.random,
    });
  }

  async start(handlers: TransportHandlers, signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    this.#handlers = handlers;
    const { clusterId, privateKey, listen } = this.#options;
    const node = await createNode({ privateKey, listen, allowance: this.#allowance });
    this.#node = node;
    const { libp2p, components } = node;
    libp2p.addEventListener('connection:open', (event) => this.#gate.onOpen(event.detail));
    const streams = (count: number): { maxInboundStreams: number; maxOutboundStreams: number } => ({
      maxInboundStreams: count,
      maxOutboundStreams: count,
    });
    await libp2p.handle(
      admissionProtocol(clusterId),
      (stream, connection) => this.#gate.serve(stream, connection),
      streams(2),
    );
    await libp2p.handle(
      rpcProtocol(clusterId),
      (stream, connection) => this.#onRpcStream(stream, connection),
      streams(4),
    );
    await libp2p.handle(
      bulkProtocol(clusterId),
      (stream, connection) => this.#onBulkStream(stream, connection),
      streams(STREAMS_PER_PROTOCOL),
    );
    this.#gossip = new GossipRoom(
      components,
      { clusterId, gossipFrameBytes: this.#limits.gossipFrameBytes },
      {
        admitted: (connection) => this.#gate.admitted(connection),
        isKnown: (peer) => this.#book.isKnown(peer),
        isUp: (peer) => this.#links.get(peer) !== undefined,
        onGossip: (from, topic, payload) => this.#guard(() => this.#handlers?.onGossip(from, topic, payload)),
        onBroken: (peer) => this.#links.cut(peer),
      },
      this.#counters,
    );
    await startNode(node, listen);
    await this.#gossip.start();
    if (this.#options.mdns) {
      const { mdnsPort } = this.#options;
      this.#mdns = new Mdns(
        {
          clusterId,
          self: this.self,
          addresses: () => this.addresses(),
          announce: true,
          ...(mdnsPort === undefined ? {} : { port: mdnsPort }),
        },
        (peer, addresses) => this.#onAnnounced(peer, addresses),
        this.#counters,
        this.#log,
      );
      this.#mdns.start();
    }
    this.#log.info({ self: this.self, addresses: this.addresses(), mdns: this.#options.mdns }, 'transport started');
  }

  addresses(): readonly string[] {
    return this.#node ? listenAddresses(this.#node, this.self) : [];
  }

  send(to: NodeId, channel: Channel, payload: Uint8Array): void {
    const link = this.#links.get(to);
    if (link) link.send(channel, payload);
    else this.#counters.add('send_unreachable');
  }

  async request(
    to: NodeId,
    method: string,
    payload: Uint8Array,
    options: { readonly timeoutMs: number; readonly signal?: AbortSignal },
  ): Promise<Uint8Array> {
    const link = this.#links.get(to);
    if (!link) throw new TaskOrgError('unreachable', `no connection to ${to}`, { retryable: true });
    return link.request(method, payload, options);
  }

  async openStream(to: NodeId, method: string, payload: Uint8Array, signal: AbortSignal): Promise<ByteStream> {
    signal.throwIfAborted();
    if (payload.length > this.#limits.rpcFrameBytes)
      throw new TaskOrgError('too_large', `the opening of ${method} is over ${this.#limits.rpcFrameBytes} bytes`);
    const connection = this.#links.connection(to);
    if (!connection) throw new TaskOrgError('unreachable', `no connection to ${to}`, { retryable: true });
    return openBulk(
      connection,
      { clusterId: this.#options.clusterId, method, payload, limits: this.#limits },
      this.#counters,
      signal,
    );
  }

  async publish(topic: Topic, payload: Uint8Array): Promise<void> {
    await this.#gossip?.publish(topic, payload);
  }

  async dial(to: NodeId, signal: AbortSignal): Promise<void> {
    if (this.#links.get(to)) return;
    const node = this.#node;
    if (!node || this.#stopping) throw new TaskOrgError('unreachable', 'the transport is not running');
    if (!this.#book.isKnown(to)) throw new TaskOrgError('not_admitted', `${to} is not in the allow-list`);
    this.#counters.add('dials');
    const outcome = await race(node.components.transportManager, to, this.#book.addresses(to), signal);
    if (outcome.ok) {
      try {
        return await this.#links.whenUp(to, AbortSignal.any([signal, AbortSignal.timeout(UP_MS)]));
      } catch (cause) {
        this.#dialFailed(to, false);
        throw toTaskOrgError(cause);
      }
    }
    // It may have dialled us meanwhile.
    if (this.#links.get(to)) return;
    const { failures } = outcome;
    // Refused by an address that was this peer's: its process is gone. A private address may be another machine's here,
    // so without such proof all of them must refuse.
    const refused = this.#book.hasProof(to)
      ? failures.some((failure) => failure.refused && this.#book.provenIp(to, failure.address))
      : failures.length > 0 && failures.every((failure) => failure.refused);
    if (failures.length > 0) this.#dialFailed(to, refused);
    const detail = failures.map((failure) => `${failure.address}: ${failure.message}`).join('; ') || 'no address known';
    throw new TaskOrgError('unreachable', `cannot reach ${to}`, {
      retryable: true,
      cause: new Error(refused ? `refused (${detail})` : detail),
    });
  }

  hangUp(peer: NodeId): void {
    this.#links.cut(peer);
  }

  setPeers(peers: readonly KnownPeer[]): void {
    const others = peers.filter((peer) => peer.id !== this.self).slice(0, LIMITS.peers);
    const struck = new Set(this.#book.known());
    const before = new Map(others.map((peer) => [peer.id, this.#book.addresses(peer.id)]));
    this.#book.setKnown(others);
    for (const peer of others) {
      struck.delete(peer.id);
      const known = before.get(peer.id) ?? [];
      if (this.#book.addresses(peer.id).some((address) => !known.includes(address))) this.#redial.announced(peer.id);
    }
    this.#gate.reviewAll();
    for (const peer of struck) this.#links.cut(peer);
  }

  setWanted(peers: readonly NodeId[]): void {
    this.#redial.setWanted(peers);
  }

  setSecrets(secrets: ClusterSecrets): void {
    this.#keys = deriveKeys(secrets, this.#options.clusterId);
    this.#gate.reviewAll();
  }

  setInvitations(invitations: readonly Invitation[]): void {
    this.#gate.setInvitations(invitations);
  }

  connected(): readonly NodeId[] {
    return this.#links.up();
  }

  counters(): Readonly<Record<string, number>> {
    return { ...this.#counters.snapshot(), connections: this.#links.up().length };
  }

  async stop(): Promise<void> {
    if (this.#stopping) return;
    this.#stopping = true;
    this.#redial.stop();
    await this.#mdns?.stop();
    this.#links.stop();
    this.#gate.close();
    await this.#gossip?.stop();
    await this.#node?.libp2p.stop();
    this.#handlers = null;
  }

  #onRpcStream(stream: Stream, connection: Connection): void {
    if (this.#refuseStranger(stream, connection, 'rpc')) return;
    this.#links.serve(stream, connection, nodeId(connection.remotePeer.toString()));
  }

  async #onBulkStream(stream: Stream, connection: Connection): Promise<void> {
    if (!this.#refuseStranger(stream, connection, 'bulk')) await this.#bulk.serve(stream, connection);
  }

  #refuseStranger(stream: Stream, connection: Connection, what: string): boolean {
    if (this.#gate.admitted(connection) && !this.#stopping) return false;
    this.#counters.add(`refused_${what}_stream`);
    stream.abort(new Error('not admitted'));
    return true;
  }

  #onAdmitted(connection: Connection, peer: NodeId): void {
    this.#book.prove(peer, connection.remoteAddr.toString(), connection.direction === 'outbound');
    this.#links.onAdmitted(connection, peer);
  }

  #onGone(connection: Connection, peer: NodeId): void {
    this.#links.onGone(connection, peer);
    // libp2p remembers everybody it ever met; strangers are forgotten.
    if (!this.#book.isKnown(peer)) this.#node?.libp2p.peerStore.delete(peerIdFromString(peer)).catch(() => {});
  }

  #onUp(peer: NodeId, connection: Connection, addresses: readonly string[]): void {
    this.#book.learn(peer, addresses);
    this.#guard(() => this.#gossip?.peerUp(peer, connection));
    this.#log.debug({ peer, via: connection.remoteAddr.toString() }, 'peer connected');
    this.#guard(() => this.#handlers?.onConnected(peer));
  }

  #onDown(peer: NodeId): void {
    this.#guard(() => this.#gossip?.peerDown(peer));
    if (this.#stopping) return;
    this.#log.debug({ peer }, 'peer disconnected');
    this.#redial.lost(peer);
    this.#guard(() => this.#handlers?.onDisconnected(peer));
  }

  #onAnnounced(peer: NodeId, addresses: readonly string[]): void {
    this.#book.learn(peer, addresses);
    this.#redial.announced(peer);
  }

  #dialFailed(peer: NodeId, refused: boolean): void {
    this.#counters.add(refused ? 'dials_refused' : 'dials_failed');
    if (!this.#stopping) this.#guard(() => this.#handlers?.onDialFailed(peer, refused));
  }

  /** A handler's fault is ours, not the peer's: it must not close a connection. */
  #guard(action: () => void): void {
    try {
      action();
    } catch (cause) {
      this.#counters.add('handler_errors');
      this.#log.error({ detail: cause instanceof Error ? cause.stack : String(cause) }, 'a transport handler threw');
    }
  }
}

function deriveKeys(secrets: ClusterSecrets, cluster: ClusterId): AdmissionKey[] {
  return [
    secretKey(secrets.current, cluster, true),
    ...secrets.previous.slice(0, 3).map((secret) => secretKey(secret, cluster, false)),
  ];
}

import { type GossipSub, gossipsub, type Message, StrictSign, TopicValidatorResult } from '@chainsafe/libp2p-gossipsub';
import type { Connection, PeerId, Topology } from '@libp2p/interface';
import { TaskOrgError } from '../../model/errors.ts';
import { type ClusterId, type NodeId, nodeId } from '../../model/ids.ts';
import { WIRE_TOPICS } from '../../model/wire.ts';
import type { Topic } from '../../ports/transport.ts';
import type { Counters } from './counters.ts';
import type { NodeComponents } from './node.ts';

// Gossip among admitted peers only. gossipsub is handed a registrar of ours: its stream handler is behind the admission
// check, and it learns of a peer from us, once its framed stream is open, instead of from identify. So it never opens a
// stream to, nor reads one from, a connection that is not admitted. Small hints only: about 0.8 ms of CPU per message and
// receiver. A publish in the first tens of milliseconds of a connection may be lost: anti-entropy is the callers' part.

/** A whole gossip RPC: several messages may share one. Each message is held to the gossip limit by the validator. */
const MAX_RPC_BYTES = 1024 * 1024;
const MAX_OUTBOUND_BYTES = 4 * 1024 * 1024;
/** A connected peer that has shown no subscription for this long gets its gossip streams anew. */
const WATCHDOG_MS = 2_000;
const MAX_REPAIRS = 3;

export const topicName = (cluster: ClusterId, topic: Topic): string => `task-org/${cluster}/${topic}`;

export interface GossipHooks {
  admitted(connection: Connection): boolean;
  isKnown(peer: NodeId): boolean;
  isUp(peer: NodeId): boolean;
  onGossip(from: NodeId, topic: Topic, payload: Uint8Array): void;
  /** Repairs did not help: the connection itself should be made anew. */
  onBroken(peer: NodeId): void;
}

interface Member {
  readonly peerId: PeerId;
  readonly connection: Connection;
  repairs: number;
  /** Watchdog rounds survived; the first only lets a fresh peer settle. */
  rounds: number;
}

export class GossipRoom {
  readonly #gossip: GossipSub & { start(): Promise<void>; stop(): Promise<void> };
  readonly #topics: ReadonlyMap<string, Topic>;
  readonly #clusterId: ClusterId;
  readonly #maxBytes: number;
  readonly #hooks: GossipHooks;
  readonly #counters: Counters;
  readonly #members = new Map<NodeId, Member>();
  #topology: Topology | null = null;
  #watchdog: NodeJS.Timeout | null = null;

  constructor(
    components: NodeComponents,
    options: { clusterId: ClusterId; gossipFrameBytes: number },
    hooks: GossipHooks,
    counters: Counters,
  ) {
    this.#clusterId = options.clusterId;
    this.#maxBytes = options.gossipFrameBytes;
    this.#hooks = hooks;
    this.#counters = counters;
    this.#topics = new Map(WIRE_TOPICS.map((topic) => [topicName(options.clusterId, topic), topic]));
    this.#gossip = gossipsub({
      globalSignaturePolicy: StrictSign,
      allowedTopics: [...this.#topics.keys()],
      allowPublishToZeroTopicPeers: true,
      // Every peer is admitted and known by name: scores would only turn peers on one address, or a slow one, into outcasts.
      scoreParams: { IPColocationFactorWeight: 0, behaviourPenaltyWeight: 0 },
      fallbackToFloodsub: false,
      doPX: false,
      tagMeshPeers: false,
      floodPublish: true,
      // Duplicates are known by (signer, sequence number) before their signature is verified, which is what costs.
      fastMsgIdFn: (message) =>
        `${Buffer.from(message.from ?? []).toString('latin1')}|${Buffer.from(message.seqno ?? []).toString('latin1')}`,
      maxInboundDataLength: MAX_RPC_BYTES,
      maxOutboundBufferSize: MAX_OUTBOUND_BYTES,
      maxInboundStreams: 4,
      maxOutboundStreams: 4,
      decodeRpcLimits: {
        maxSubscriptions: 16,
        maxMessages: 128,
        maxIhaveMessageIDs: 1024,
        maxIwantMessageIDs: 1024,
        maxIdontwantMessageIDs: 512,
        maxControlMessages: 64,
        maxPeerInfos: 0,
      },
    })({
      privateKey: components.privateKey,
      peerId: components.peerId,
      peerStore: components.peerStore,
      connectionManager: components.connectionManager,
      logger: components.logger,
      registrar: this.#registrar(components.registrar),
    }) as GossipSub & { start(): Promise<void>; stop(): Promise<void> };
    for (const topic of this.#topics.keys())
      this.#gossip.topicValidators.set(topic, (source, message) => this.#validate(source, message));
    this.#gossip.addEventListener('message', (event) => this.#deliver(event.detail));
  }

  async start(): Promise<void> {
    await this.#gossip.start();
    for (const topic of this.#topics.keys()) this.#gossip.subscribe(topic);
    this.#watchdog = setInterval(() => this.#check(), WATCHDOG_MS);
  }

  async stop(): Promise<void> {
    if (this.#watchdog) clearInterval(this.#watchdog);
    this.#members.clear();
    await this.#gossip.stop();
  }

  peerUp(peer: NodeId, connection: Connection): void {
    this.#members.set(peer, { peerId: connection.remotePeer, connection, repairs: 0, rounds: 0 });
    void this.#topology?.onConnect?.(connection.remotePeer, connection);
  }

  peerDown(peer: NodeId): void {
    const member = this.#members.get(peer);
    if (!member) return;
    this.#members.delete(peer);
    void this.#topology?.onDisconnect?.(member.peerId);
  }

  /** Throws too_large. Reaching nobody is no error. */
  async publish(topic: Topic, payload: Uint8Array): Promise<void> {
    if (payload.length > this.#maxBytes)
      throw new TaskOrgError('too_large', `gossip is limited to ${this.#maxBytes} bytes`);
    this.#counters.add('gossip_out');
    this.#counters.add('gossip_bytes_out', payload.length);
    await this.#gossip.publish(topicName(this.#clusterId, topic), payload);
  }

  /** Peers that hear this one's gossip directly, as far as is known. */
  subscribers(topic: Topic): readonly NodeId[] {
    return this.#gossip.getSubscribers(topicName(this.#clusterId, topic)).map((peer) => nodeId(peer.toString()));
  }

  #registrar(real: NodeComponents['registrar']): NodeComponents['registrar'] {
    return {
      getProtocols: () => real.getProtocols(),
      getHandler: (protocol) => real.getHandler(protocol),
      getTopologies: (protocol) => real.getTopologies(protocol),
      getMiddleware: (protocol) => real.getMiddleware(protocol),
      use: (protocol, middleware) => real.use(protocol, middleware),
      unuse: (protocol) => real.unuse(protocol),
      unhandle: (protocol, options) => real.unhandle(protocol, options),
      handle: (protocol, handler, options) =>
        real.handle(
          protocol,
          (stream, connection) => {
            if (this.#hooks.admitted(connection)) return handler(stream, connection);
            this.#counters.add('refused_gossip_stream');
            stream.abort(new Error('not admitted'));
          },
          options,
        ),
      register: async (_protocol, topology) => {
        this.#topology = topology;
        return 'task-org';
      },
      unregister: () => {
        this.#topology = null;
      },
    };
  }

  #validate(source: PeerId, message: Message): TopicValidatorResult {
    const refused = (reason: string): TopicValidatorResult => {
      this.#counters.add(`gossip_refused_${reason}`);
      return TopicValidatorResult.Ignore;
    };
    if (message.data.length > this.#maxBytes) return refused('oversized');
    if (!this.#hooks.isUp(nodeId(source.toString()))) return refused('source');
    if (message.type !== 'signed' || !this.#hooks.isKnown(nodeId(message.from.toString()))) return refused('signer');
    return TopicValidatorResult.Accept;
  }

  #deliver(message: Message): void {
    const topic = this.#topics.get(message.topic);
    if (topic === undefined || message.type !== 'signed') return;
    this.#counters.add('gossip_in');
    this.#counters.add('gossip_bytes_in', message.data.length);
    this.#hooks.onGossip(nodeId(message.from.toString()), topic, message.data);
  }

  /** A reset gossip stream is not reopened by gossipsub while the connection lives: announce the peer again. */
  #check(): void {
    const subscribed = new Set(this.subscribers('members'));
    for (const [peer, member] of this.#members) {
      member.rounds++;
      if (subscribed.has(peer)) {
        member.repairs = 0;
        continue;
      }
      if (member.rounds < 2) continue;
      this.#counters.add('gossip_repairs');
      if (++member.repairs > MAX_REPAIRS) {
        this.#hooks.onBroken(peer);
        continue;
      }
      void this.#topology?.onDisconnect?.(member.peerId);
      void this.#topology?.onConnect?.(member.peerId, member.connection);
    }
  }
}

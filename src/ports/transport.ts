import type { NodeId } from '../model/ids.ts';

/**
 * Messages between admitted peers. Adapters: libp2p, and a memory one for tests; both pass test/contract/transport-contract.ts.
 * Nothing reaches a handler from a connection that has not passed admission.
 */
export interface Transport {
  readonly self: NodeId;
  start(handlers: TransportHandlers, signal: AbortSignal): Promise<void>;
  /** Multiaddrs others can dial, newest first. */
  addresses(): readonly string[];
  /** Fire and forget on the long-lived framed stream; dropped (counted) when there is no connection or its queue is full. */
  send(to: NodeId, channel: Channel, payload: Uint8Array): void;
  /** Rejects with TaskOrgError: unreachable | timeout | too_large | busy, or the remote's error by code. */
  request(
    to: NodeId,
    method: string,
    payload: Uint8Array,
    options: { readonly timeoutMs: number; readonly signal?: AbortSignal },
  ): Promise<Uint8Array>;
  /** A pull-based byte stream from a peer (bulk: snapshots, logs, later chunks); never in the way of `send`. */
  openStream(to: NodeId, method: string, payload: Uint8Array, signal: AbortSignal): Promise<ByteStream>;
  publish(topic: Topic, payload: Uint8Array): Promise<void>;
  /** One dial attempt, also used by the redial loop: resolves when admitted; rejects with 'refused' in the message cause when the port refused. */
  dial(to: NodeId, signal: AbortSignal): Promise<void>;
  /** Ends the connection to a peer from which nothing comes any more; told as any loss, and redialled if it is wanted. */
  hangUp(peer: NodeId): void;
  /** Which peers may be connected (allow-list) and their known addresses; a peer struck from it is disconnected at once. */
  setPeers(peers: readonly KnownPeer[]): void;
  /** Peers this one should keep a connection to (all, or its monitors, voters ...): redialled with back-off. */
  setWanted(peers: readonly NodeId[]): void;
  connected(): readonly NodeId[];
  /** Counters for `metrics`, e.g. bytes in and out, frames rejected by reason. */
  counters(): Readonly<Record<string, number>>;
  stop(): Promise<void>;
}

/** Channels of the framed stream. */
export type Channel = 'membership' | 'raft' | 'lease' | 'facts' | 'control';
export type Topic = 'tasks' | 'members' | 'log';

export interface KnownPeer {
  readonly id: NodeId;
  readonly addresses: readonly string[];
}

export interface TransportHandlers {
  onConnected(peer: NodeId): void;
  onDisconnected(peer: NodeId): void;
  onDialFailed(peer: NodeId, refused: boolean): void;
  /** A member, proven by a secret of the cluster, says that this peer is not in its allow-list: it was removed meanwhile. */
  onStruck?(by: NodeId): void;
  onMessage(from: NodeId, channel: Channel, payload: Uint8Array): void;
  /** Verified gossip (StrictSign): `from` is the signer. */
  onGossip(from: NodeId, topic: Topic, payload: Uint8Array): void;
  onRequest(from: NodeId, method: string, payload: Uint8Array, signal: AbortSignal): Promise<Uint8Array>;
  onStream(from: NodeId, method: string, payload: Uint8Array, stream: ByteStream, signal: AbortSignal): Promise<void>;
  /** A stranger with a valid invitation asks to be admitted: commit it, then answer. Rejects to refuse. */
  onJoinRequest(request: JoinRequest, signal: AbortSignal): Promise<JoinGrant>;
}

export interface JoinRequest {
  readonly from: NodeId;
  readonly invitationId: string;
  readonly name: string;
  readonly addresses: readonly string[];
  readonly labels: Readonly<Record<string, string>>;
  readonly priority: number;
  readonly witness: boolean;
}
/** What follows admission, inside the proven channel: the secret and whom to talk to. */
export interface JoinGrant {
  readonly clusterId: string;
  readonly secret: Uint8Array;
  readonly dataKeys: readonly Uint8Array[];
  readonly peers: readonly KnownPeer[];
}

/** Pull-based both ways: `read` asks for the next chunk, `write` resolves when there is room. */
export interface ByteStream {
  readonly source: AsyncIterable<Uint8Array>;
  write(chunk: Uint8Array): Promise<void>;
  /** Ends our side. */
  end(): Promise<void>;
  abort(error: Error): void;
}

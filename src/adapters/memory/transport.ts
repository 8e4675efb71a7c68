import { TaskOrgError, toTaskOrgError } from '../../model/errors.ts';
import type { NodeId } from '../../model/ids.ts';
import { LIMITS } from '../../model/limits.ts';
import type { ByteStream, Channel, KnownPeer, Topic, Transport, TransportHandlers } from '../../ports/transport.ts';
import { Redialer } from '../libp2p/redial.ts';
import { bytePipe } from './byte-pipe.ts';

// The Transport port within one process, for tests: the same promises as the libp2p adapter (order, limits, allow-lists on
// both sides, errors by code), with no wire, no keys and no admission. Deliveries are asynchronous, one turn later.

const HELD_MS = 10_000;

interface Link {
  readonly ends: readonly [MemoryTransport, MemoryTransport];
  open: boolean;
}

/** Where memory transports meet. `block` cuts a pair like a cable: nothing passes and nobody is told. */
export class MemoryNetwork {
  readonly online = new Map<NodeId, MemoryTransport>();
  readonly #blocked = new Set<string>();

  block(a: NodeId, b: NodeId): void {
    this.#blocked.add(pairKey(a, b));
  }

  unblock(a: NodeId, b: NodeId): void {
    this.#blocked.delete(pairKey(a, b));
  }

  passes(a: NodeId, b: NodeId): boolean {
    return !this.#blocked.has(pairKey(a, b));
  }
}

const pairKey = (a: NodeId, b: NodeId): string => (a < b ? `${a}|${b}` : `${b}|${a}`);

export function createMemoryTransport(options: { readonly self: NodeId; readonly network: MemoryNetwork }): Transport {
  return new MemoryTransport(options.self, options.network);
}

class MemoryTransport implements Transport {
  readonly self: NodeId;
  readonly #network: MemoryNetwork;
  readonly #counters = new Map<string, number>();
  readonly #links = new Map<NodeId, Link>();
  readonly #known = new Map<NodeId, KnownPeer>();
  readonly #knownWaiters = new Set<() => void>();
  readonly #redial: Redialer;
  readonly #closing = new AbortController();
  #handlers: TransportHandlers | null = null;
  #inFlight = 0;

  constructor(self: NodeId, network: MemoryNetwork) {
    this.self = self;
    this.#network = network;
    this.#redial = new Redialer(self, {
      attempt: (peer) => this.dial(peer, AbortSignal.timeout(5_000)),
      connected: (peer) => this.#links.has(peer),
      random: () => 0.5,
    });
  }

  async start(handlers: TransportHandlers, signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    this.#handlers = handlers;
    this.#network.online.set(this.self, this);
  }

  addresses(): readonly string[] {
    return [`/memory/${this.self}`];
  }

  send(to: NodeId, channel: Channel, payload: Uint8Array): void {
    const link = this.#links.get(to);
    if (!link) {
      this.#count('send_unreachable');
      return;
    }
    if (payload.length > LIMITS.rpcFrameBytes) {
      this.#count('send_too_large');
      return;
    }
    this.#count('rpc_frames_out');
    this.#deliver(link, (far) => far.#handlers?.onMessage(this.self, channel, payload.slice()));
  }

  async request(
    to: NodeId,
    method: string,
    payload: Uint8Array,
    options: { readonly timeoutMs: number; readonly signal?: AbortSignal },
  ): Promise<Uint8Array> {
    if (payload.length > LIMITS.rpcFrameBytes) throw new TaskOrgError('too_large', `request ${method} is too large`);
    const link = this.#links.get(to);
    if (!link) throw new TaskOrgError('unreachable', `no connection to ${to}`, { retryable: true });
    if (options.signal?.aborted) throw new TaskOrgError('aborted', `request ${method} was given up`);
    if (this.#inFlight >= LIMITS.rpcInFlight)
      throw new TaskOrgError('busy', 'too many requests in flight', { retryable: true });
    this.#inFlight++;
    const answer = Promise.withResolvers<Uint8Array>();
    const remote = new AbortController();
    const fail = (code: 'timeout' | 'aborted' | 'unreachable') => (): void =>
      answer.reject(new TaskOrgError(code, `${method}: ${code}`, { retryable: code !== 'aborted' }));
    const timer = setTimeout(fail('timeout'), options.timeoutMs);
    const onAbort = fail('aborted');
    const onLost = fail('unreachable');
    options.signal?.addEventListener('abort', onAbort, { once: true });
    const forget = whenClosed(link, onLost);
    this.#deliver(link, (far) => {
      const serving = Promise.resolve().then(() => {
        if (!far.#handlers) throw new TaskOrgError('unreachable', 'stopped');
        return far.#handlers.onRequest(this.self, method, payload.slice(), remote.signal);
      });
      serving.then(
        (result) =>
          far.#deliver(link, () =>
            result.length > LIMITS.rpcFrameBytes
              ? answer.reject(new TaskOrgError('too_large', 'the answer is too large'))
              : answer.resolve(result.slice()),
          ),
        (cause) => far.#deliver(link, () => answer.reject(crossing(cause))),
      );
    });
    try {
      return await answer.promise;
    } catch (cause) {
      remote.abort();
      throw cause;
    } finally {
      this.#inFlight--;
      clearTimeout(timer);
      forget();
      options.signal?.removeEventListener('abort', onAbort);
    }
  }

  async openStream(to: NodeId, method: string, payload: Uint8Array, signal: AbortSignal): Promise<ByteStream> {
    signal.throwIfAborted();
    const link = this.#links.get(to);
    if (!link) throw new TaskOrgError('unreachable', `no connection to ${to}`, { retryable: true });
    const remote = new AbortController();
    const [near, far] = bytePipe(() => remote.abort());
    const forget = whenClosed(link, () =>
      near.abort(new TaskOrgError('unreachable', 'the transfer was cut off', { retryable: true })),
    );
    const onAbort = (): void => near.abort(new TaskOrgError('aborted', `${method} was given up`));
    signal.addEventListener('abort', onAbort, { once: true });
    this.#deliver(link, (other) => {
      Promise.resolve()
        .then(() => other.#handlers?.onStream(this.self, method, payload.slice(), far, remote.signal))
        .then(
          () => far.end(),
          (cause) => far.abort(crossing(cause)),
        )
        .finally(() => {
          forget();
          signal.removeEventListener('abort', onAbort);
        });
    });
    return near;
  }

  async publish(topic: Topic, payload: Uint8Array): Promise<void> {
    if (payload.length > LIMITS.gossipFrameBytes)
      throw new TaskOrgError('too_large', `gossip is limited to ${LIMITS.gossipFrameBytes} bytes`);
    this.#count('gossip_out');
    // Floods the connected part, each peer once, like a mesh would.
    const seen = new Set<MemoryTransport>([this]);
    const queue: MemoryTransport[] = [this];
    for (let node = queue.shift(); node; node = queue.shift()) {
      for (const link of node.#links.values()) {
        const far = node.#far(link);
        if (seen.has(far) || !this.#network.passes(node.self, far.self)) continue;
        seen.add(far);
        queue.push(far);
        setImmediate(() => {
          if (!far.#known.has(this.self)) return far.#count('gossip_refused_signer');
          far.#count('gossip_in');
          far.#handlers?.onGossip(this.self, topic, payload.slice());
        });
      }
    }
  }

  async dial(to: NodeId, signal: AbortSignal): Promise<void> {
    if (this.#links.has(to)) return;
    if (!this.#handlers) throw new TaskOrgError('unreachable', 'the transport is not running');
    if (!this.#known.has(to)) throw new TaskOrgError('not_admitted', `${to} is not in the allow-list`);
    const limit = AbortSignal.any([signal, this.#closing.signal, AbortSignal.timeout(HELD_MS)]);
    const far = this.#network.online.get(to);
    const passes = this.#network.passes(this.self, to);
    if (!far || !passes) {
      const refused = passes;
      await Promise.resolve();
      this.#handlers?.onDialFailed(to, refused);
      throw new TaskOrgError('unreachable', `cannot reach ${to}`, {
        retryable: true,
        cause: new Error(refused ? 'refused' : 'no answer'),
      });
    }
    await far.#whenKnown(this.self, limit);
    if (this.#links.has(to)) return;
    if (far.#handlers === null || this.#handlers === null)
      throw new TaskOrgError('unreachable', `cannot reach ${to}`, { retryable: true });
    const link: Link = { ends: [this, far], open: true };
    this.#links.set(to, link);
    far.#links.set(this.self, link);
    far.#handlers.onConnected(this.self);
    this.#handlers.onConnected(to);
  }

  setPeers(peers: readonly KnownPeer[]): void {
    this.#known.clear();
    for (const peer of peers) if (peer.id !== this.self) this.#known.set(peer.id, peer);
    for (const wake of [...this.#knownWaiters]) wake();
    for (const link of [...this.#links.values()]) if (!this.#known.has(this.#far(link).self)) this.#close(link);
    for (const peer of this.#known.keys()) this.#redial.announced(peer);
  }

  setWanted(peers: readonly NodeId[]): void {
    this.#redial.setWanted(peers);
  }

  hangUp(peer: NodeId): void {
    const link = this.#links.get(peer);
    if (link) this.#close(link);
  }

  connected(): readonly NodeId[] {
    return [...this.#links.keys()];
  }

  counters(): Readonly<Record<string, number>> {
    return { ...Object.fromEntries(this.#counters), connections: this.#links.size };
  }

  async stop(): Promise<void> {
    if (this.#closing.signal.aborted) return;
    this.#closing.abort();
    this.#redial.stop();
    if (this.#network.online.get(this.self) === this) this.#network.online.delete(this.self);
    this.#handlers = null;
    for (const link of [...this.#links.values()]) this.#close(link);
  }

  async #whenKnown(peer: NodeId, signal: AbortSignal): Promise<void> {
    while (!this.#known.has(peer)) {
      if (signal.aborted)
        throw new TaskOrgError('unreachable', 'the peer did not admit this one in time', { retryable: true });
      const changed = Promise.withResolvers<void>();
      const wake = (): void => changed.resolve();
      this.#knownWaiters.add(wake);
      signal.addEventListener('abort', wake, { once: true });
      await changed.promise;
      this.#knownWaiters.delete(wake);
    }
  }

  #far(link: Link): MemoryTransport {
    return link.ends[0] === this ? link.ends[1] : link.ends[0];
  }

  #close(link: Link): void {
    if (!link.open) return;
    link.open = false;
    for (const end of link.ends) {
      const other = end.#far(link).self;
      if (end.#links.get(other) === link) end.#links.delete(other);
    }
    for (const end of link.ends) {
      const other = end.#far(link).self;
      setImmediate(() => {
        end.#handlers?.onDisconnected(other);
        end.#redial.lost(other);
      });
    }
    for (const wake of closeListeners.get(link) ?? []) wake();
    closeListeners.delete(link);
  }

  #deliver(link: Link, action: (far: MemoryTransport) => void): void {
    const far = this.#far(link);
    setImmediate(() => {
      if (link.open && this.#network.passes(this.self, far.self)) action(far);
    });
  }

  #count(name: string): void {
    this.#counters.set(name, (this.#counters.get(name) ?? 0) + 1);
  }
}

const closeListeners = new WeakMap<Link, Set<() => void>>();

function whenClosed(link: Link, action: () => void): () => void {
  const listeners = closeListeners.get(link) ?? new Set();
  closeListeners.set(link, listeners);
  listeners.add(action);
  return () => listeners.delete(action);
}

/** What of an error crosses between peers: code, message, hint, retryable. */
function crossing(cause: unknown): TaskOrgError {
  const error = toTaskOrgError(cause);
  return new TaskOrgError(error.code, error.message, {
    retryable: error.retryable,
    ...(error.hint === undefined ? {} : { hint: error.hint }),
  });
}

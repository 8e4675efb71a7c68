import type { Connection, Stream } from '@libp2p/interface';
import { TaskOrgError } from '../../model/errors.ts';
import type { ClusterId, NodeId } from '../../model/ids.ts';
import type { Channel } from '../../ports/transport.ts';
import { abortConnection } from './abort-connection.ts';
import type { Counters, TransportLog } from './counters.ts';
import { deadline } from './deadline.ts';
import type { FrameError } from './frame-reader.ts';
import { FramedStream, type FramedStreamLimits } from './framed-stream.ts';

// One framed stream per pair of peers, whatever connections there are. The peer with the lower PeerId is the chair of the
// pair: it alone opens the framed stream and closes surplus connections (both dialled at once, or one is a dead remainder
// of a machine that lost its power). The other end accepts what the chair opens, and a newer stream replaces an older one.

export const rpcProtocol = (cluster: ClusterId): string => `/task-org/${cluster}/rpc/1`;

/** How long the chair waits for a sign of life on the old stream before a newer connection takes over. */
const PROBE_MS = 2_000;
const HELLO_MS = 3_000;
/** Admitted connections that carry nothing are closed after this. */
const SURPLUS_MS = 5_000;

export interface LinkHooks {
  onUp(peer: NodeId, connection: Connection, addresses: readonly string[]): void;
  onDown(peer: NodeId): void;
  onMessage(from: NodeId, channel: Channel, payload: Uint8Array): void;
  onRequest(from: NodeId, method: string, payload: Uint8Array, signal: AbortSignal): Promise<Uint8Array>;
  ownAddresses(): readonly string[];
}

interface Pair {
  readonly peer: NodeId;
  /** Admitted connections, oldest first. */
  readonly connections: Set<Connection>;
  link: { readonly rpc: FramedStream; readonly connection: Connection } | null;
  /** The chair is opening or probing. */
  busy: boolean;
  readonly waiters: Set<PromiseWithResolvers<void>>;
}

export class PeerLinks {
  readonly #self: NodeId;
  readonly #protocol: string;
  readonly #limits: FramedStreamLimits;
  readonly #hooks: LinkHooks;
  readonly #counters: Counters;
  readonly #log: TransportLog;
  readonly #pairs = new Map<NodeId, Pair>();
  readonly #timers = new Set<() => void>();
  #stopped = false;

  constructor(
    options: { self: NodeId; clusterId: ClusterId; limits: FramedStreamLimits },
    hooks: LinkHooks,
    counters: Counters,
    log: TransportLog,
  ) {
    this.#self = options.self;
    this.#protocol = rpcProtocol(options.clusterId);
    this.#limits = options.limits;
    this.#hooks = hooks;
    this.#counters = counters;
    this.#log = log;
  }

  get(peer: NodeId): FramedStream | undefined {
    return this.#pairs.get(peer)?.link?.rpc;
  }

  /** The connection that carries the framed stream: bulk and gossip use the same. */
  connection(peer: NodeId): Connection | undefined {
    return this.#pairs.get(peer)?.link?.connection;
  }

  up(): NodeId[] {
    const out: NodeId[] = [];
    for (const pair of this.#pairs.values()) if (pair.link) out.push(pair.peer);
    return out;
  }

  /** Resolves when the peer's framed stream is open; rejects when the signal aborts. */
  async whenUp(peer: NodeId, signal: AbortSignal): Promise<void> {
    const pair = this.#pair(peer);
    if (pair.link) return;
    const waiter = Promise.withResolvers<void>();
    const onAbort = (): void =>
      waiter.reject(new TaskOrgError('unreachable', 'the peer did not admit this one in time', { retryable: true }));
    signal.addEventListener('abort', onAbort, { once: true });
    pair.waiters.add(waiter);
    try {
      if (signal.aborted) onAbort();
      await waiter.promise;
    } finally {
      signal.removeEventListener('abort', onAbort);
      pair.waiters.delete(waiter);
      this.#forget(pair);
    }
  }

  onAdmitted(connection: Connection, peer: NodeId): void {
    const pair = this.#pair(peer);
    pair.connections.add(connection);
    if (this.#self < peer) void this.#arrange(pair);
    else this.#closeIfSurplus(pair, connection);
  }

  onGone(connection: Connection, peer: NodeId): void {
    const pair = this.#pairs.get(peer);
    if (!pair) return;
    pair.connections.delete(connection);
    if (pair.link?.connection === connection) pair.link.rpc.close();
    this.#forget(pair);
  }

  /** The framed stream's protocol handler; the caller has checked admission. */
  serve(stream: Stream, connection: Connection, peer: NodeId): void {
    if (this.#self < peer || this.#stopped) {
      this.#counters.add('refused_unexpected');
      stream.abort(new Error('the peer with the lower id opens the framed stream'));
      return;
    }
    const pair = this.#pair(peer);
    pair.connections.add(connection);
    const rpc = this.#framed(pair, stream, connection, (addresses) => {
      rpc.hello(this.#hooks.ownAddresses());
      this.#raise(pair, rpc, connection, addresses);
    });
    this.#after(HELLO_MS, () => {
      if (pair.link?.rpc !== rpc) rpc.close();
    });
  }

  /** Cuts every connection to a peer. */
  cut(peer: NodeId): void {
    const pair = this.#pairs.get(peer);
    if (!pair) return;
    for (const connection of [...pair.connections]) abortConnection(connection, 'cut');
    pair.link?.rpc.close();
  }

  stop(): void {
    this.#stopped = true;
    for (const cancel of this.#timers) cancel();
    this.#timers.clear();
    for (const pair of [...this.#pairs.values()]) {
      pair.link?.rpc.close();
      for (const waiter of pair.waiters) waiter.reject(new TaskOrgError('aborted', 'the transport has stopped'));
    }
    this.#pairs.clear();
  }

  /** Chair only: a live link stays and surplus goes; a dead one gives way to the newest connection. */
  async #arrange(pair: Pair): Promise<void> {
    if (pair.busy || this.#stopped) return;
    pair.busy = true;
    try {
      while (!this.#stopped) {
        if (pair.link) {
          const surplus = [...pair.connections].filter((connection) => connection !== pair.link?.connection);
          if (surplus.length === 0) return;
          if (await pair.link.rpc.ping(PROBE_MS)) {
            this.#counters.add('surplus_closed', surplus.length);
            for (const connection of surplus) this.#discard(pair, connection);
          } else if (pair.link) {
            this.#counters.add('links_replaced');
            this.#discard(pair, pair.link.connection);
          }
          continue;
        }
        const newest = [...pair.connections].at(-1);
        if (!newest) return;
        if (!(await this.#open(pair, newest))) this.#discard(pair, newest);
      }
    } finally {
      pair.busy = false;
      this.#forget(pair);
    }
  }

  async #open(pair: Pair, connection: Connection): Promise<boolean> {
    try {
      const stream = await connection.newStream(this.#protocol, { signal: AbortSignal.timeout(HELLO_MS) });
      return await new Promise<boolean>((resolve) => {
        const rpc = this.#framed(pair, stream, connection, (addresses) => {
          this.#raise(pair, rpc, connection, addresses);
          resolve(true);
        });
        stream.addEventListener('close', () => resolve(false), { once: true });
        this.#after(HELLO_MS, () => {
          if (pair.link?.rpc !== rpc) rpc.close();
          resolve(false);
        });
        rpc.hello(this.#hooks.ownAddresses());
      });
    } catch (cause) {
      this.#log.debug({ peer: pair.peer, detail: String(cause) }, 'framed stream not opened');
      return false;
    }
  }

  #framed(
    pair: Pair,
    stream: Stream,
    connection: Connection,
    onHello: (addresses: readonly string[]) => void,
  ): FramedStream {
    const rpc: FramedStream = new FramedStream(
      stream,
      this.#limits,
      {
        onHello,
        onMessage: (channel, payload) => this.#hooks.onMessage(pair.peer, channel, payload),
        onRequest: (method, payload, signal) => this.#hooks.onRequest(pair.peer, method, payload, signal),
        onClosed: (reason) => this.#onClosed(pair, rpc, connection, reason),
      },
      this.#counters,
    );
    return rpc;
  }

  #raise(pair: Pair, rpc: FramedStream, connection: Connection, addresses: readonly string[]): void {
    const old = pair.link;
    if (old && old.rpc !== rpc) {
      this.#counters.add('links_replaced');
      old.rpc.close();
    }
    pair.link = { rpc, connection };
    this.#pairs.set(pair.peer, pair);
    this.#counters.add('links_up');
    this.#hooks.onUp(pair.peer, connection, addresses);
    for (const waiter of pair.waiters) waiter.resolve();
    for (const other of pair.connections) if (other !== connection) this.#closeIfSurplus(pair, other);
  }

  #onClosed(pair: Pair, rpc: FramedStream, connection: Connection, reason: FrameError | null): void {
    if (reason) {
      this.#counters.add(`rpc_${reason.reason}`);
      this.#log.warn(
        { peer: pair.peer, reason: reason.reason, detail: reason.message },
        'peer broke the wire format; closing its connection',
      );
    }
    if (pair.link?.rpc === rpc) {
      pair.link = null;
      this.#counters.add('links_down');
      this.#hooks.onDown(pair.peer);
    }
    // Without its framed stream a connection is of no use; a new one starts clean.
    this.#discard(pair, connection);
    if (this.#self < pair.peer && pair.connections.size > 0) void this.#arrange(pair);
  }

  #discard(pair: Pair, connection: Connection): void {
    pair.connections.delete(connection);
    abortConnection(connection, 'surplus or broken connection');
    this.#forget(pair);
  }

  #closeIfSurplus(pair: Pair, connection: Connection): void {
    this.#after(SURPLUS_MS, () => {
      if (pair.connections.has(connection) && pair.link?.connection !== connection) this.#discard(pair, connection);
    });
  }

  #after(ms: number, action: () => void): void {
    if (this.#stopped) return;
    const cancel = deadline(ms, () => {
      this.#timers.delete(cancel);
      action();
    });
    this.#timers.add(cancel);
  }

  #pair(peer: NodeId): Pair {
    let pair = this.#pairs.get(peer);
    if (!pair) {
      pair = { peer, connections: new Set(), link: null, busy: false, waiters: new Set() };
      this.#pairs.set(peer, pair);
    }
    return pair;
  }

  #forget(pair: Pair): void {
    if (
      !pair.link &&
      !pair.busy &&
      pair.connections.size === 0 &&
      pair.waiters.size === 0 &&
      this.#pairs.get(pair.peer) === pair
    ) {
      this.#pairs.delete(pair.peer);
    }
  }
}

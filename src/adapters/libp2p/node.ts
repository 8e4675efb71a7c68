import type { GossipSubComponents } from '@chainsafe/libp2p-gossipsub';
import type { ComponentLogger, Connection, Libp2p, Logger, PrivateKey } from '@libp2p/interface';
import { tcp } from '@libp2p/tcp';
import { yamux } from '@libp2p/yamux';
import type { Multiaddr } from '@multiformats/multiaddr';
import { createLibp2p } from 'libp2p';
import { TaskOrgError } from '../../model/errors.ts';
import { LIMITS } from '../../model/limits.ts';
import type { RawConnection, StrangerAllowance } from './allowance.ts';
import { encryption } from './encryption.ts';

// The one place that builds the libp2p node, with every setting and why it is not the default.
// There is no identify, no ping, no autodial and no peer discovery service: admission, the redial loop, the gossip room
// and mDNS of this adapter do what of it is needed, and only towards admitted peers.

/** The parts of a node that the public type hides. */
export type NodeComponents = GossipSubComponents & {
  readonly transportManager: {
    dial(address: Multiaddr, options: { signal: AbortSignal }): Promise<Connection>;
    getAddrs(): Multiaddr[];
  };
};

export interface BuiltNode {
  readonly libp2p: Libp2p;
  readonly components: NodeComponents;
}

/** Streams a peer may hold open per connection on one protocol; both ends must agree (libp2p resets the excess silently). */
export const STREAMS_PER_PROTOCOL = 64;

const MAX_CONNECTIONS = LIMITS.peers * 2;

export async function createNode(options: {
  readonly privateKey: PrivateKey;
  readonly listen: readonly string[];
  /** Bounds what inbound connections send before they are admitted. */
  readonly allowance?: StrangerAllowance;
}): Promise<BuiltNode> {
  const libp2p = await createLibp2p({
    privateKey: options.privateKey,
    start: false,
    addresses: { listen: [...options.listen] },
    // A silent socket is closed by our probes, not by TCP's own two minutes: a quiet connection is a healthy one.
    transports: [
      tcp({
        inboundSocketInactivityTimeout: 10 * 60_000,
        outboundSocketInactivityTimeout: 10 * 60_000,
        dialOpts: { noDelay: true, keepAlive: true },
        listenOpts: { noDelay: true, keepAlive: true },
      }),
    ],
    connectionEncrypters: [encryption()],
    // A window of 1 MiB bounds what one stream may have under way; a reader 4 MiB behind would be cut off.
    streamMuxers: [
      yamux({
        streamOptions: { maxStreamWindowSize: 1 << 20, initialStreamWindowSize: 1 << 18 },
        maxInboundStreams: 4 * STREAMS_PER_PROTOCOL,
        maxOutboundStreams: 4 * STREAMS_PER_PROTOCOL,
      }),
    ],
    connectionManager: {
      maxConnections: MAX_CONNECTIONS,
      // The defaults (5 a second from one address, 10 pending) refuse a whole cluster that starts behind one address.
      inboundConnectionThreshold: Number.POSITIVE_INFINITY,
      maxIncomingPendingConnections: 500,
      inboundUpgradeTimeout: 3_000,
      inboundStreamProtocolNegotiationTimeout: 3_000,
      outboundStreamProtocolNegotiationTimeout: 3_000,
      connectionCloseTimeout: 500,
      // Its reconnection gives up after five tries: redial.ts never does.
      reconnectRetries: 0,
    },
    // Aborts live connections when a ping takes over 5 s, and costs a stream per peer and 10 s. SWIM probes instead.
    connectionMonitor: { enabled: false, abortConnectionOnPingFailure: false },
    connectionGater: {
      denyDialMultiaddr: () => false,
      denyInboundConnection: (raw) => {
        options.allowance?.watch(raw as unknown as RawConnection);
        return false;
      },
    },
    logger: process.env.DEBUG?.includes('libp2p') ? (undefined as never) : quietLogger,
    services: { internals: (components: NodeComponents) => ({ components }) },
  });
  return { libp2p, components: libp2p.services.internals.components };
}

/** Starts it. Throws port_in_use or invalid_input for addresses it cannot listen on. */
export async function startNode(node: BuiltNode, listen: readonly string[]): Promise<void> {
  try {
    await node.libp2p.start();
  } catch (cause) {
    const message = cause instanceof Error ? cause.message : String(cause);
    if (message.includes('EADDRINUSE')) {
      throw new TaskOrgError('port_in_use', `another program listens on ${listen.join(', ')}`, {
        hint: 'Choose another address with --listen (port 0 takes any free one), or stop the other program.',
        cause,
      });
    }
    throw new TaskOrgError('invalid_input', `cannot listen on ${listen.join(', ')}: ${message.trim()}`, {
      hint: 'Give --listen an address of this machine, such as /ip4/0.0.0.0/tcp/0.',
      cause,
    });
  }
}

/** libp2p makes a named logger per connection and stream; this one costs nothing. DEBUG=libp2p* brings the real one back. */
const quiet: Logger = Object.assign(() => {}, { error() {}, trace() {}, enabled: false, newScope: () => quiet });
const quietLogger: ComponentLogger = { forComponent: () => quiet };

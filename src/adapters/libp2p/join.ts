import type { Connection, PrivateKey } from '@libp2p/interface';
import { peerIdFromPrivateKey } from '@libp2p/peer-id';
import { TaskOrgError, toTaskOrgError } from '../../model/errors.ts';
import { nodeId } from '../../model/ids.ts';
import type { JoinToken } from '../../model/token.ts';
import type { JoinGrant } from '../../ports/transport.ts';
import { abortConnection } from './abort-connection.ts';
import { peerIdOf, withoutPeerId } from './address-book.ts';
import { invitationKey, proveAsDialler, readMessage, throwIfRefused } from './admission.ts';
import { Counters, silentLog, type TransportLog } from './counters.ts';
import { race } from './dialer.ts';
import { FrameChannel } from './frame-channel.ts';
import { admissionProtocol } from './gate.ts';
import { decodeGrant, encodeJoinRequest, type JoinInfo } from './join-messages.ts';
import { listenAddresses } from './listen-addresses.ts';
import { Mdns } from './mdns.ts';
import { type BuiltNode, createNode, startNode } from './node.ts';

// Joining: with nothing but a token, find a member of its cluster (the token's addresses, mDNS), prove the invitation,
// ask, and take the grant over the connection that noise encrypts and the invitation has proven at both ends.

export type { JoinInfo } from './join-messages.ts';

const ROUND_PAUSE_MS = 300;
const DIAL_MS = 3_000;
const GRANT_BYTES = 1024 * 1024;

export interface JoinOptions {
  readonly privateKey: PrivateKey;
  /** Decoded; its expiry has been compared with the clock by the caller. */
  readonly token: JoinToken;
  /** As for the transport that follows. Port 0 is settled here, so that the request can name it. */
  readonly listen: readonly string[];
  readonly mdns: boolean;
  readonly mdnsPort?: number;
  /** Addresses left empty are filled with this machine's. */
  readonly request: JoinInfo;
}

/** `listen` has its ports settled: hand it to createLibp2pTransport. */
export type JoinOutcome = JoinGrant & { readonly listen: readonly string[] };

/**
 * Resolves once a member has committed the admission. Tries all candidates again until `signal` aborts (the caller's
 * limit), unless every one refuses for good. Throws token_expired | token_invalid | token_other_cluster | port_in_use |
 * unreachable (nobody answered in time), or the refusal of the member asked last.
 */
export async function joinCluster(
  options: JoinOptions,
  signal: AbortSignal,
  deps: { readonly log?: TransportLog } = {},
): Promise<JoinOutcome> {
  const log = deps.log ?? silentLog;
  const self = nodeId(peerIdFromPrivateKey(options.privateKey).toString());
  const node = await createNode({ privateKey: options.privateKey, listen: options.listen });
  await startNode(node, options.listen);
  // Nobody has business with a peer that is not one yet.
  node.libp2p.addEventListener('connection:open', (event) => {
    if (event.detail.direction === 'inbound') abortConnection(event.detail, 'not a member yet');
  });
  const candidates = new Candidates(options.token.addresses, self);
  const { clusterId } = options.token;
  const port = options.mdnsPort === undefined ? {} : { port: options.mdnsPort };
  const mdns = options.mdns
    ? new Mdns(
        { clusterId, self, addresses: () => listenAddresses(node, self), announce: false, ...port },
        (peer, addresses) => candidates.add(addresses.map((a) => `${a}/p2p/${peer}`)),
        new Counters(),
        log,
      )
    : null;
  mdns?.start();
  try {
    const addresses = listenAddresses(node, self);
    const info: JoinInfo = {
      ...options.request,
      addresses: options.request.addresses.length > 0 ? options.request.addresses : addresses.slice(0, 32),
    };
    const grant = await untilGranted(node, candidates, options.token, info, signal, log);
    return { ...grant, listen: settlePorts(options.listen, addresses) };
  } finally {
    await mdns?.stop();
    await node.libp2p.stop();
  }
}

/** Rounds over all candidates; a new one heard of on the LAN ends the pause. */
async function untilGranted(
  node: BuiltNode,
  candidates: Candidates,
  token: JoinToken,
  info: JoinInfo,
  signal: AbortSignal,
  log: TransportLog,
): Promise<JoinGrant> {
  let last: TaskOrgError | null = null;
  while (!signal.aborted) {
    const refusals: TaskOrgError[] = [];
    let tried = 0;
    for (const { peer, addresses } of candidates.list()) {
      if (signal.aborted) break;
      tried++;
      const outcome = await race(
        node.components.transportManager,
        peer,
        addresses,
        AbortSignal.any([signal, AbortSignal.timeout(DIAL_MS)]),
      );
      if (!outcome.ok) {
        last ??= new TaskOrgError(
          'unreachable',
          `no answer from ${outcome.failures.map((f) => f.address).join(', ')}`,
          { retryable: true },
        );
        continue;
      }
      try {
        return await ask(outcome.connection, node, token, info, signal);
      } catch (cause) {
        const error = toTaskOrgError(cause);
        last = error;
        log.info(
          { address: outcome.address, code: error.code, reason: error.message },
          'not admitted through this peer',
        );
        if (error.code === 'token_expired' || error.code === 'refused' || error.code === 'name_in_use') throw error;
        if (!error.retryable && error.code !== 'not_admitted') refusals.push(error);
      } finally {
        outcome.connection.close().catch(() => {});
      }
    }
    // An invitation one member has not heard of may be known to another, so all of them must say no.
    if (tried > 0 && refusals.length === tried && refusals[0]) throw refusals[0];
    await candidates.pause(ROUND_PAUSE_MS, signal);
  }
  throw (
    last ??
    new TaskOrgError('unreachable', 'no peer of the cluster answered', {
      retryable: true,
      hint: 'Check that a peer of the cluster runs and that this machine reaches one of the addresses in the token.',
    })
  );
}

async function ask(
  connection: Connection,
  node: BuiltNode,
  token: JoinToken,
  info: JoinInfo,
  signal: AbortSignal,
): Promise<JoinGrant> {
  const stop = (): void => abortConnection(connection, 'joining was given up');
  signal.addEventListener('abort', stop, { once: true });
  try {
    const stream = await connection
      .newStream(admissionProtocol(token.clusterId), { signal: AbortSignal.timeout(DIAL_MS) })
      .catch((cause) => {
        const unsupported = cause instanceof Error && cause.name === 'UnsupportedProtocolError';
        throw unsupported
          ? new TaskOrgError('token_other_cluster', 'the peer at this address belongs to another cluster', { cause })
          : new TaskOrgError('unreachable', 'the connection was lost', { retryable: true, cause });
      });
    const channel = new FrameChannel(stream, GRANT_BYTES);
    const parties = {
      clusterId: token.clusterId,
      dialler: nodeId(node.libp2p.peerId.toString()),
      listener: nodeId(connection.remotePeer.toString()),
    };
    await proveAsDialler(channel, 'join', [invitationKey(token.invitationId, token.key, token.clusterId)], parties);
    channel.write(encodeJoinRequest(info));
    const answer = readMessage(await channel.read());
    throwIfRefused(answer);
    return decodeGrant(answer);
  } catch (cause) {
    if (cause instanceof TaskOrgError) throw cause;
    throw new TaskOrgError('unreachable', 'the connection was lost while joining', { retryable: true, cause });
  } finally {
    signal.removeEventListener('abort', stop);
  }
}

/** Peers that may be asked, by PeerId; addresses without one stand alone. Bounded. */
class Candidates {
  readonly #byPeer = new Map<string, Set<string>>();
  readonly #self: string;
  #wake: (() => void) | null = null;

  constructor(addresses: readonly string[], self: string) {
    this.#self = self;
    this.add(addresses);
  }

  add(addresses: readonly string[]): void {
    for (const text of addresses) {
      const peer = peerIdOf(text) ?? '';
      const address = withoutPeerId(text);
      if (address === null || peer === this.#self || this.#byPeer.size >= 64) continue;
      const key = peer === '' ? address : peer;
      const known = this.#byPeer.get(key) ?? new Set();
      this.#byPeer.set(key, known);
      if (known.size < 16 && !known.has(address)) {
        known.add(address);
        this.#wake?.();
      }
    }
  }

  list(): { peer: string | null; addresses: string[] }[] {
    return [...this.#byPeer].map(([key, addresses]) => ({
      peer: key.startsWith('/') ? null : key,
      addresses: [...addresses],
    }));
  }

  async pause(ms: number, signal: AbortSignal): Promise<void> {
    const done = Promise.withResolvers<void>();
    const timer = setTimeout(() => done.resolve(), ms);
    signal.addEventListener('abort', () => done.resolve(), { once: true });
    this.#wake = () => done.resolve();
    await done.promise;
    this.#wake = null;
    clearTimeout(timer);
  }
}

/** `/tcp/0` becomes the port that was taken, so that the member's transport listens where the request said. */
function settlePorts(listen: readonly string[], actual: readonly string[]): string[] {
  const port = /\/tcp\/(\d+)/.exec(actual[0] ?? '')?.[1];
  return listen.map((address) =>
    port === undefined || listen.length > 1 ? address : address.replace(/\/tcp\/0(?=\/|$)/, `/tcp/${port}`),
  );
}

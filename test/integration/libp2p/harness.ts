import { randomBytes } from 'node:crypto';
import { generateKeyPair } from '@libp2p/crypto/keys';
import type { Connection, PrivateKey } from '@libp2p/interface';
import { peerIdFromPrivateKey } from '@libp2p/peer-id';
import { multiaddr } from '@multiformats/multiaddr';
import { agree, proveAsDialler, secretKey } from '../../../src/adapters/libp2p/admission.ts';
import { FrameChannel } from '../../../src/adapters/libp2p/frame-channel.ts';
import { admissionProtocol } from '../../../src/adapters/libp2p/gate.ts';
import { type BuiltNode, createNode, startNode } from '../../../src/adapters/libp2p/node.ts';
import {
  createLibp2pTransport,
  type Libp2pTransport,
  type Libp2pTransportOptions,
} from '../../../src/adapters/libp2p/transport.ts';
import { type ClusterId, clusterId, type NodeId, nodeId } from '../../../src/model/ids.ts';
import { Recorder } from '../../contract/transport-recorder.ts';

export const never = new AbortController().signal;
export const CLUSTER = clusterId('cluster-a');

export interface TestPeer {
  readonly transport: Libp2pTransport;
  readonly recorder: Recorder;
  readonly privateKey: PrivateKey;
}

/** Everything a test starts, stopped together. */
export class Rig {
  readonly secret = randomBytes(32);
  readonly #stops: (() => Promise<void>)[] = [];

  async peer(options: Partial<Libp2pTransportOptions> = {}): Promise<TestPeer> {
    const privateKey = options.privateKey ?? (await generateKeyPair('Ed25519'));
    const transport = createLibp2pTransport({
      privateKey,
      clusterId: CLUSTER,
      secrets: { current: this.secret, previous: [] },
      listen: ['/ip4/127.0.0.1/tcp/0'],
      mdns: false,
      ...options,
    });
    const recorder = new Recorder();
    await transport.start(recorder, never);
    this.#stops.push(() => transport.stop());
    return { transport, recorder, privateKey };
  }

  /** A bare libp2p node, as an attacker would write one. */
  async raw(privateKey?: PrivateKey): Promise<BuiltNode & { readonly id: NodeId }> {
    const key = privateKey ?? (await generateKeyPair('Ed25519'));
    const node = await createNode({ privateKey: key, listen: [] });
    await startNode(node, []);
    this.#stops.push(async () => node.libp2p.stop());
    return { ...node, id: nodeId(peerIdFromPrivateKey(key).toString()) };
  }

  async stop(): Promise<void> {
    await Promise.all(this.#stops.splice(0).map((stop) => stop()));
  }
}

export function introduce(...peers: readonly TestPeer[]): void {
  const known = peers.map(({ transport }) => ({ id: transport.self, addresses: transport.addresses() }));
  for (const { transport } of peers) transport.setPeers(known);
}

export async function dialRaw(node: BuiltNode, target: TestPeer): Promise<Connection> {
  const address = target.transport.addresses()[0] ?? '';
  return node.components.transportManager.dial(multiaddr(address), { signal: never });
}

export function closed(connection: Connection): Promise<void> {
  return new Promise((resolve) => {
    if (connection.status !== 'open') resolve();
    else connection.addEventListener('close', () => resolve(), { once: true });
  });
}

/** A correct admission by a bare node that knows the secret: what a broken or evil member could do. */
export async function admitRaw(
  node: BuiltNode & { readonly id: NodeId },
  connection: Connection,
  secret: Uint8Array,
  cluster: ClusterId = CLUSTER,
): Promise<void> {
  const stream = await connection.newStream(admissionProtocol(cluster));
  const channel = new FrameChannel(stream, 1 << 16);
  const listener = nodeId(connection.remotePeer.toString());
  await proveAsDialler(channel, 'member', [secretKey(secret, cluster, true)], {
    clusterId: cluster,
    dialler: node.id,
    listener,
  });
  await agree(
    channel,
    Promise.resolve(),
    () => {},
    () => {},
  );
}

/** A key whose PeerId sorts before (or after) another: it decides who opens the framed stream. */
export async function keyOrdered(relation: 'below' | 'above', other: NodeId): Promise<PrivateKey> {
  for (;;) {
    const key = await generateKeyPair('Ed25519');
    if (peerIdFromPrivateKey(key).toString() < other === (relation === 'below')) return key;
  }
}

import { randomBytes } from 'node:crypto';
import { createSocket, type Socket } from 'node:dgram';
import { isIP } from 'node:net';
import { PROBE } from '../../model/boot-protocol.ts';
import type { NodeId } from '../../model/ids.ts';
import type { BootProber } from '../../ports/boot.ts';
import { encodeRequest, openReply, type ProbeNames, replyNonce } from './packet.ts';

/** Probes that may be waiting for an answer; the oldest makes room. */
const MAX_OUTSTANDING = 4096;
const MAX_ADDRESSES = 8;

export interface UdpBootProberOptions {
  readonly self: NodeId;
  readonly clusterId: string;
  /** `deriveProbeKey` of the newest secret; asked at every probe, since secrets rotate. */
  readonly key: () => Uint8Array;
}

interface Outstanding {
  readonly peer: NodeId;
  readonly attempt: number;
  readonly key: Uint8Array;
  readonly names: ProbeNames;
}

/** `ip:port` or `[ipv6]:port`; undefined for anything else (names are not resolved: a probe must not wait for DNS). */
export function parseUdpAddress(
  text: string,
): { readonly host: string; readonly port: number; readonly family: 4 | 6 } | undefined {
  const m = /^(?:\[([0-9a-fA-F:.%\w]+)\]|([0-9.]+)):(\d{1,5})$/.exec(text);
  const host = m?.[1] ?? m?.[2] ?? '';
  const port = Number(m?.[3]);
  const family = isIP(host.split('%')[0] ?? '');
  if (!m || (family !== 4 && family !== 6) || port < 1 || port > 65_535) return undefined;
  return { host, port, family };
}

/**
 * Sends probes and hands on authentic answers, once each. An answer counts for the attempt it was asked in; silence is the
 * caller's to time.
 */
export class UdpBootProber implements BootProber {
  readonly #options: UdpBootProberOptions;
  readonly #outstanding = new Map<string, Outstanding>();
  readonly #callbacks: ((peer: NodeId, attempt: number, agentUp: boolean) => void)[] = [];
  readonly #sockets: { 4?: Socket; 6?: Socket } = {};
  #closed = false;
  readonly counters = { sent: 0, acked: 0, rejected: 0, sendErrors: 0 };

  constructor(options: UdpBootProberOptions) {
    this.#options = options;
  }

  probe(peer: NodeId, attempt: number, addresses: readonly string[]): void {
    if (this.#closed) return;
    const { self, clusterId, key } = this.#options;
    const nonce = randomBytes(PROBE.nonceBytes);
    const outstanding = { peer, attempt, key: key(), names: { clusterId, prober: self, target: peer } };
    const packet = encodeRequest(outstanding.key, outstanding.names, nonce);
    if (this.#outstanding.size >= MAX_OUTSTANDING)
      this.#outstanding.delete(this.#outstanding.keys().next().value as string);
    this.#outstanding.set(nonce.toString('latin1'), outstanding);
    // One nonce for all addresses of a machine: whichever answers first counts.
    for (const text of addresses.slice(0, MAX_ADDRESSES)) {
      const address = parseUdpAddress(text);
      if (address === undefined) continue;
      this.counters.sent++;
      this.#socket(address.family).send(packet, address.port, address.host, (error) => {
        if (error) this.counters.sendErrors++;
      });
    }
  }

  /** `agentUp`: that boot says its agent's process runs. */
  onAck(callback: (peer: NodeId, attempt: number, agentUp: boolean) => void): void {
    this.#callbacks.push(callback);
  }

  #socket(family: 4 | 6): Socket {
    const existing = this.#sockets[family];
    if (existing) return existing;
    const socket = createSocket(family === 4 ? 'udp4' : 'udp6');
    // An unreachable network shows as an error now and then: silence, to the prober.
    socket.on('error', () => this.counters.sendErrors++);
    socket.on('message', (packet) => this.#receive(packet));
    socket.unref();
    this.#sockets[family] = socket;
    return socket;
  }

  #receive(packet: Buffer): void {
    const nonce = replyNonce(packet)?.toString('latin1') ?? '';
    const outstanding = this.#outstanding.get(nonce);
    const flags = outstanding && openReply(outstanding.key, outstanding.names, packet);
    if (outstanding === undefined || flags === undefined) {
      this.counters.rejected++;
      return;
    }
    this.#outstanding.delete(nonce);
    this.counters.acked++;
    for (const callback of this.#callbacks)
      callback(outstanding.peer, outstanding.attempt, (flags & PROBE.flagAgentUp) !== 0);
  }

  close(): void {
    this.#closed = true;
    this.#sockets[4]?.close();
    this.#sockets[6]?.close();
    this.#outstanding.clear();
  }
}

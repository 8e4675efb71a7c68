import { createSocket, type RemoteInfo, type Socket } from 'node:dgram';
import { decodeRequest, encodeReply, verifyRequest } from '../adapters/boot-probe/packet.ts';
import { BOOT_LIMITS, PROBE } from '../model/boot-protocol.ts';
import type { Log } from '../ports/log.ts';

export interface ProbeIdentity {
  readonly clusterId: string;
  readonly nodeId: string;
  readonly keys: readonly Uint8Array[];
}

/** Answers authentic probes, once per nonce; everything else is dropped without a word. */
export class ProbeResponder {
  readonly #log: Log;
  readonly #agentUp: () => boolean;
  readonly #nonces = new Set<string>();
  #socket: Socket | undefined;
  #port = 0;
  identity: ProbeIdentity | undefined;
  readonly counters = { answered: 0, dropped: 0 };

  constructor(agentUp: () => boolean, log: Log) {
    this.#agentUp = agentUp;
    this.#log = log;
  }

  get port(): number {
    return this.#port;
  }

  /** Binds both families where it can, IPv4 alone otherwise. A port that is taken leaves the machine without an answer, and says so. */
  async start(port: number, host: string): Promise<void> {
    const attempts: ['udp6' | 'udp4', string][] =
      host === ''
        ? [
            ['udp6', '::'],
            ['udp4', '0.0.0.0'],
          ]
        : [[host.includes(':') ? 'udp6' : 'udp4', host]];
    let last: unknown;
    for (const [type, address] of attempts) {
      try {
        await this.#bind(type, address, port);
        return;
      } catch (error) {
        last = error;
      }
    }
    this.#log.error(
      { port, error: String(last) },
      'the probe port could not be bound: this machine looks dead whenever its agent is silent',
    );
  }

  #bind(type: 'udp6' | 'udp4', address: string, port: number): Promise<void> {
    return new Promise((resolve, reject) => {
      const socket = createSocket({ type });
      socket.once('error', (error) => {
        socket.close();
        reject(error);
      });
      socket.bind({ address, port, exclusive: true }, () => {
        socket.removeAllListeners('error');
        socket.on('error', (error) => this.#log.warn({ error: error.message }, 'probe socket'));
        socket.on('message', (packet, from) => this.#answer(packet, from));
        socket.unref();
        this.#socket = socket;
        this.#port = socket.address().port;
        resolve();
      });
    });
  }

  #answer(packet: Buffer, from: RemoteInfo): void {
    const request = decodeRequest(packet);
    const { identity } = this;
    const key = request && identity?.keys.find((k) => verifyRequest(k, identity.clusterId, identity.nodeId, request));
    const nonce = request?.nonce.toString('latin1') ?? '';
    if (request === undefined || identity === undefined || key === undefined || this.#nonces.has(nonce)) {
      this.counters.dropped++;
      return;
    }
    if (this.#nonces.size >= BOOT_LIMITS.probeNonces) this.#nonces.delete(this.#nonces.values().next().value as string);
    this.#nonces.add(nonce);
    this.counters.answered++;
    const names = { clusterId: identity.clusterId, prober: request.prober, target: identity.nodeId };
    this.#socket?.send(
      encodeReply(key, names, request.nonce, this.#agentUp() ? PROBE.flagAgentUp : 0),
      from.port,
      from.address,
      () => undefined,
    );
  }

  close(): void {
    this.#socket?.close();
    this.#socket = undefined;
  }
}

import { TaskOrgError } from '../../src/model/errors.ts';
import type { NodeId } from '../../src/model/ids.ts';
import type {
  ByteStream,
  Channel,
  JoinGrant,
  JoinRequest,
  Topic,
  TransportHandlers,
} from '../../src/ports/transport.ts';

export type Heard =
  | { readonly type: 'connected'; readonly peer: NodeId }
  | { readonly type: 'disconnected'; readonly peer: NodeId }
  | { readonly type: 'dial-failed'; readonly peer: NodeId; readonly refused: boolean }
  | { readonly type: 'message'; readonly from: NodeId; readonly channel: Channel; readonly payload: Uint8Array }
  | { readonly type: 'gossip'; readonly from: NodeId; readonly topic: Topic; readonly payload: Uint8Array }
  | { readonly type: 'request'; readonly from: NodeId; readonly method: string };

/** Handlers that write down what they hear and let a test wait for it. Behaviour is put in by the test. */
export class Recorder implements TransportHandlers {
  readonly heard: Heard[] = [];
  readonly #waiters = new Set<() => void>();
  serve: (from: NodeId, method: string, payload: Uint8Array, signal: AbortSignal) => Promise<Uint8Array> = async (
    _from,
    _method,
    payload,
  ) => payload;
  stream: (
    from: NodeId,
    method: string,
    payload: Uint8Array,
    stream: ByteStream,
    signal: AbortSignal,
  ) => Promise<void> = async () => {};
  join: (request: JoinRequest) => Promise<JoinGrant> = async () => {
    throw new TaskOrgError('refused', 'nobody joins here');
  };

  onConnected = (peer: NodeId): void => this.#note({ type: 'connected', peer });
  onDisconnected = (peer: NodeId): void => this.#note({ type: 'disconnected', peer });
  onDialFailed = (peer: NodeId, refused: boolean): void => this.#note({ type: 'dial-failed', peer, refused });
  onMessage = (from: NodeId, channel: Channel, payload: Uint8Array): void =>
    this.#note({ type: 'message', from, channel, payload });
  onGossip = (from: NodeId, topic: Topic, payload: Uint8Array): void =>
    this.#note({ type: 'gossip', from, topic, payload });
  onRequest = (from: NodeId, method: string, payload: Uint8Array, signal: AbortSignal): Promise<Uint8Array> => {
    this.#note({ type: 'request', from, method });
    return this.serve(from, method, payload, signal);
  };
  onStream = (
    from: NodeId,
    method: string,
    payload: Uint8Array,
    stream: ByteStream,
    signal: AbortSignal,
  ): Promise<void> => this.stream(from, method, payload, stream, signal);
  onJoinRequest = (request: JoinRequest): Promise<JoinGrant> => this.join(request);

  count(type: Heard['type']): number {
    return this.heard.filter((event) => event.type === type).length;
  }

  /** Resolves as soon as `condition` holds, looked at after every event (and once now); rejects after `withinMs`. */
  until(what: string, condition: (heard: readonly Heard[]) => boolean, withinMs = 10_000): Promise<void> {
    return new Promise((resolve, reject) => {
      const look = (): void => {
        if (!condition(this.heard)) return;
        clearTimeout(timer);
        this.#waiters.delete(look);
        resolve();
      };
      const timer = setTimeout(() => {
        this.#waiters.delete(look);
        reject(
          new Error(
            `did not happen within ${withinMs} ms: ${what}; heard ${this.heard.map((event) => event.type).join(' ')}`,
          ),
        );
      }, withinMs);
      this.#waiters.add(look);
      look();
    });
  }

  #note(event: Heard): void {
    this.heard.push(event);
    for (const look of [...this.#waiters]) look();
  }
}

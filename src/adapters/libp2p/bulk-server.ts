import type { Connection, Stream } from '@libp2p/interface';
import { TaskOrgError, toTaskOrgError } from '../../model/errors.ts';
import { type ClusterId, type NodeId, nodeId } from '../../model/ids.ts';
import type { ByteStream, TransportHandlers } from '../../ports/transport.ts';
import { BulkStream } from './bulk.ts';
import type { Counters } from './counters.ts';

export const bulkProtocol = (cluster: ClusterId): string => `/task-org/${cluster}/bulk/1`;

/** Time for the other end to say what a transfer is for, and for a stream to be negotiated. */
export const OPENING_MS = 3_000;

export interface BulkLimits {
  readonly rpcFrameBytes: number;
  readonly bulkStreams: number;
}

/** Opens a transfer on an admitted connection. Throws aborted | busy | unreachable. */
export async function openBulk(
  connection: Connection,
  options: {
    readonly clusterId: ClusterId;
    readonly method: string;
    readonly payload: Uint8Array;
    readonly limits: BulkLimits;
  },
  counters: Counters,
  signal: AbortSignal,
): Promise<ByteStream> {
  const { method } = options;
  let stream: Stream;
  try {
    stream = await connection.newStream(bulkProtocol(options.clusterId), {
      signal: AbortSignal.any([signal, AbortSignal.timeout(OPENING_MS)]),
    });
  } catch (cause) {
    if (signal.aborted) throw new TaskOrgError('aborted', `${method} was given up`, { cause });
    const busy = cause instanceof Error && cause.name === 'TooManyOutboundProtocolStreamsError';
    throw new TaskOrgError(busy ? 'busy' : 'unreachable', `no stream to the peer for ${method}`, {
      retryable: true,
      cause,
    });
  }
  const onAbort = (): void => bulk.abort(new TaskOrgError('aborted', `${method} was given up`));
  const bulk = new BulkStream(stream, 'opener', options.limits, counters, () =>
    signal.removeEventListener('abort', onAbort),
  );
  signal.addEventListener('abort', onAbort, { once: true });
  bulk.open(method, options.payload);
  return bulk;
}

/** Serves the transfers that peers open, a bounded number with each. */
export class BulkServer {
  readonly #limits: BulkLimits;
  readonly #counters: Counters;
  readonly #onStream: TransportHandlers['onStream'];
  readonly #serving = new Map<NodeId, number>();

  constructor(limits: BulkLimits, onStream: TransportHandlers['onStream'], counters: Counters) {
    this.#limits = limits;
    this.#onStream = onStream;
    this.#counters = counters;
  }

  /** The protocol's handler; the caller has checked admission. */
  async serve(stream: Stream, connection: Connection): Promise<void> {
    const peer = nodeId(connection.remotePeer.toString());
    const serving = this.#serving.get(peer) ?? 0;
    const controller = new AbortController();
    const bulk = new BulkStream(stream, 'server', this.#limits, this.#counters, () => controller.abort());
    if (serving >= this.#limits.bulkStreams) {
      this.#counters.add('bulk_refused_busy');
      bulk.abort(new TaskOrgError('busy', 'too many transfers with this peer', { retryable: true }));
      return;
    }
    this.#serving.set(peer, serving + 1);
    const overdue = setTimeout(
      () => bulk.abort(new TaskOrgError('timeout', 'a transfer that was never opened')),
      OPENING_MS,
    );
    try {
      const { method, payload } = await bulk.opened;
      clearTimeout(overdue);
      await this.#onStream(peer, method, payload, bulk, controller.signal);
      await bulk.end();
    } catch (cause) {
      bulk.abort(toTaskOrgError(cause));
    } finally {
      clearTimeout(overdue);
      const left = (this.#serving.get(peer) ?? 1) - 1;
      if (left > 0) this.#serving.set(peer, left);
      else this.#serving.delete(peer);
    }
  }
}

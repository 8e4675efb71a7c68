import { encode } from '@ipld/dag-cbor';
import type { Peer } from '../core/peer/peer.ts';
import type { CommittedEntries, PeerEffect, PeerEvent } from '../core/peer/types.ts';
import { dumpState } from '../core/state/state.ts';
import { decodeCbor } from '../model/cbor.ts';
import { TaskOrgError } from '../model/errors.ts';
import { type LogIndex, logIndex, type NodeId } from '../model/ids.ts';
import { LIMITS } from '../model/limits.ts';
import { decodeGossip, encodeGossip } from '../model/message-schemas.ts';
import type { Log } from '../ports/log.ts';
import type { Store } from '../ports/store.ts';
import type { ByteStream, Transport } from '../ports/transport.ts';
import type { Persistence } from './persistence.ts';
import { decodeSnapshot, encodeSnapshot } from './snapshot-stream.ts';

// How a lagging peer catches up: a range of log entries from any neighbour, or the whole state as a snapshot stream from the
// leader when the range is no longer kept.

export const METHOD_ENTRIES = 'log.entries';
export const METHOD_SNAPSHOT = 'state.snapshot';
const FETCH_TIMEOUT_MS = 2000;
const SNAPSHOT_TIMEOUT_MS = 120_000;
export interface CatchUp {
  fetchEntries(from: LogIndex, to: LogIndex, peers: readonly NodeId[]): void;
  fetchSnapshot(effect: Extract<PeerEffect, { type: 'fetch-snapshot' }>): void;
  /** Serves METHOD_ENTRIES. */
  serveEntries(payload: Uint8Array): Promise<Uint8Array>;
  /** Serves METHOD_SNAPSHOT. */
  serveSnapshot(stream: ByteStream): Promise<void>;
}

export function createCatchUp(deps: {
  readonly peer: Peer;
  readonly transport: Transport;
  readonly store: Store;
  readonly persistence: Persistence;
  readonly log: Log;
  readonly post: (event: PeerEvent) => void;
}): CatchUp {
  const { peer, transport, store, persistence, log, post } = deps;
  let fetchingEntries = false;
  let fetchingSnapshot = false;

  const rangeFrom = async (from: LogIndex, to: LogIndex, neighbours: readonly NodeId[]): Promise<void> => {
    for (const neighbour of neighbours) {
      try {
        const bytes = await transport.request(neighbour, METHOD_ENTRIES, encode({ from, to }), {
          timeoutMs: FETCH_TIMEOUT_MS,
        });
        const decoded = decodeGossip('log', bytes);
        if (!decoded.ok) continue;
        const entries = decoded.value.message as CommittedEntries;
        if (entries.entries.length === 0) continue;
        post({ type: 'range-reply', entries });
        return;
      } catch (error) {
        log.debug({ neighbour, error: String(error) }, 'range request failed');
      }
    }
  };

  const snapshotFrom = async (effect: Extract<PeerEffect, { type: 'fetch-snapshot' }>): Promise<void> => {
    const signal = AbortSignal.timeout(SNAPSHOT_TIMEOUT_MS);
    const stream = await transport.openStream(effect.from, METHOD_SNAPSHOT, encode({ index: effect.index }), signal);
    const { index, term, membership, epoch, pairs } = await decodeSnapshot(stream.source);
    if (index < effect.index)
      throw new TaskOrgError('refused', 'the snapshot offered is older than the one announced', { retryable: true });
    if ((epoch ?? '') !== (peer.stamp().epoch ?? ''))
      throw new TaskOrgError('refused', 'the snapshot offered is of another epoch of the cluster', { retryable: true });
    await persistence.exclusive(() => store.installSnapshot({ index, term, membership, pairs: asyncOf(pairs) }));
    log.info({ from: effect.from, index, pairs: pairs.length }, 'snapshot installed');
    post({ type: 'snapshot-installed', index, term, membership, pairs });
  };

  return {
    fetchEntries: (from, to, neighbours) => {
      if (fetchingEntries) return;
      fetchingEntries = true;
      void rangeFrom(from, to, neighbours).finally(() => {
        fetchingEntries = false;
      });
    },
    fetchSnapshot: (effect) => {
      if (fetchingSnapshot) return;
      fetchingSnapshot = true;
      snapshotFrom(effect)
        .catch((error: unknown) =>
          log.warn({ from: effect.from, error: String(error) }, 'snapshot not fetched; will be offered again'),
        )
        .finally(() => {
          fetchingSnapshot = false;
        });
    },
    serveEntries: async (payload) => {
      const decoded = decodeCbor(payload, LIMITS.rpcFrameBytes);
      const { from, to } = (decoded.ok ? (decoded.value ?? {}) : {}) as { from: number; to: number };
      if (!Number.isSafeInteger(from) || !Number.isSafeInteger(to) || from < 1 || to < from)
        throw new TaskOrgError('invalid_input', 'a range needs 1 <= from <= to');
      const commit = peer.consensus().commit;
      const end = Math.min(to, from + LIMITS.appendEntries, commit + 1);
      const all = end > from ? peer.logEntries(logIndex(from), logIndex(end)) : [];
      let bytes = 0;
      const entries = all.filter(
        (e) => (bytes += 64 + (e.payload.kind === 'command' ? e.payload.bytes.length : 0)) <= LIMITS.appendBytes,
      );
      const prevTerm = peer.termAt(logIndex(from - 1));
      if (prevTerm === undefined)
        return encodeGossip({
          topic: 'log',
          message: { prevIndex: logIndex(from - 1), prevTerm: 0 as never, entries: [], commit, ...peer.stamp() },
        });
      return encodeGossip({
        topic: 'log',
        message: { prevIndex: logIndex(from - 1), prevTerm, entries, commit, ...peer.stamp() },
      });
    },
    serveSnapshot: async (stream) => {
      const view = peer.consensus();
      const state = peer.state();
      // The dump is taken in one go, so that it is one index's state; streaming it does not hold the core.
      const pairs = [...dumpState(state)];
      const index = state.applied;
      const term = peer.termAt(index) ?? view.term;
      // Of this index, not the newest: a change that is not committed may yet be taken back.
      const membership = peer.membershipAt(index);
      for (const part of encodeSnapshot({ ...peer.stamp(), index, term, membership }, pairs)) await stream.write(part);
      await stream.end();
    },
  };
}

async function* asyncOf<T>(items: readonly T[]): AsyncGenerator<T> {
  yield* items;
}

import type { ClusterCredentials } from '../adapters/data-dir/data-dir.ts';
import type { PeerOptions } from '../core/peer/peer.ts';
import type { PeerConfig } from '../core/peer/types.ts';
import { parseCopyId } from '../core/reconcile/copy-id.ts';
import type { CopyId } from '../core/reconcile/types.ts';
import type { PeerSettings } from '../model/config-schema.ts';
import { incarnation, type MonoMs, type NodeId, nodeId, type WallMs } from '../model/ids.ts';
import type { StoreContents } from '../ports/store.ts';

/** Priorities lie within +- this (config schema). */
const PRIORITY_SPAN = 1000;

export function peerConfigOf(settings: PeerSettings): PeerConfig {
  return {
    membership: settings.membership,
    consensus: settings.consensus,
    lease: settings.lease,
    factsDebounceMs: 20,
    factsHeadMs: 2000,
    factsPerPeerMs: 400,
    requestTimeoutMs: 5000,
    submissionRetryMs: 2000,
  };
}

const text = (bytes: Uint8Array | undefined): string | undefined =>
  bytes === undefined ? undefined : new TextDecoder().decode(bytes);

/** What the peer core starts from: the store's contents, boot's registry, and for a founder a vote of its own. */
export function restoredPeer(o: {
  readonly self: NodeId;
  readonly settings: PeerSettings;
  readonly contents: StoreContents;
  readonly credentials: ClusterCredentials;
  readonly registered: ReadonlyMap<CopyId, MonoMs | undefined>;
  readonly seed: string;
  readonly wall: WallMs;
}): PeerOptions {
  const { contents, credentials } = o;
  const fresh = contents.consensus.snapshot.index === 0 && contents.consensus.entries.length === 0;
  const consensus =
    fresh && credentials.founding
      ? {
          ...contents.consensus,
          snapshot: { ...contents.consensus.snapshot, membership: { voters: [o.self], outgoing: null } },
        }
      : contents.consensus;
  const remembered = text(contents.local.get('peers'));
  const kept = remembered === undefined ? [] : (JSON.parse(remembered) as { id: string; addresses: string[] }[]);
  const lastIncarnation = Number(text(contents.local.get('incarnation')) ?? '0');
  const adoptedLeases: { key: PeerOptions['adoptedLeases'][number]['key']; deadline: MonoMs }[] = [];
  for (const [copyId, deadline] of o.registered) {
    const copy = parseCopyId(copyId);
    if (copy && deadline !== undefined)
      adoptedLeases.push({ key: { taskId: copy.taskId, slot: copy.slot, generation: copy.generation }, deadline });
  }
  return {
    self: o.self,
    config: peerConfigOf(o.settings),
    seed: o.seed,
    // Higher than any used before: a restarted agent overrides what was said of its earlier life.
    incarnation: incarnation(lastIncarnation + 1),
    consensus,
    state: contents.state,
    pending: contents.pendingSubmissions,
    seeds: [...credentials.seeds, ...kept].map((p) => ({ id: nodeId(p.id), addresses: p.addresses })),
    adoptedLeases,
    // Consensus wants it between 0 and 1: who campaigns first when the master is lost.
    rank: (o.settings.priority + PRIORITY_SPAN) / (2 * PRIORITY_SPAN),
  };
}

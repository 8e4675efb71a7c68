import { Type } from 'typebox';
import { Compile } from 'typebox/compile';
import type { ClusterCredentials } from '../adapters/data-dir/data-dir.ts';
import type { EpochFile } from '../adapters/data-dir/epoch-file.ts';
import type { PeerOptions } from '../core/peer/peer.ts';
import type { PeerConfig } from '../core/peer/types.ts';
import { parseCopyId } from '../core/reconcile/copy-id.ts';
import type { CopyId } from '../core/reconcile/types.ts';
import type { PeerSettings } from '../model/config-schema.ts';
import { type DurationMs, incarnation, type MonoMs, type NodeId, nodeId, type WallMs } from '../model/ids.ts';
import { LIMITS } from '../model/limits.ts';
import type { Store, StoreContents } from '../ports/store.ts';

/** Priorities lie within +- this (config schema). */
const PRIORITY_SPAN = 1000;
/** What a holder takes for its lease where leases are not enforced. */
const UNENFORCED_MS = 3_600_000 as DurationMs;

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

/**
 * A founder is the one voter of a cluster that has no records yet. That stands in its store before anything is voted on: no
 * entry of the log ever says it, and a founder that restarts before it has company would otherwise be nobody's voter.
 */
export async function withFounderVote(o: {
  readonly self: NodeId;
  readonly store: Store;
  readonly contents: StoreContents;
  readonly credentials: ClusterCredentials;
}): Promise<StoreContents> {
  const { consensus } = o.contents;
  const fresh = consensus.snapshot.index === 0 && consensus.entries.length === 0;
  if (!fresh || !o.credentials.founding) return o.contents;
  const { index, term } = consensus.snapshot;
  const membership = { voters: [o.self], outgoing: null };
  await o.store.write({
    consensus: [{ type: 'compact', upTo: index, term, membership }],
    state: [],
    applied: null,
    addSubmissions: [],
    removeSubmissions: [],
    local: [],
    sync: true,
  });
  return { ...o.contents, consensus: { ...consensus, snapshot: { index, term, membership } } };
}

const Remembered = Compile(
  Type.Array(Type.Object({ id: Type.String(), addresses: Type.Array(Type.String()) }), { maxItems: LIMITS.peers }),
);

/** A help for the first dial, no more: what cannot be read is left out. */
function rememberedPeers(stored: string | undefined): readonly { readonly id: string; readonly addresses: string[] }[] {
  try {
    const peers: unknown = JSON.parse(stored ?? '[]');
    return Remembered.Check(peers) ? peers : [];
  } catch {
    return [];
  }
}

/** What the peer core starts from: the store's contents and boot's registry. */
export function restoredPeer(o: {
  readonly self: NodeId;
  readonly settings: PeerSettings;
  readonly enforcesLeases: boolean;
  readonly contents: StoreContents;
  readonly credentials: ClusterCredentials;
  readonly registered: ReadonlyMap<CopyId, MonoMs | undefined>;
  readonly seed: string;
  readonly wall: WallMs;
  readonly epoch: EpochFile | undefined;
}): PeerOptions {
  const { contents, credentials } = o;
  const config = peerConfigOf(o.settings);
  const kept = rememberedPeers(text(contents.local.get('peers')));
  const member = o.epoch?.step === 'member' ? o.epoch : undefined;
  const lived = Number(text(contents.local.get('incarnation')) ?? '0');
  const lastIncarnation = Math.max(Number.isSafeInteger(lived) ? lived : 0, member?.incarnation ?? 0);
  const adoptedLeases: { key: PeerOptions['adoptedLeases'][number]['key']; deadline: MonoMs }[] = [];
  for (const [copyId, deadline] of o.registered) {
    const copy = parseCopyId(copyId);
    if (copy && deadline !== undefined)
      adoptedLeases.push({ key: { taskId: copy.taskId, slot: copy.slot, generation: copy.generation }, deadline });
  }
  return {
    self: o.self,
    config: o.enforcesLeases ? config : { ...config, lease: { ...config.lease, unsafeHolderMs: UNENFORCED_MS } },
    seed: o.seed,
    // Higher than any used before: a restarted agent overrides what was said of its earlier life.
    incarnation: incarnation(lastIncarnation + 1),
    consensus: contents.consensus,
    state: contents.state,
    pending: contents.pendingSubmissions,
    seeds: [...credentials.seeds, ...(member?.peers ?? []), ...kept].map((p) => ({
      id: nodeId(p.id),
      addresses: p.addresses,
    })),
    adoptedLeases,
    ...(o.epoch === undefined ? {} : { epoch: o.epoch.id }),
    // Consensus wants it between 0 and 1: who campaigns first when the master is lost.
    rank: (o.settings.priority + PRIORITY_SPAN) / (2 * PRIORITY_SPAN),
  };
}

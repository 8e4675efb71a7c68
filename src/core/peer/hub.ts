import type { MonoMs, NodeId, WallMs } from '../../model/ids.ts';
import type { ControlMessage, FactsMessage } from '../../model/peer-messages.ts';
import type { ConsensusEvent, ConsensusView } from '../consensus/types.ts';
import type { ClusterState } from '../state/types.ts';
import type { PeerConfig, PeerEffect } from './types.ts';

/** What the parts of a peer share: the time of this step, the records, and where effects go. */
export interface Hub {
  readonly self: NodeId;
  readonly config: PeerConfig;
  now(): MonoMs;
  wall(): WallMs;
  state(): ClusterState;
  leader(): NodeId | null;
  /** Admitted peers, this one included. */
  peerCount(): number;
  consensus(): ConsensusView;
  emit(effect: PeerEffect): void;
  consense(event: ConsensusEvent): void;
}

export const control = (hub: Hub, to: NodeId, message: ControlMessage): void =>
  hub.emit({ type: 'send', to, afterPersist: false, channel: 'control', message });

export const factsTo = (hub: Hub, to: NodeId, message: FactsMessage): void =>
  hub.emit({ type: 'send', to, afterPersist: false, channel: 'facts', message });

export const later = (hub: Hub, ms: number): MonoMs => (hub.now() + ms) as MonoMs;

export function earliest(times: readonly (MonoMs | undefined)[]): MonoMs | undefined {
  let best: MonoMs | undefined;
  for (const at of times) if (at !== undefined && (best === undefined || at < best)) best = at;
  return best;
}

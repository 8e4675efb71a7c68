import type { DurationMs, Incarnation, MonoMs, NodeId } from '../../model/ids.ts';

// SWIM (Das, Gupta, Motivala 2002) with Lifeguard (Dadgar, Phillips, Currey 2017), where a member is two processes:
// the agent (probed over the peer's long-lived stream) and boot (probed over UDP). See README.md beside this file.

export interface MembershipConfig {
  /** Between two probes of one monitored member. */
  readonly probeIntervalMs: DurationMs;
  /** Direct ack awaited before indirect probes and boot probes go out. */
  readonly ackTimeoutMs: DurationMs;
  /** Boot answers awaited, per attempt, and attempts. */
  readonly bootProbeTimeoutMs: DurationMs;
  readonly bootProbeAttempts: number;
  readonly indirectProbes: number;
  /** Longest and shortest time from first accusation to death (Lifeguard's dynamic suspicion, scaled by accusers). */
  readonly suspicionMinMs: DurationMs;
  readonly suspicionMaxMs: DurationMs;
  /** Agent silent, boot answering: nothing revived for this long while boot brings the agent back. */
  readonly agentDownMs: DurationMs;
  /** Up to this many peers: everybody monitors everybody. Beyond: `monitors` by rendezvous hashing, plus the voters. */
  readonly fullMeshPeers: number;
  readonly monitors: number;
  /** Lifeguard's local health multiplier, upper bound. */
  readonly maxLocalHealth: number;
  /** A tick later than this after its due time counts as a local stall: no accusation in that turn. */
  readonly lateTickMs: DurationMs;
}

export const DEFAULT_MEMBERSHIP_CONFIG: MembershipConfig = {
  probeIntervalMs: 200 as DurationMs,
  ackTimeoutMs: 250 as DurationMs,
  bootProbeTimeoutMs: 40 as DurationMs,
  bootProbeAttempts: 3,
  indirectProbes: 3,
  suspicionMinMs: 60 as DurationMs,
  suspicionMaxMs: 1000 as DurationMs,
  agentDownMs: 5000 as DurationMs,
  fullMeshPeers: 20,
  monitors: 8,
  maxLocalHealth: 8,
  lateTickMs: 100 as DurationMs,
};

export type MemberStatus = 'alive' | 'suspect' | 'agent-down' | 'dead' | 'left';

export interface MemberView {
  readonly id: NodeId;
  readonly status: MemberStatus;
  readonly incarnation: Incarnation;
  /** When this status was entered here. */
  readonly since: MonoMs;
  /** Last sign of life of the agent received here directly; undefined = never. */
  readonly lastHeardAt: MonoMs | undefined;
  /** Peers (self included) whose own probes accuse it now. */
  readonly accusers: readonly NodeId[];
  /** Whether this peer has an open, admitted connection to it. */
  readonly connected: boolean;
  /** 'closed': its agent's stream closed; 'refused': its port refused a dial, so the process (not the machine) is gone. */
  readonly hint: 'none' | 'closed' | 'refused';
}

/** One update as it spreads. `dead` and `suspect` name who said so; ordering by (incarnation, severity). */
export interface MemberUpdate {
  readonly id: NodeId;
  readonly status: MemberStatus;
  readonly incarnation: Incarnation;
  readonly accusers: readonly NodeId[];
}

export type MembershipMessage =
  | {
      readonly type: 'ping';
      readonly seq: number;
      readonly incarnation: Incarnation;
      readonly updates: readonly MemberUpdate[];
    }
  | {
      readonly type: 'ack';
      readonly seq: number;
      readonly incarnation: Incarnation;
      readonly updates: readonly MemberUpdate[];
    }
  | { readonly type: 'ping-req'; readonly seq: number; readonly target: NodeId }
  /** Answer to ping-req: what the helper's own probe of agent and boot found. */
  | {
      readonly type: 'ping-req-ack';
      readonly seq: number;
      readonly target: NodeId;
      readonly agent: boolean;
      readonly boot: boolean;
    }
  | { readonly type: 'updates'; readonly updates: readonly MemberUpdate[] }
  /** Anti-entropy when two peers meet; `reply` asks for the other's list. */
  | { readonly type: 'push-pull'; readonly reply: boolean; readonly updates: readonly MemberUpdate[] };

export type MembershipEvent =
  /** Driven at the time `nextWake` named. `lateMs`: how late the driver's timer fired. */
  | { readonly type: 'tick'; readonly lateMs: DurationMs }
  /** The admitted set as committed (self included or not; self is ignored). Peers not in it are forgotten. */
  | { readonly type: 'peers'; readonly peers: readonly NodeId[]; readonly voters: readonly NodeId[] }
  | { readonly type: 'connected'; readonly peer: NodeId }
  | { readonly type: 'disconnected'; readonly peer: NodeId }
  /** Outcome of a dial asked for by the `dial` effect (or of the redial loop). */
  | { readonly type: 'dial-failed'; readonly peer: NodeId; readonly refused: boolean }
  | { readonly type: 'message'; readonly from: NodeId; readonly message: MembershipMessage }
  /** Anything else its agent sent over its connection: as good a sign of life as an ack. */
  | { readonly type: 'heard'; readonly peer: NodeId }
  /** A boot probe asked for by the `probe-boot` effect was answered (MAC checked). Silence is not reported: the core times it. */
  | { readonly type: 'boot-ack'; readonly peer: NodeId; readonly attempt: number }
  /** Boot of a peer says, authenticated, that its agent is down though boot lives (answer flag). */
  | { readonly type: 'leave' };

/** What a person is shown of the death or return of a member. */
export interface MemberChange {
  readonly id: NodeId;
  readonly from: MemberStatus | 'unknown';
  readonly to: MemberStatus;
  readonly incarnation: Incarnation;
  readonly accusers: readonly NodeId[];
  /** Plain words, e.g. 'no ack for 450 ms, boot silent, 2 of 4 peers agree'. */
  readonly evidence: readonly string[];
}

export type MembershipEffect =
  | { readonly type: 'send'; readonly to: NodeId; readonly message: MembershipMessage }
  /** Spread on the members topic (and only there; direct sends are separate effects). */
  | { readonly type: 'gossip'; readonly updates: readonly MemberUpdate[] }
  | { readonly type: 'probe-boot'; readonly peer: NodeId; readonly attempt: number }
  | { readonly type: 'dial'; readonly peer: NodeId }
  /** Its connection stands and carries nothing: end it, and redial as after any loss. */
  | { readonly type: 'hang-up'; readonly peer: NodeId }
  | { readonly type: 'changed'; readonly change: MemberChange }
  /** This peer's own incarnation rose (refutation): the driver persists it before the next start, the facts carry it. */
  | { readonly type: 'incarnation'; readonly incarnation: Incarnation }
  /** Lifeguard local health; 0 = healthy. A master above 3 hands over. */
  | { readonly type: 'local-health'; readonly score: number };

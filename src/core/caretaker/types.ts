import type { NodeFacts } from '../../model/facts.ts';
import type { DurationMs, LogIndex, NodeId, Term } from '../../model/ids.ts';
import { LIMITS } from '../../model/limits.ts';
import type { ProvisionalKey } from '../../model/peer-messages.ts';
import type { ConsensusView } from '../consensus/types.ts';
import type { MemberView } from '../membership/types.ts';
import type { ClusterState } from '../state/types.ts';

// The caretaker of a side that reaches no majority: chosen by Bully (Garcia-Molina 1982: freshest log, then rank), it revives
// available tasks under provisional generations and commits nothing.

const ms = (n: number): DurationMs => n as DurationMs;

export interface CaretakerConfig {
  /** No majority in reach for this long: the side chooses a caretaker. */
  readonly afterMs: DurationMs;
  readonly bidEveryMs: DurationMs;
  /** A bid not heard again for this long counts no more. */
  readonly bidLastsMs: DurationMs;
  /** The first bid waits this long for better ones, unless everybody in reach has made theirs. */
  readonly settleMs: DurationMs;
  /** Changes are gathered this long before the next plan. */
  readonly planEveryMs: DurationMs;
  /** Orders are said again this often. */
  readonly ordersEveryMs: DurationMs;
  /** An ordered copy of which nothing is heard for this long is ordered elsewhere. */
  readonly orderTimeoutMs: DurationMs;
  /** Same as membership's: agent silent, boot answering. */
  readonly agentDownMs: DurationMs;
}

export const DEFAULT_CARETAKER_CONFIG: CaretakerConfig = {
  afterMs: ms(2000),
  bidEveryMs: ms(500),
  bidLastsMs: ms(1600),
  settleMs: ms(300),
  planEveryMs: ms(100),
  ordersEveryMs: ms(1000),
  orderTimeoutMs: ms(15_000),
  agentDownMs: ms(5000),
};

/** How fit a peer is to be caretaker: the newer last entry of its log, then the higher rank, then the higher id. */
export interface Bid {
  readonly term: Term;
  readonly index: LogIndex;
  readonly rank: number;
}

/** One provisional copy, for the machine that is to run it. */
export interface ProvisionalOrder extends ProvisionalKey {
  readonly reason: string;
}

/** Everything the caretaker wants of one machine. `drops` lost against another copy of their slot. */
export interface Orders {
  readonly starts: readonly ProvisionalOrder[];
  readonly drops: readonly ProvisionalKey[];
}

/** Copies ordered of one machine, and copies dropped on it, in one message; the rest follow when these are seen to. */
export const ORDERS_PER_MACHINE = LIMITS.caretakerOrders;

export interface CaretakerContext {
  readonly state: ClusterState;
  readonly members: ReadonlyMap<NodeId, MemberView>;
  readonly facts: ReadonlyMap<NodeId, NodeFacts>;
  readonly consensus: ConsensusView;
  /** Of the last entry in the log. */
  readonly lastTerm: Term;
  /** Plain words on why membership thinks what it thinks of a machine. */
  readonly evidenceOf: (node: NodeId) => readonly string[];
}

export type CaretakerEffect =
  | { readonly type: 'bid'; readonly to: NodeId; readonly bid: Bid }
  | { readonly type: 'orders'; readonly to: NodeId; readonly orders: Orders }
  /** This side has no majority in reach (any more), and whose word counts on it. */
  | { readonly type: 'alone'; readonly alone: boolean; readonly caretaker: NodeId | null }
  /** A decision of this peer as caretaker, for whoever asks why. */
  | {
      readonly type: 'decided';
      readonly order: ProvisionalOrder;
      readonly node: NodeId;
      readonly evidence: readonly string[];
    };

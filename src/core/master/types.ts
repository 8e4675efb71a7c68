import type { Command } from '../../model/commands.ts';
import type { NodeFacts } from '../../model/facts.ts';
import type { NodeId, TaskId, WallMs } from '../../model/ids.ts';
import type { Submission } from '../../model/records.ts';
import type { ConsensusView } from '../consensus/types.ts';
import type { LeaseGranter } from '../lease/granter.ts';
import type { SlotKey } from '../lease/types.ts';
import type { MemberView } from '../membership/types.ts';
import type { Rejection } from '../scheduling/types.ts';
import type { ClusterState } from '../state/types.ts';

/** What the master sees when it decides. Read only; nothing of it is kept between evaluations. */
export interface MasterContext {
  readonly state: ClusterState;
  readonly members: ReadonlyMap<NodeId, MemberView>;
  readonly facts: ReadonlyMap<NodeId, NodeFacts>;
  readonly consensus: ConsensusView;
  readonly granter: LeaseGranter;
  /** Submissions heard and not settled. */
  readonly pending: ReadonlyMap<TaskId, Submission>;
  /** Plain words on why membership thinks what it thinks of a machine (its last MemberChange). */
  readonly evidenceOf: (node: NodeId) => readonly string[];
  /** Lifeguard's local health, 0 = healthy. */
  readonly localHealth: number;
  readonly wall: WallMs;
}

export type MasterEffect =
  /** One batch, in this order. Tell `proposalDone(false)` if any of it was not taken. */
  | { readonly type: 'propose'; readonly commands: readonly Command[] }
  | { readonly type: 'change-voters'; readonly voters: readonly NodeId[] }
  | { readonly type: 'transfer'; readonly to: NodeId; readonly reason: string };

/** What changed since the last evaluation. */
export interface MasterMark {
  readonly tasks?: Iterable<TaskId>;
  /** Membership status, record or availability of these changed. */
  readonly nodes?: Iterable<NodeId>;
  /** Facts of these changed. */
  readonly facts?: Iterable<NodeId>;
  /** slot.assign and slot.close that were applied and refused by the records' rules: decided again at once. */
  readonly refused?: Iterable<SlotKey>;
  readonly submissions?: boolean;
  readonly all?: boolean;
}

/** Why slots of a task have no machine: kept in memory by the master, not logged. */
export interface Waiting {
  readonly reason: string;
  readonly rejections: readonly Rejection[];
  readonly slots: readonly number[];
}

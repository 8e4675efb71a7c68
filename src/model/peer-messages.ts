import type { ApplyResult, Command } from './commands.ts';
import type { CopyFact, NodeFacts } from './facts.ts';
import type { Generation } from './generation.ts';
import type { Incarnation, LogIndex, NodeId, TaskId, Term } from './ids.ts';
import type { Submission } from './records.ts';

// Words the peers exchange besides membership, raft and lease messages (whose types live with their cores).

/** A part of a peer's facts that changed. Applies on top of `base`; a receiver at another version asks for all. */
export interface FactsDelta {
  readonly nodeId: NodeId;
  readonly incarnation: Incarnation;
  readonly base: number;
  readonly version: number;
  /** Everything but `copies`; null = unchanged. */
  readonly head: Omit<NodeFacts, 'copies'> | null;
  readonly changedCopies: readonly CopyFact[];
  /** Keys `TASKID.SLOT.GENERATION` of copies gone. */
  readonly removedCopies: readonly string[];
}

export type FactsMessage =
  | { readonly type: 'facts-full'; readonly facts: NodeFacts }
  | { readonly type: 'facts-delta'; readonly delta: FactsDelta }
  /** Anti-entropy: the versions I hold; answer with what is newer, and ask for what I have newer. */
  | {
      readonly type: 'facts-digest';
      readonly digest: readonly (readonly [NodeId, Incarnation, number])[];
      readonly reply: boolean;
    }
  | { readonly type: 'facts-want'; readonly nodes: readonly NodeId[] };

/** A copy of a slot under a provisional generation. */
export interface ProvisionalKey {
  readonly taskId: TaskId;
  readonly slot: number;
  readonly generation: Generation;
}

export type ControlMessage =
  /** While no majority is in reach: how fit the sender is to be caretaker of its side (Bully: newest log, then rank). */
  | { readonly type: 'caretaker-bid'; readonly term: Term; readonly index: LogIndex; readonly rank: number }
  /** The caretaker to one machine of its side: copies to run, and copies that lost against another of their slot. */
  | {
      readonly type: 'caretaker-orders';
      readonly starts: readonly (ProvisionalKey & { readonly reason: string })[];
      readonly drops: readonly ProvisionalKey[];
    }
  /** A submission handed directly (besides the topic); answered by `submission-verdict` once settled. */
  | { readonly type: 'submission'; readonly submission: Submission }
  | {
      readonly type: 'submission-verdict';
      readonly id: TaskId;
      readonly verdict: 'accepted' | 'refused' | 'busy';
      readonly index: LogIndex;
      readonly reason: string;
    }
  /** Commands forwarded to the master, answered one by one; `requestId` is the sender's. */
  | { readonly type: 'propose'; readonly requestId: number; readonly command: Command }
  | {
      readonly type: 'propose-result';
      readonly requestId: number;
      readonly ok: boolean;
      readonly index: LogIndex;
      readonly result: ApplyResult | null;
      readonly reason: string;
    };

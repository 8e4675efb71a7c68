import type { CopyFact } from '../../model/facts.ts';
import type { Generation } from '../../model/generation.ts';
import type { MonoMs, TaskId, WallMs } from '../../model/ids.ts';
import type { TaskSpec } from '../../model/task-spec.ts';
import type { LeaseKey } from '../lease/types.ts';

// Per-machine reconciliation: desired copies (from the replicated assignments of this node) against observed copies (from
// the runtimes), copy by copy. Containers carry restart policy `no`: only this core starts anything.

/** A copy is one (task, slot, generation, spec version) on this machine. */
export interface DesiredCopy {
  readonly taskId: TaskId;
  readonly slot: number;
  readonly generation: Generation;
  /** The name the copy bears on this machine, where that is another: a provisional copy that was adopted as it ran. */
  readonly runsAs?: Generation;
  readonly specVersion: number;
  readonly spec: TaskSpec;
  /** Exclusive copies start only after their first acknowledged lease renewal. */
  readonly exclusive: boolean;
}

/** Name of a copy everywhere (labels, boot's registry, directories): `TASKID.SLOT.GENERATION.SPECVERSION`. */
export type CopyId = string;

/** A copy of which something is on this machine, wanted or not. */
export interface PresentCopy {
  readonly copyId: CopyId;
  readonly taskId: TaskId;
  readonly slot: number;
  /** Under which it counts now; the name it bears may still hold the provisional one it was started under. */
  readonly generation: Generation;
  readonly wanted: boolean;
  /** Told to stop as the loser against another copy of its slot. */
  readonly lost: boolean;
}

/** What a runtime found on the machine (its own labels read back). */
export interface ObservedCopy {
  readonly copyId: CopyId;
  readonly taskId: TaskId;
  readonly slot: number;
  readonly generation: Generation;
  readonly specVersion: number;
  readonly runtime: 'docker' | 'process';
  readonly handle: string;
  readonly running: boolean;
  readonly startedAt: WallMs | null;
  readonly exitCode: number | null;
  readonly ports: CopyFact['ports'];
}

export type ReconcileEvent =
  | { readonly type: 'tick' }
  /** The whole desired set of this node. `current`: the record is known current (ReadIndex), so superseded copies may be stopped. */
  | {
      readonly type: 'desired';
      readonly copies: readonly DesiredCopy[];
      readonly current: boolean;
      /** Copies that lost against another of their slot: they stop now, current or not, and what they wrote is kept. */
      readonly lost?: readonly CopyId[];
    }
  /** Full listing of a runtime: after start of the agent, after an engine came back. Copies of it not listed are gone. */
  | { readonly type: 'listing'; readonly runtime: 'docker' | 'process'; readonly copies: readonly ObservedCopy[] }
  | { readonly type: 'runtime-down'; readonly runtime: 'docker' | 'process'; readonly reason: string }
  | { readonly type: 'started'; readonly copy: ObservedCopy }
  | { readonly type: 'start-failed'; readonly copyId: CopyId; readonly error: string; readonly retryable: boolean }
  | { readonly type: 'exited'; readonly copyId: CopyId; readonly exitCode: number | null; readonly error: string }
  | { readonly type: 'stopped'; readonly copyId: CopyId }
  | { readonly type: 'stop-failed'; readonly copyId: CopyId; readonly error: string }
  | { readonly type: 'health'; readonly copyId: CopyId; readonly ok: boolean; readonly output: string }
  /** Lease of an exclusive copy: deadline moved on, or refused/expired (undefined). */
  | { readonly type: 'lease'; readonly key: LeaseKey; readonly deadline: MonoMs | undefined }
  /** The master has committed the end of this copy's run: it may be forgotten. */
  | { readonly type: 'end-committed'; readonly copyId: CopyId };

export type ReconcileEffect =
  /** Prepare and start (pull/verify image, create volumes, register with boot, create, start). Answered by started | start-failed. */
  | { readonly type: 'start'; readonly copyId: CopyId; readonly copy: DesiredCopy }
  /** graceful: stop signal, grace, kill, remove. Not graceful: kill at once, remove. Answered by stopped | stop-failed. */
  | {
      readonly type: 'stop';
      readonly copyId: CopyId;
      readonly runtime: 'docker' | 'process';
      readonly graceful: boolean;
      readonly stopSignal: string;
      readonly graceMs: number;
      readonly reason: string;
      /** What it wrote is kept on this machine, as a branch. */
      readonly keep: boolean;
    }
  | { readonly type: 'check-health'; readonly copyId: CopyId; readonly copy: DesiredCopy }
  /** The facts of this machine's copies changed (whole list). */
  | { readonly type: 'facts'; readonly copies: readonly CopyFact[] }
  /** The run of this generation ended for good: ask the master to commit slot.end; repeated until end-committed. */
  | {
      readonly type: 'end';
      readonly copyId: CopyId;
      readonly key: LeaseKey;
      readonly outcome: 'finished' | 'failed';
      readonly exitCode: number | null;
      readonly error: string;
    }
  /** This exclusive copy is proven dead: the next renewal may say `released`. */
  | { readonly type: 'released'; readonly key: LeaseKey };

// Branded ids and units. A brand costs nothing at run time and stops a term from being used as an index.

export type Brand<T, B extends string> = T & { readonly __brand: B };

/** A libp2p PeerId in its base58 form: the name of a peer in every protocol. */
export type NodeId = Brand<string, 'NodeId'>;
export type ClusterId = Brand<string, 'ClusterId'>;
/** 1-64 characters `[A-Za-z0-9_.-]`, or the CID of (spec, nonce, expiry). */
export type TaskId = Brand<string, 'TaskId'>;
/** Raft term. */
export type Term = Brand<number, 'Term'>;
/** Raft log index, from 1. 0 = before the first entry. */
export type LogIndex = Brand<number, 'LogIndex'>;
/** A member's incarnation (SWIM section 4.2): raised by the member alone, to refute a suspicion or after a restart. */
export type Incarnation = Brand<number, 'Incarnation'>;
export type DurationMs = Brand<number, 'DurationMs'>;
/** Milliseconds of a clock that never steps and counts suspend. Comparable on one machine and boot only. */
export type MonoMs = Brand<number, 'MonoMs'>;
/** Wall-clock milliseconds since the epoch. For people; no rule of safety reads it. */
export type WallMs = Brand<number, 'WallMs'>;

export const nodeId = (s: string): NodeId => s as NodeId;
export const clusterId = (s: string): ClusterId => s as ClusterId;
export const taskId = (s: string): TaskId => s as TaskId;
export const term = (n: number): Term => n as Term;
export const logIndex = (n: number): LogIndex => n as LogIndex;
export const incarnation = (n: number): Incarnation => n as Incarnation;
export const durationMs = (n: number): DurationMs => n as DurationMs;
export const monoMs = (n: number): MonoMs => n as MonoMs;
export const wallMs = (n: number): WallMs => n as WallMs;

/** Fails the build when a union gains a case that a switch does not handle. */
export function assertNever(value: never, where = 'value'): never {
  throw new Error(`unexpected ${where}: ${JSON.stringify(value)}`);
}

import type { CopyFact, CopyState } from '../../model/facts.ts';
import { compareGeneration } from '../../model/generation.ts';
import { assertNever, type MonoMs, type WallMs } from '../../model/ids.ts';
import type { TaskSpec } from '../../model/task-spec.ts';
import { leaseText, slotText } from '../lease/keys.ts';
import type { LeaseKey } from '../lease/types.ts';
import { formatCopyId } from './copy-id.ts';
import type { CopyId, DesiredCopy, ObservedCopy } from './types.ts';

export { formatCopyId as copyIdOf } from './copy-id.ts';

// One copy on this machine: what is wanted of it, what is known of it, and where it stands.

export type Phase =
  /** Not running; starts when wanted and nothing stands in its way (lease, older copy, runtime, queue). */
  | 'waiting'
  /** `start` is out. */
  | 'starting'
  | 'running'
  /** Its runtime does not answer: it may run or not. */
  | 'lost'
  /** Ran and ended; the restart policy has not been asked yet (it is asked once the copy is wanted). */
  | 'exited'
  /** Waits out its restart back-off. */
  | 'backoff'
  /** Cannot start on this machine; tried again slowly. */
  | 'blocked'
  /** `stop` is out, or is to be repeated. */
  | 'stopping'
  /** Finished or failed for good under this generation. */
  | 'ended';

export interface Exit {
  readonly exitCode: number | null;
  readonly error: string;
}

export interface Copy {
  readonly id: CopyId;
  /** Its generation may rise while it runs: a provisional copy that is adopted. */
  key: LeaseKey;
  keyText: string;
  readonly slotText: string;
  readonly specVersion: number;
  readonly runtime: 'docker' | 'process';
  desired: DesiredCopy | undefined;
  /** Kept after the copy is no longer desired: how to stop it. */
  spec: TaskSpec | undefined;
  /** undefined: found on the machine and never desired in this life of the agent. */
  exclusive: boolean | undefined;
  phase: Phase;
  /** Something of it may exist in the runtime. */
  present: boolean;
  /** It lost against another copy of its slot: to be stopped, and what it wrote is to be kept. */
  lost: boolean;
  startOut: boolean;
  /** Stops out and not answered: a kill may follow a graceful stop, and each is answered. */
  stopsOut: number;
  /** One of them was answered with `stopped`. */
  stopSeen: boolean;
  graceful: boolean;
  stopTries: number;
  /** Set: once stopped, ask the restart policy with this. */
  exitOnceStopped: Exit | undefined;
  exit: Exit | undefined;
  outcome: 'finished' | 'failed';
  endCommitted: boolean;
  endTries: number;
  startedAt: WallMs | null;
  startedMono: MonoMs | undefined;
  /** Restarts under this generation, counted as Docker counts them: never reset. */
  restarts: number;
  /** Restarts in quick succession: the exponent of the back-off. */
  streak: number;
  startTries: number;
  health: CopyFact['health'];
  healthFailures: number;
  healthOut: boolean;
  error: string;
  handle: string;
  ports: CopyFact['ports'];
  /** Order of arrival, for the start queue. */
  readonly order: number;
}

/** Under the name it bears on this machine: of an adopted copy, the provisional generation it was started under. */
export function asNamed(d: DesiredCopy): DesiredCopy {
  const { runsAs, ...named } = d;
  return runsAs === undefined ? d : { ...named, generation: runsAs };
}

export function createCopy(of: DesiredCopy | ObservedCopy, runtime: 'docker' | 'process', order: number): Copy {
  const key: LeaseKey = { taskId: of.taskId, slot: of.slot, generation: of.generation };
  return {
    id: formatCopyId(of),
    key,
    keyText: leaseText(key),
    slotText: slotText(key),
    specVersion: of.specVersion,
    runtime,
    desired: undefined,
    spec: undefined,
    exclusive: undefined,
    phase: 'waiting',
    present: false,
    lost: false,
    startOut: false,
    stopsOut: 0,
    stopSeen: false,
    graceful: true,
    stopTries: 0,
    exitOnceStopped: undefined,
    exit: undefined,
    outcome: 'failed',
    endCommitted: false,
    endTries: 0,
    startedAt: null,
    startedMono: undefined,
    restarts: 0,
    streak: 0,
    startTries: 0,
    health: 'none',
    healthFailures: 0,
    healthOut: false,
    error: '',
    handle: '',
    ports: [],
    order,
  };
}

/** Whether processes of the copy may exist now. */
export const mayRun = (c: Copy): boolean =>
  c.phase === 'starting' || c.phase === 'running' || c.phase === 'lost' || c.phase === 'stopping';

/** Order of two copies of one slot: generation, then spec version. */
export const compareCopies = (
  a: Pick<DesiredCopy, 'generation' | 'specVersion'>,
  b: Pick<DesiredCopy, 'generation' | 'specVersion'>,
): number => compareGeneration(a.generation, b.generation) || a.specVersion - b.specVersion;

/** base * 2^n, capped. */
export const backoffMs = (base: number, cap: number, n: number): number => Math.min(cap, base * 2 ** Math.min(n, 30));

export type AfterExit =
  | { readonly restart: true }
  | { readonly restart: false; readonly outcome: 'finished' | 'failed'; readonly error: string };

/** The restart policy (Docker's): what follows this exit. */
export function afterExit(spec: TaskSpec, restarts: number, exit: Exit): AfterExit {
  const ok = exit.exitCode === 0;
  const { policy, maxAttempts } = spec.restart;
  const outcome = ok ? 'finished' : 'failed';
  const error = ok ? '' : exit.error || `exited with code ${exit.exitCode ?? 'unknown'}`;
  if (policy === 'no' || (policy === 'on-failure' && ok)) return { restart: false, outcome, error };
  if (maxAttempts > 0 && restarts >= maxAttempts) {
    return { restart: false, outcome, error: ok ? '' : `${error}; gave up after ${restarts} restarts` };
  }
  return { restart: true };
}

function stateOf(c: Copy): CopyState {
  switch (c.phase) {
    case 'waiting':
      return 'preparing';
    case 'starting':
      return 'starting';
    case 'running':
    case 'lost':
      return 'running';
    case 'exited':
      return 'stopped';
    case 'backoff':
      return 'backoff';
    case 'blocked':
      return 'failed';
    case 'stopping':
      return 'stopping';
    case 'ended':
      return c.outcome;
    default:
      return assertNever(c.phase, 'phase');
  }
}

export function factOf(c: Copy, waitsFor: string): CopyFact {
  return {
    taskId: c.key.taskId,
    slot: c.key.slot,
    generation: c.key.generation,
    state: stateOf(c),
    health: c.health,
    startedAt: c.startedAt,
    exitCode: c.exit?.exitCode ?? null,
    restarts: c.restarts,
    error: c.error || (c.phase === 'waiting' ? waitsFor : ''),
    handle: c.handle,
    ports: c.ports,
  };
}

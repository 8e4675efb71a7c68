import type { CopyId } from '../core/reconcile/types.ts';
import type { MonoMs, NodeId } from '../model/ids.ts';
import type { KillTarget } from './runtime.ts';

/** The agent's line to its supervisor, which kills exclusive copies at their deadline whatever happens to the agent. */
export interface BootLink {
  /** Resolves when boot holds the copy durably enough to kill it: only then may the copy be created. */
  register(copyId: CopyId, exclusive: boolean, targets: readonly KillTarget[]): Promise<void>;
  /** `undefined`: kill now. */
  deadline(copyId: CopyId, deadline: MonoMs | undefined): void;
  forget(copyId: CopyId): void;
  /** Copies whose every process boot has reaped, also those reported while the agent was away. */
  onKilled(callback: (copyId: CopyId) => void): void;
  /** Copies registered now with their deadlines (kept over restarts of the agent). */
  registered(): ReadonlyMap<CopyId, MonoMs | undefined>;
}

/** Probes other machines' boot over authenticated UDP. */
export interface BootProber {
  probe(peer: NodeId, attempt: number, addresses: readonly string[]): void;
  onAck(callback: (peer: NodeId, attempt: number) => void): void;
}

import type { Waiting } from '../../core/master/types.ts';
import type { ClientResult, PeerNotice } from '../../core/peer/types.ts';
import type { PeerDriver } from '../../driver/peer-driver.ts';
import type { Command } from '../../model/commands.ts';
import { TaskOrgError } from '../../model/errors.ts';
import type { ClusterId, NodeId, TaskId } from '../../model/ids.ts';
import type { Clock, RandomSource } from '../../ports/clock.ts';
import type { Log } from '../../ports/log.ts';
import type { RemoteCopies } from '../remote/remote-copies.ts';
import type { ChangeView } from './schemas.ts';

/** What the routes need of the agent. */
export interface ApiContext {
  readonly version: string;
  readonly clusterId: ClusterId;
  readonly self: NodeId;
  readonly driver: PeerDriver;
  readonly remote: RemoteCopies;
  readonly clock: Clock;
  readonly random: RandomSource;
  readonly log: Log;
  /** A join token for a fresh invitation. */
  readonly makeToken: (options: { readonly expiresMs: number; readonly uses: number }) => Promise<string>;
  /** After a peer was removed: a new cluster secret for the rest. */
  readonly rotateSecret: () => Promise<void>;
  /** Begins a new epoch from this peer's records; the agent starts again. */
  readonly recover: (
    dead: readonly NodeId[],
  ) => Promise<{ readonly epoch: number; readonly voters: readonly NodeId[] }>;
  /** Leaves this peer's epoch for another one; the agent starts again. */
  readonly rejoin: (epochId: string) => Promise<void>;
  /** Each setting with its value and where it came from. */
  readonly configShown: () => readonly { readonly key: string; readonly value: string; readonly origin: string }[];
  readonly notices: NoticeBoard;
  readonly metrics: () => Promise<string>;
  /** Why tasks (one, or all for null) wait for a machine, as the master knows it. */
  readonly waiting: (task: TaskId | null) => Promise<ReadonlyMap<TaskId, Waiting>>;
  /** Asks every connected peer how it sees the others; answers that do not come in time are left out. */
  readonly viewsOfPeers: () => Promise<ReadonlyMap<NodeId, Readonly<Record<string, string>>>>;
}

/** Notices of this peer for those who watch; slow watchers are dropped, never waited for. */
export interface NoticeBoard {
  post(notice: PeerNotice): void;
  subscribe(listener: (notice: PeerNotice) => void): () => void;
}

export function createNoticeBoard(): NoticeBoard {
  const listeners = new Set<(notice: PeerNotice) => void>();
  return {
    post: (notice) => {
      for (const listener of listeners) listener(notice);
    },
    subscribe: (listener) => {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
  };
}

const NAME_HINT = 'choose another name, change the one that is there (task-org apply), or remove it first';

/** Turns a client result into its index, or throws the error a person should see. */
export function expectOk(result: ClientResult, what: string): { index: number; copies: number } {
  if (!result.ok) {
    const code = result.reason === 'timeout' ? 'timeout' : result.reason === 'busy' ? 'busy' : 'no_master';
    throw new TaskOrgError(code, `${what}: ${result.message}`, {
      retryable: true,
      hint: 'task-org cluster status shows the master and the quorum',
    });
  }
  if (!result.result.ok) {
    const code = result.result.code === 'stale' || result.result.code === 'limit' ? 'refused' : result.result.code;
    throw new TaskOrgError(code, `${what}: ${result.result.reason}`, code === 'name_in_use' ? { hint: NAME_HINT } : {});
  }
  return { index: result.index, copies: result.copies };
}

export async function proposeOrThrow(
  ctx: ApiContext,
  what: string,
  command: Record<string, unknown> & { type: Command['type'] },
): Promise<ChangeView> {
  const full = { by: ctx.self, at: ctx.clock.wall(), ...command } as unknown as Command;
  return { ...expectOk(await ctx.driver.propose(full), what), changed: true };
}

import type { Command } from '../../model/commands.ts';
import type { NodeId, TaskId } from '../../model/ids.ts';
import type { MasterConfig } from './config.ts';
import type { MasterContext } from './types.ts';

/** Takes up what was published and is not settled: each id is proposed once at a time, expired ones are refused. */
export interface SubmissionDesk {
  mark(): void;
  /** Forgets what is in flight: its proposals failed. */
  retry(): void;
  evaluate(ctx: MasterContext, now: number): Command[];
  unfinished(): boolean;
  nextWake(): number | undefined;
  clear(): void;
}

export function createSubmissionDesk(config: MasterConfig, self: NodeId): SubmissionDesk {
  const inFlight = new Map<TaskId, number>();
  let dirty = true;
  let seen = 0;
  let more = false;

  return {
    mark: () => {
      dirty = true;
    },
    retry: () => {
      inFlight.clear();
      dirty = true;
    },
    evaluate(ctx, now) {
      const oldest = inFlight.values().next();
      if (!dirty && ctx.pending.size === seen && (oldest.done === true || oldest.value > now)) return [];
      dirty = false;
      more = false;
      seen = ctx.pending.size;
      for (const [id, until] of inFlight) if (until <= now || !ctx.pending.has(id)) inFlight.delete(id);
      const commands: Command[] = [];
      for (const submission of ctx.pending.values()) {
        const { id } = submission;
        if (inFlight.has(id) || ctx.state.tasks.has(id) || ctx.state.verdicts.has(id)) continue;
        if (commands.length >= config.submissionsAtOnce) {
          more = true;
          dirty = true;
          break;
        }
        inFlight.set(id, now + config.proposalTimeoutMs);
        const meta = { by: self, at: ctx.wall };
        if (submission.expiresAt > ctx.wall) commands.push({ type: 'task.submit', ...meta, submission });
        else
          commands.push({
            type: 'task.refuse',
            ...meta,
            id,
            reason: 'it expired before a master could take it',
            expiresAt: submission.expiresAt,
          });
      }
      return commands;
    },
    unfinished: () => more,
    nextWake: () => inFlight.values().next().value,
    clear: () => {
      inFlight.clear();
      dirty = true;
      seen = 0;
      more = false;
    },
  };
}

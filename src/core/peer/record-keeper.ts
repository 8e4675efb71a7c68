import type { NodeId, TaskId } from '../../model/ids.ts';
import type { LogEntry } from '../consensus/types.ts';
import { applyEntry } from '../state/state.ts';
import type { Applied, StatePut } from '../state/types.ts';
import type { Hub } from './hub.ts';
import type { Office } from './office.ts';
import type { Proposals } from './proposals.ts';
import type { Submissions } from './submissions.ts';

// Committed entries become records, and whoever rests on the records hears of it.

export interface RecordKeeper {
  apply(entries: readonly LogEntry[]): void;
}

export interface RecordListeners {
  /** A slot was given to this node. */
  assigned(node: NodeId): void;
  ended(command: Extract<Applied['command'], { type: 'slot.end' }>): void;
  peersChanged(): void;
  tasksChanged(tasks: ReadonlySet<TaskId>): void;
}

const ofCredentials = (type: string): boolean =>
  type.startsWith('invitation.') || type === 'setting.set' || type === 'peer.admit';

export function createRecordKeeper(
  hub: Hub,
  parts: { readonly office: Office; readonly proposals: Proposals; readonly submissions: Submissions },
  listeners: RecordListeners,
): RecordKeeper {
  const { office, proposals, submissions } = parts;

  function spread(results: readonly Applied[]): void {
    const tasks = new Set(results.flatMap((r) => r.tasks));
    for (const { command, result, events } of results) {
      if (command.type !== 'unreadable' && command.by === hub.self) office.outcome(command, result.ok);
      for (const event of events) hub.emit({ type: 'notify', notice: { type: 'cluster-event', event } });
      if (command.type === 'slot.assign' && result.ok) listeners.assigned(command.node);
      else if (command.type === 'slot.end') listeners.ended(command);
    }
    if (results.some((r) => ofCredentials(r.command.type))) hub.emit({ type: 'credentials-changed' });
    submissions.settle(results);
    if (results.some((r) => r.peersChanged)) listeners.peersChanged();
    if (tasks.size === 0) return;
    hub.emit({ type: 'notify', notice: { type: 'tasks-changed', tasks: [...tasks] } });
    listeners.tasksChanged(tasks);
  }

  return {
    apply: (entries) => {
      const puts: StatePut[] = [];
      const results: Applied[] = [];
      const state = hub.state();
      for (const entry of entries) {
        if (entry.payload.kind === 'command') {
          const applied = applyEntry(state, entry.index, entry.payload.bytes);
          for (const put of applied.puts) puts.push(put);
          results.push(applied);
          proposals.applied(entry.index, applied.result);
        } else {
          state.applied = entry.index;
          proposals.applied(entry.index, { ok: true });
        }
      }
      hub.emit({ type: 'write-state', puts, applied: state.applied });
      spread(results);
    },
  };
}

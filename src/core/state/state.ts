import { decodeCommand } from '../../model/command-codec.ts';
import type { ApplyResult, Command } from '../../model/commands.ts';
import { assertNever, type LogIndex } from '../../model/ids.ts';
import {
  clusterInit,
  invitationAdd,
  invitationRemove,
  peerAdmit,
  peerRemove,
  peerUpdate,
  settingSet,
} from './apply-cluster.ts';
import { clusterAccount, clusterRecover } from './apply-epoch.ts';
import { slotAssign, slotClose, slotDrop, slotEnd, slotRelease } from './apply-slots.ts';
import { taskDesire, taskRefuse, taskRemove, taskSubmit, taskUpdate } from './apply-tasks.ts';
import { type Change, forgetVerdicts } from './change.ts';
import { refused } from './results.ts';
import type { Applied, ClusterState } from './types.ts';

// The replicated state machine (Ongaro & Ousterhout 2014, section 2): the log's commands, applied in order, give every peer
// the same state, the same results and the same durable puts. Departure: none; the rules of fencing that commands obey here
// are this project's own (README.md beside this file).

export { hasLost, nextGeneration } from './apply-slots.ts';
export { slotText } from './change.ts';
export { createState, dumpState, restoreState, stateDigest } from './snapshot.ts';

/**
 * Applies the command at `index`, which must be above all applied before. Changes the maps in place, in time that depends on
 * the change alone. A refused command changes nothing, apart from the verdict on its submission and what had expired.
 */
export function apply(state: ClusterState, index: LogIndex, command: Command): Applied {
  const c: Change = {
    state,
    index,
    by: command.by,
    at: command.at,
    puts: new Map(),
    events: [],
    tasks: new Set(),
    peersChanged: false,
  };
  const result = index <= state.applied ? refused('stale', `entry ${index} is applied already`) : run(c, command);
  if (index > state.applied) {
    forgetVerdicts(c);
    state.applied = index;
  }
  return {
    index,
    command,
    result,
    puts: [...c.puts].map(([key, value]) => ({ key, value })),
    events: c.events,
    tasks: [...c.tasks],
    peersChanged: c.peersChanged,
  };
}

/** Decodes the bytes of a log entry and applies them. What does not decode is applied as nothing. Never throws. */
export function applyEntry(state: ClusterState, index: LogIndex, bytes: Uint8Array): Applied {
  const decoded = decodeCommand(bytes);
  if (decoded.ok) return apply(state, index, decoded.command);
  if (index > state.applied) state.applied = index;
  return {
    index,
    command: { type: 'unreadable', error: decoded.error },
    result: refused('refused', `the command cannot be read: ${decoded.error}`),
    puts: [],
    events: [],
    tasks: [],
    peersChanged: false,
  };
}

function run(c: Change, command: Command): ApplyResult {
  switch (command.type) {
    case 'cluster.init':
      return clusterInit(c, command);
    case 'cluster.recover':
      return clusterRecover(c, command);
    case 'cluster.account':
      return clusterAccount(c, command);
    case 'peer.admit':
      return peerAdmit(c, command);
    case 'peer.update':
      return peerUpdate(c, command);
    case 'peer.remove':
      return peerRemove(c, command);
    case 'invitation.add':
      return invitationAdd(c, command);
    case 'invitation.remove':
      return invitationRemove(c, command);
    case 'task.submit':
      return taskSubmit(c, command);
    case 'task.refuse':
      return taskRefuse(c, command);
    case 'task.update':
      return taskUpdate(c, command);
    case 'task.desire':
      return taskDesire(c, command);
    case 'task.remove':
      return taskRemove(c, command);
    case 'slot.assign':
      return slotAssign(c, command);
    case 'slot.close':
      return slotClose(c, command);
    case 'slot.drop':
      return slotDrop(c, command);
    case 'slot.release':
      return slotRelease(c, command);
    case 'slot.end':
      return slotEnd(c, command);
    case 'setting.set':
      return settingSet(c, command);
    default:
      return assertNever(command, 'command');
  }
}

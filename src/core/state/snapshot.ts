import type { LogIndex, NodeId, TaskId } from '../../model/ids.ts';
import type {
  ClusterEvent,
  ClusterRecord,
  Decision,
  InvitationRecord,
  PeerRecord,
  SlotRecord,
  SubmissionVerdict,
  TaskRecord,
} from '../../model/records.ts';
import { indexSlot } from './change.ts';
import { createForgetQueue } from './forget-queue.ts';
import {
  CLUSTER_KEY,
  decisionKey,
  eventKey,
  invitationKey,
  peerKey,
  settingKey,
  slotKey,
  type TaskMeta,
  taskKey,
  taskMeta,
  verdictKey,
} from './keys.ts';
import { createHash, stableText } from './stable.ts';
import type { ClusterState, StatePut } from './types.ts';

// The state as durable pairs and back.

export function createState(): ClusterState {
  return {
    cluster: undefined,
    peers: new Map(),
    invitations: new Map(),
    tasks: new Map(),
    taskNames: new Map(),
    verdicts: new Map(),
    settings: new Map(),
    events: [],
    applied: 0 as LogIndex,
    assignments: new Map(),
    openSlots: new Map(),
    pendingSlots: new Map(),
    closedSlots: new Map(),
    peerNames: new Map(),
    forgetting: createForgetQueue(),
  };
}

/** All durable pairs in key order: what replaying every put so far into an empty map gives. */
export function* dumpState(state: ClusterState): Generator<StatePut> {
  if (state.cluster !== undefined) yield { key: CLUSTER_KEY, value: state.cluster };
  // A task id may be the beginning of another: `a/` and `a-b/` sort with their slash.
  const taskIds = [...state.tasks.keys()].sort((a, b) => compare(`${a}/`, `${b}/`));
  for (const id of taskIds)
    for (const d of state.tasks.get(id)?.decisions ?? []) yield { key: decisionKey(id, d), value: d };
  for (const event of state.events) yield { key: eventKey(event), value: event };
  for (const id of sorted(state.invitations)) yield { key: invitationKey(id), value: state.invitations.get(id) };
  for (const id of sorted(state.peers)) yield { key: peerKey(id), value: state.peers.get(id) };
  for (const key of sorted(state.settings)) yield { key: settingKey(key), value: state.settings.get(key) };
  for (const id of taskIds)
    for (const slot of state.tasks.get(id)?.slots ?? []) yield { key: slotKey(id, slot.slot), value: slot };
  for (const id of sorted(state.tasks)) yield { key: taskKey(id), value: taskMeta(state.tasks.get(id) as TaskRecord) };
  for (const id of sorted(state.verdicts)) yield { key: verdictKey(id), value: state.verdicts.get(id) };
}

const compare = (a: string, b: string): number => (a < b ? -1 : a > b ? 1 : 0);
const sorted = <K extends string>(map: ReadonlyMap<K, unknown>): K[] => [...map.keys()].sort(compare);

/**
 * Inverse of dumpState; pairs in any order, `null` values are left out. Takes the values as its own. Throws on a key that no
 * version of this program wrote: better no state than half of one.
 */
export function restoreState(pairs: Iterable<StatePut>, applied: LogIndex): ClusterState {
  const state = createState();
  state.applied = applied;
  const metas = new Map<TaskId, TaskMeta>();
  const slots = new Map<string, SlotRecord[]>();
  const decisions = new Map<string, Decision[]>();
  for (const { key, value } of pairs) {
    if (value === null) continue;
    const at = key.indexOf('/');
    const kind = at < 0 ? key : key.slice(0, at);
    const id = at < 0 ? '' : key.slice(at + 1);
    const owner = id.slice(0, Math.max(0, id.lastIndexOf('/')));
    switch (kind) {
      case 'cluster':
        state.cluster = value as ClusterRecord;
        break;
      case 'peer':
        state.peers.set(id as NodeId, value as PeerRecord);
        state.peerNames.set((value as PeerRecord).name, id as NodeId);
        break;
      case 'invitation':
        state.invitations.set(id, value as InvitationRecord);
        break;
      case 'setting':
        state.settings.set(id, value as string);
        break;
      case 'verdict':
        state.verdicts.set(id as TaskId, value as SubmissionVerdict);
        if ((value as SubmissionVerdict).verdict !== 'accepted') state.forgetting.push(value as SubmissionVerdict);
        break;
      case 'event':
        state.events.push(value as ClusterEvent);
        break;
      case 'task':
        metas.set(id as TaskId, value as TaskMeta);
        break;
      case 'slot':
        append(slots, owner, value as SlotRecord);
        break;
      case 'decision':
        append(decisions, owner, value as Decision);
        break;
      default:
        throw new Error(`the state holds a record of an unknown kind: ${key}`);
    }
  }
  state.events.sort((a, b) => a.index - b.index);
  for (const [id, meta] of metas) restoreTask(state, id, meta, slots.get(id) ?? [], decisions.get(id) ?? []);
  return state;
}

function restoreTask(
  state: ClusterState,
  id: TaskId,
  meta: TaskMeta,
  slots: SlotRecord[],
  decisions: Decision[],
): void {
  const task: TaskRecord = {
    ...meta,
    slots: slots.sort((a, b) => a.slot - b.slot),
    decisions: decisions.sort((a, b) => a.index - b.index || a.slot - b.slot),
  };
  state.tasks.set(id, task);
  state.taskNames.set(task.spec.name, id);
  for (const slot of task.slots) indexSlot(state, task, slot);
}

function append<T>(map: Map<string, T[]>, key: string, item: T): void {
  const list = map.get(key);
  if (list === undefined) map.set(key, [item]);
  else list.push(item);
}

/** 32 hex digits over all records and the applied index: the same on all peers at the same index. O(n). */
export function stateDigest(state: ClusterState): string {
  const hash = createHash();
  hash.add(String(state.applied));
  for (const { key, value } of dumpState(state)) {
    hash.add(key);
    hash.add(stableText(value));
  }
  return hash.digest();
}

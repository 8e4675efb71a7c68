import type { NodeId, TaskId } from '../../model/ids.ts';
import type { ClusterEvent, Decision, TaskRecord } from '../../model/records.ts';

// Keys of the durable records. Fixed-width numbers, so that key order is number order.

const pad = (n: number, width: number): string => String(n).padStart(width, '0');

export const CLUSTER_KEY = 'cluster';
export const peerKey = (id: NodeId): string => `peer/${id}`;
export const invitationKey = (id: string): string => `invitation/${id}`;
export const settingKey = (key: string): string => `setting/${key}`;
export const verdictKey = (id: TaskId): string => `verdict/${id}`;
export const eventKey = (event: ClusterEvent): string => `event/${pad(event.index, 16)}`;
export const taskKey = (id: TaskId): string => `task/${id}`;
export const slotKey = (id: TaskId, slot: number): string => `slot/${id}/${pad(slot, 4)}`;
export const decisionKey = (id: TaskId, d: Decision): string =>
  `decision/${id}/${pad(d.index, 16)}.${pad(d.slot + 1, 4)}`;

/** A task's record without the parts that have keys of their own. */
export type TaskMeta = Omit<TaskRecord, 'slots' | 'decisions'>;
export function taskMeta(task: TaskRecord): TaskMeta {
  const { slots: _slots, decisions: _decisions, ...meta } = task;
  return meta;
}

import type { Waiting } from '../../core/master/types.ts';
import { copyKey } from '../../core/peer/facts-book.ts';
import type { Peer } from '../../core/peer/peer.ts';
import { TaskOrgError } from '../../model/errors.ts';
import type { CopyFact } from '../../model/facts.ts';
import { formatGeneration } from '../../model/generation.ts';
import { assertNever, type MonoMs, type NodeId, type TaskId } from '../../model/ids.ts';
import type { ClusterEvent, SlotRecord, TaskRecord } from '../../model/records.ts';
import { placedCopy, provisionalCopies } from '../placed-copy.ts';
import type { ClusterView, DecisionView, EventView, NodeView, SlotView, TaskView, WaitingView } from './schemas.ts';

// Records and facts, put together as people and programs see them. Read-only.

export type WaitingTasks = ReadonlyMap<TaskId, Pick<Waiting, 'reason'> & Partial<Waiting>>;

/**
 * What the views of one answer share, gathered once: thousands of tasks must not each search the copies of a machine.
 * `waiting` is the master's (services/remote/waiting.ts). Good for one answer only.
 */
export interface Look {
  readonly peer: Pick<Peer, 'self' | 'state' | 'facts' | 'members'>;
  readonly waiting: WaitingTasks;
  copyOf(node: NodeId, key: string): CopyFact | undefined;
  readonly provisional: ReturnType<typeof provisionalCopies>;
}

export function look(peer: Look['peer'], waiting: WaitingTasks): Look {
  const copies = new Map<NodeId, ReadonlyMap<string, CopyFact>>();
  return {
    peer,
    waiting,
    provisional: provisionalCopies(peer),
    copyOf: (node, key) => {
      let known = copies.get(node);
      if (!known) {
        known = new Map((peer.facts().get(node)?.copies ?? []).map((c) => [copyKey(c), c]));
        copies.set(node, known);
      }
      return known.get(key);
    },
  };
}

type Names = Pick<Peer, 'state' | 'facts'>;

export const nodeName = (peer: Names, id: NodeId): string =>
  peer.state().peers.get(id)?.name ?? peer.facts().get(id)?.name ?? id.slice(-8);

/** Peer ids in recorded words give way to the names people know; ids of peers long gone stay, shortened. */
const PEER_ID = /12D3KooW[1-9A-HJ-NP-Za-km-z]{44}/g;
export const named = (peer: Names, text: string): string => text.replace(PEER_ID, (id) => nodeName(peer, id as NodeId));

export function nodeRole(peer: Peer, id: NodeId): string {
  const m = peer.consensus().membership;
  if (peer.leader() === id) return 'master';
  if (peer.state().peers.get(id)?.witness) return 'witness';
  return m.voters.includes(id) ? 'voter' : 'learner';
}

/** Fewest characters of an id taken as its start or end (listings show the end). */
const MIN_PART = 6;

/** Node by id, name, or unique start or end of its id. */
export function findNode(peer: Peer, text: string): NodeId {
  const all = [...peer.state().peers.values()];
  const exact = all.find((p) => p.nodeId === text) ?? all.find((p) => p.name === text);
  if (exact) return exact.nodeId;
  const byPart = all.filter((p) => text.length >= MIN_PART && (p.nodeId.startsWith(text) || p.nodeId.endsWith(text)));
  if (byPart.length === 1 && byPart[0]) return byPart[0].nodeId;
  if (byPart.length > 1)
    throw new TaskOrgError('invalid_input', `${text} is the start or end of ${byPart.length} ids`, {
      hint: 'give the name: task-org node ls',
    });
  throw new TaskOrgError('not_found', `no node ${text}`, { hint: 'task-org node ls lists them' });
}

/** Task by id, name, or unique start or end of its id. */
export function findTask(peer: Peer, text: string): TaskRecord {
  const state = peer.state();
  const named = state.taskNames.get(text);
  const exact = state.tasks.get(text as never) ?? (named === undefined ? undefined : state.tasks.get(named));
  if (exact) return exact;
  if (text.length >= MIN_PART) {
    const hits = [...state.tasks.values()].filter((t) => t.id.startsWith(text) || t.id.endsWith(text));
    if (hits.length === 1 && hits[0]) return hits[0];
    if (hits.length > 1)
      throw new TaskOrgError('invalid_input', `${text} is the start or end of ${hits.length} task ids`, {
        hint: 'give the name: task-org ps -a',
      });
  }
  throw new TaskOrgError('not_found', `no task ${text}`, { hint: 'task-org ps -a lists them' });
}

export function viewNode(peer: Peer, id: NodeId, now: MonoMs): NodeView {
  const record = peer.state().peers.get(id);
  const facts = peer.facts().get(id);
  const heard = peer.factsAt(id);
  return {
    id,
    name: nodeName(peer, id),
    status: id === peer.self ? 'alive' : (peer.members().get(id)?.status ?? 'unknown'),
    role: nodeRole(peer, id),
    availability: record?.availability ?? 'active',
    address: facts?.addresses[0] ?? record?.addresses[0] ?? '',
    version: facts?.agentVersion ?? '',
    cpus: facts?.resources.cpus ?? 0,
    memoryBytes: facts?.resources.memoryBytes ?? 0,
    labels: { ...(record?.labels ?? {}), ...(facts?.labels ?? {}) },
    os: facts?.os ?? '',
    arch: facts?.arch ?? '',
    runtimes: [...(facts?.runtimes ?? [])],
    problems: [...(facts?.problems ?? [])],
    copies: facts?.copies.filter((c) => c.state === 'running').length ?? 0,
    priority: record?.priority ?? 0,
    incarnation: facts?.incarnation ?? 0,
    factAgeMs: id === peer.self ? 0 : heard === undefined ? null : Math.max(0, Math.round(now - heard)),
    load: facts?.load ?? null,
    resources: facts?.resources ?? null,
  };
}

function slotState(
  l: Look,
  task: TaskRecord,
  slot: SlotRecord,
  copy: CopyFact | undefined,
): { state: string; error: string } {
  const { peer } = l;
  switch (slot.state.kind) {
    case 'pending':
      return task.desired === 'stopped'
        ? { state: 'stopped', error: '' }
        : { state: 'pending', error: named(peer, l.waiting.get(task.id)?.reason ?? slot.state.reason) };
    case 'closed':
      return { state: 'moving', error: named(peer, l.waiting.get(task.id)?.reason ?? slot.state.reason) };
    case 'finished':
    case 'failed':
      return { state: slot.state.kind, error: slot.state.error };
    case 'assigned': {
      const member = slot.state.node === peer.self ? 'alive' : peer.members().get(slot.state.node)?.status;
      if (member === 'dead' || member === 'left')
        return { state: 'lost', error: `${nodeName(peer, slot.state.node)} is ${member}` };
      return copy ? { state: copy.state, error: copy.error } : { state: 'assigned', error: '' };
    }
    default:
      return assertNever(slot.state);
  }
}

export function viewSlot(l: Look, task: TaskRecord, slot: SlotRecord): SlotView {
  const placed = placedCopy(l.peer, task, slot, l.copyOf, l.provisional);
  const copy = placed?.fact;
  const provisional = copy?.generation.provisional !== undefined;
  const { state, error } = provisional ? copy : slotState(l, task, slot, copy);
  const node = provisional ? (placed?.node ?? null) : slot.state.kind === 'pending' ? null : slot.state.node;
  const ended = slot.state.kind === 'finished' || slot.state.kind === 'failed';
  return {
    slot: slot.slot,
    node: node === null ? null : nodeName(l.peer, node),
    nodeId: node,
    state,
    generation: provisional ? named(l.peer, formatGeneration(copy.generation)) : formatGeneration(slot.generation),
    startedAt: copy?.startedAt ?? null,
    health: copy?.health ?? 'none',
    exitCode: ended ? (slot.state as { exitCode: number | null }).exitCode : (copy?.exitCode ?? null),
    restarts: copy?.restarts ?? 0,
    error,
    handle: copy?.handle ?? '',
    ports: (copy?.ports ?? []).map((p) => ({ ...p })),
  };
}

function taskState(task: TaskRecord, slots: readonly SlotView[]): string {
  if (task.desired === 'stopped')
    return slots.some((s) => s.state === 'running' || s.state === 'stopping') ? 'stopping' : 'stopped';
  if (slots.length === 0) return 'stopped';
  const all = (state: string): boolean => slots.every((s) => s.state === state);
  for (const state of ['running', 'finished', 'failed', 'pending']) if (all(state)) return state;
  if (slots.some((s) => s.state === 'failed')) return 'failed';
  if (slots.some((s) => s.state === 'running')) return 'degraded';
  return slots[0]?.state ?? 'pending';
}

export function viewTask(l: Look, task: TaskRecord): TaskView {
  const slots = task.slots.map((s) => viewSlot(l, task, s));
  const started = slots.map((s) => s.startedAt).filter((s) => s !== null);
  return {
    id: task.id,
    name: task.spec.name,
    image: task.spec.image,
    command: [...task.spec.command, ...task.spec.args],
    runtime: task.spec.runtime,
    node: [...new Set(slots.map((s) => s.node).filter((n) => n !== null))].join(','),
    state: taskState(task, slots),
    generation: slots[0]?.generation ?? '',
    desired: task.desired,
    error: slots.map((s) => s.error).find((e) => e !== '') ?? '',
    startedAt: started.length > 0 ? Math.max(...started) : null,
    acceptedAt: task.acceptedAt,
    specVersion: task.specVersion,
    onPartition: task.spec.onPartition,
    labels: { ...task.spec.labels },
    slots,
  };
}

/** Decisions of this peer as caretaker stand in no log: they are told last, with index 0. */
function viewProvisional(peer: Peer, task: TaskRecord): DecisionView[] {
  return peer.provisionalDecisions(task.id).map(({ at, order, node, evidence }) => ({
    at,
    index: 0,
    slot: order.slot,
    by: nodeName(peer, peer.self),
    what: 'provisional',
    generation: named(peer, formatGeneration(order.generation)),
    node: nodeName(peer, node),
    reason: named(peer, order.reason),
    evidence: evidence.map((e) => named(peer, e)),
  }));
}

export function viewDecisions(peer: Peer, task: TaskRecord): DecisionView[] {
  const committed = task.decisions.map((d) => ({
    at: d.at,
    index: d.index,
    slot: d.slot,
    by: nodeName(peer, d.by),
    what: d.what,
    generation: d.generation ? formatGeneration(d.generation) : null,
    node: d.node ? nodeName(peer, d.node) : null,
    reason: named(peer, d.reason),
    evidence: d.evidence.map((e) => named(peer, e)),
  }));
  return [...committed, ...viewProvisional(peer, task)];
}

/** Why slots have no machine; null when none waits. */
export function viewWaiting(l: Look, task: TaskRecord): WaitingView | null {
  const w = l.waiting.get(task.id);
  if (!w) return null;
  return {
    reason: named(l.peer, w.reason),
    slots: [...(w.slots ?? [])],
    rejections: (w.rejections ?? []).map((r) => ({
      node: nodeName(l.peer, r.node),
      filter: r.filter,
      reason: named(l.peer, r.reason),
    })),
  };
}

export const viewEvent = (peer: Peer, e: ClusterEvent): EventView => ({
  ...e,
  subject: named(peer, e.subject),
  message: named(peer, e.message),
});

export function quorumOf(peer: Peer): ClusterView['quorum'] {
  const voters = peer.consensus().membership.voters;
  // A learner that has just joined knows the master before it has the records that name the voters.
  if (voters.length === 0) return { needed: 0, alive: 0, ok: peer.leader() !== null };
  const needed = Math.floor(voters.length / 2) + 1;
  const alive = voters.filter((v) => v === peer.self || peer.members().get(v)?.status === 'alive').length;
  return { needed, alive, ok: alive >= needed && peer.leader() !== null };
}

/** Set while no majority is in reach: since when, and who is caretaker of this side. */
export function viewSide(peer: Peer, now: MonoMs): ClusterView['side'] {
  const side = peer.side();
  if (side === undefined) return null;
  return {
    sinceMs: Math.max(0, Math.round(now - side.since)),
    caretaker: side.caretaker === null ? null : nodeName(peer, side.caretaker),
    waiting: Object.fromEntries(side.waiting),
  };
}

/** Epochs in reach that neither came before this peer's nor will be left for it. */
export function viewConflicts(peer: Peer): ClusterView['conflicts'] {
  const own = peer.state().cluster;
  const conflicts: ClusterView['conflicts'] = [];
  for (const [id, { epoch }] of peer.facts()) {
    if (id === peer.self || epoch === undefined || own === undefined || peer.members().get(id)?.status !== 'alive')
      continue;
    if (epoch.id === own.epochId || own.parents?.includes(epoch.id) === true) continue;
    conflicts.push({ peer: nodeName(peer, id), epoch: epoch.number, epochId: epoch.id });
  }
  return conflicts;
}

export function viewUnaccounted(peer: Peer): string[] {
  const unsettled = peer.state().cluster?.unsettled;
  return (unsettled?.voters ?? []).filter((id) => !unsettled?.accounted.includes(id)).map((id) => nodeName(peer, id));
}

export function oldestFactMs(peer: Peer, now: MonoMs): number {
  let oldest = 0;
  for (const id of peer.state().peers.keys()) {
    const status = peer.members().get(id)?.status;
    const at = peer.factsAt(id);
    if (id !== peer.self && at !== undefined && status !== 'dead' && status !== 'left')
      oldest = Math.max(oldest, now - at);
  }
  return Math.round(oldest);
}

export function knowledge(peer: Peer): { peers: number; of: number; appliedIndex: number; hasQuorum: boolean } {
  const ids = [...peer.state().peers.keys()];
  const reachable = ids.filter((id) => id === peer.self || peer.members().get(id)?.status === 'alive').length;
  return { peers: reachable, of: ids.length, appliedIndex: peer.state().applied, hasQuorum: quorumOf(peer).ok };
}

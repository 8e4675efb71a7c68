import type { Peer } from '../../core/peer/peer.ts';
import { copyKey } from '../../core/peer/facts-book.ts';
import type { CopyFact } from '../../model/facts.ts';
import { formatGeneration } from '../../model/generation.ts';
import { assertNever, type MonoMs, type NodeId } from '../../model/ids.ts';
import type { SlotRecord, TaskRecord } from '../../model/records.ts';
import { TaskOrgError } from '../../model/errors.ts';
import type { ClusterView, DecisionView, NodeView, SlotView, TaskView } from './schemas.ts';

// Records and facts, put together as people and programs see them. Read-only.

export const nodeName = (peer: Peer, id: NodeId): string => peer.state().peers.get(id)?.name ?? peer.facts().get(id)?.name ?? id.slice(-8);

export function nodeRole(peer: Peer, id: NodeId): string {
  const m = peer.consensus().membership;
  if (peer.leader() === id) return 'master';
  if (m.voters.includes(id)) return peer.state().peers.get(id)?.witness ? 'witness' : 'voter';
  return 'learner';
}

/** Node by id, name, or unique prefix of its id. */
export function findNode(peer: Peer, text: string): NodeId {
  const all = [...peer.state().peers.values()];
  const exact = all.find((p) => p.nodeId === text) ?? all.find((p) => p.name === text);
  if (exact) return exact.nodeId;
  const byPrefix = all.filter((p) => text.length >= 6 && (p.nodeId.startsWith(text) || p.nodeId.endsWith(text)));
  if (byPrefix.length === 1 && byPrefix[0]) return byPrefix[0].nodeId;
  throw new TaskOrgError('not_found', `no node ${text}`, { hint: 'task-org node ls lists them' });
}

/** Task by id, name, or unique prefix of its id. */
export function findTask(peer: Peer, text: string): TaskRecord {
  const state = peer.state();
  const named = state.taskNames.get(text);
  const exact = state.tasks.get(text as never) ?? (named === undefined ? undefined : state.tasks.get(named));
  if (exact) return exact;
  if (text.length >= 6) {
    const hits = [...state.tasks.values()].filter((t) => t.id.startsWith(text));
    if (hits.length === 1 && hits[0]) return hits[0];
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

/** Which copy stands for a slot: the assigned node's fact of the current generation. */
function copyOf(peer: Peer, task: TaskRecord, slot: SlotRecord): CopyFact | undefined {
  if (slot.state.kind === 'pending') return undefined;
  const key = copyKey({ taskId: task.id, slot: slot.slot, generation: slot.generation });
  return peer.facts().get(slot.state.node)?.copies.find((c) => copyKey(c) === key);
}

function slotState(peer: Peer, task: TaskRecord, slot: SlotRecord, copy: CopyFact | undefined): { state: string; error: string } {
  switch (slot.state.kind) {
    case 'pending':
      return task.desired === 'stopped' ? { state: 'stopped', error: '' } : { state: 'pending', error: peer.waiting().get(task.id)?.reason ?? slot.state.reason };
    case 'closed':
      return { state: 'moving', error: slot.state.reason };
    case 'finished':
    case 'failed':
      return { state: slot.state.kind, error: slot.state.error };
    case 'assigned': {
      const member = slot.state.node === peer.self ? 'alive' : peer.members().get(slot.state.node)?.status;
      if (member === 'dead' || member === 'left') return { state: 'lost', error: `${nodeName(peer, slot.state.node)} is ${member}` };
      return copy ? { state: copy.state, error: copy.error } : { state: 'assigned', error: '' };
    }
    default:
      return assertNever(slot.state);
  }
}

export function viewSlot(peer: Peer, task: TaskRecord, slot: SlotRecord): SlotView {
  const copy = copyOf(peer, task, slot);
  const { state, error } = slotState(peer, task, slot, copy);
  const node = slot.state.kind === 'pending' ? null : slot.state.node;
  const ended = slot.state.kind === 'finished' || slot.state.kind === 'failed';
  return {
    slot: slot.slot,
    node: node === null ? null : nodeName(peer, node),
    nodeId: node,
    state,
    generation: formatGeneration(slot.generation),
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
  if (task.desired === 'stopped') return slots.some((s) => s.state === 'running' || s.state === 'stopping') ? 'stopping' : 'stopped';
  if (slots.length === 0) return 'stopped';
  const all = (state: string): boolean => slots.every((s) => s.state === state);
  for (const state of ['running', 'finished', 'failed', 'pending']) if (all(state)) return state;
  if (slots.some((s) => s.state === 'failed')) return 'failed';
  if (slots.some((s) => s.state === 'running')) return 'degraded';
  return slots[0]?.state ?? 'pending';
}

export function viewTask(peer: Peer, task: TaskRecord): TaskView {
  const slots = task.slots.map((s) => viewSlot(peer, task, s));
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

export function viewDecisions(peer: Peer, task: TaskRecord): DecisionView[] {
  return task.decisions.map((d) => ({
    at: d.at, index: d.index, slot: d.slot, by: nodeName(peer, d.by), what: d.what,
    generation: d.generation ? formatGeneration(d.generation) : null,
    node: d.node ? nodeName(peer, d.node) : null, reason: d.reason, evidence: [...d.evidence],
  }));
}

export function quorumOf(peer: Peer): ClusterView['quorum'] {
  const voters = peer.consensus().membership.voters;
  const needed = Math.floor(voters.length / 2) + 1;
  const alive = voters.filter((v) => v === peer.self || peer.members().get(v)?.status === 'alive').length;
  return { needed, alive, ok: alive >= needed && peer.leader() !== null };
}

export function oldestFactMs(peer: Peer, now: MonoMs): number {
  let oldest = 0;
  for (const id of peer.state().peers.keys()) {
    const status = peer.members().get(id)?.status;
    const at = peer.factsAt(id);
    if (id !== peer.self && at !== undefined && status !== 'dead' && status !== 'left') oldest = Math.max(oldest, now - at);
  }
  return Math.round(oldest);
}

export function knowledge(peer: Peer): { peers: number; of: number; appliedIndex: number; hasQuorum: boolean } {
  const ids = [...peer.state().peers.keys()];
  const reachable = ids.filter((id) => id === peer.self || peer.members().get(id)?.status === 'alive').length;
  return { peers: reachable, of: ids.length, appliedIndex: peer.state().applied, hasQuorum: quorumOf(peer).ok };
}

import type { ApplyResult, Command } from '../../model/commands.ts';
import { LIMITS } from '../../model/limits.ts';
import type { InvitationRecord, PeerRecord, TaskRecord } from '../../model/records.ts';
import {
  addEvent,
  type Change,
  type DecisionDraft,
  decided,
  deletePeer,
  putPeer,
  putTask,
  withSlot,
} from './change.ts';
import { CLUSTER_KEY, invitationKey, settingKey } from './keys.ts';
import { OK, refused } from './results.ts';
import type { ClusterState } from './types.ts';

// The cluster, its peers, invitations and settings.

type Of<T extends Command['type']> = Extract<Command, { type: T }>;

/**
 * Founds the cluster; a second founding is refused. A higher epoch of the same cluster (recovery by force, when the
 * majority is gone for good) is taken: generations go on in the new epoch, above all of the old.
 */
export function clusterInit(c: Change, { cluster, founder }: Of<'cluster.init'>): ApplyResult {
  const known = c.state.cluster;
  if (known !== undefined && (known.clusterId !== cluster.clusterId || cluster.epoch <= known.epoch))
    return refused('already_exists', `the cluster ${known.name} exists already`);
  c.state.cluster = cluster;
  c.puts.set(CLUSTER_KEY, cluster);
  if (!c.state.peers.has(founder.nodeId))
    putPeer(c, { ...founder, name: freeName(c.state, founder.name), admittedAt: c.index });
  if (known === undefined)
    addEvent(c, 'cluster.created', cluster.name, `cluster ${cluster.name} created by ${founder.name}`);
  else addEvent(c, 'cluster.recovered', cluster.name, `epoch ${cluster.epoch} begins on ${founder.name}`);
  return OK;
}

/** Asking again is safe: a peer on the list is brought up to date and no further use of the invitation is counted. */
export function peerAdmit(c: Change, { peer, invitationId }: Of<'peer.admit'>): ApplyResult {
  const known = c.state.peers.get(peer.nodeId);
  if (known !== undefined) {
    putPeer(c, { ...peer, name: known.name, availability: known.availability, admittedAt: known.admittedAt });
    return OK;
  }
  if (c.state.peers.size >= LIMITS.peers) return refused('limit', `the cluster has ${LIMITS.peers} peers already`);
  if (invitationId !== null) {
    const used = useInvitation(c, invitationId);
    if (!used.ok) return used;
  }
  const record: PeerRecord = { ...peer, name: freeName(c.state, peer.name), admittedAt: c.index };
  putPeer(c, record);
  addEvent(c, 'peer.admitted', record.name, `${record.name} joined`);
  return OK;
}

function useInvitation(c: Change, id: string): ApplyResult {
  const invitation = c.state.invitations.get(id);
  if (invitation === undefined) return refused('not_found', 'the invitation is not known; it may have been taken back');
  if (invitation.expiresAt <= c.at) return refused('refused', 'the invitation has expired');
  if (invitation.usesLeft <= 0) return refused('refused', 'the invitation is used up');
  putInvitation(c, { ...invitation, usesLeft: invitation.usesLeft - 1 });
  return OK;
}

export function peerUpdate(c: Change, { nodeId, patch }: Of<'peer.update'>): ApplyResult {
  const known = c.state.peers.get(nodeId);
  if (known === undefined) return refused('not_found', `no peer ${nodeId}`);
  // Admission finds a free name by itself; a person who chooses one is told that it is taken.
  const bearer = patch.name === undefined ? undefined : c.state.peerNames.get(patch.name);
  if (bearer !== undefined && bearer !== nodeId) return refused('name_in_use', `another peer is called ${patch.name}`);
  const record: PeerRecord = {
    ...known,
    name: patch.name ?? known.name,
    addresses: patch.addresses ?? known.addresses,
    labels: patch.labels ?? known.labels,
    priority: patch.priority ?? known.priority,
    availability: patch.availability ?? known.availability,
  };
  putPeer(c, record);
  if (record.availability !== known.availability)
    addEvent(
      c,
      `peer.${record.availability}`,
      record.name,
      `${record.name} is now ${record.availability === 'drain' ? 'drained: it gets nothing new' : 'active'}`,
    );
  else if (patch.addresses === undefined || Object.keys(patch).length > 1)
    addEvent(c, 'peer.updated', record.name, `${record.name}: ${Object.keys(patch).join(', ')} changed`);
  return OK;
}

/** Strikes a peer from the list and closes what is assigned to it: its copies are no longer its own. */
export function peerRemove(c: Change, { nodeId }: Of<'peer.remove'>): ApplyResult {
  const known = c.state.peers.get(nodeId);
  if (known === undefined) return refused('not_found', `no peer ${nodeId}`);
  if (c.state.peers.size === 1) return refused('refused', 'it is the last peer of the cluster');
  const reason = `${known.name} was removed from the cluster`;
  const slots = new Map<TaskRecord['id'], number[]>();
  for (const ref of c.state.assignments.get(nodeId)?.values() ?? []) {
    const list = slots.get(ref.taskId);
    if (list === undefined) slots.set(ref.taskId, [ref.slot]);
    else list.push(ref.slot);
  }
  // By id: the order in which an index was filled differs between peers, and results must not.
  for (const [id, numbers] of [...slots].sort(([a], [b]) => (a < b ? -1 : 1))) {
    const before = c.state.tasks.get(id) as TaskRecord;
    let after = before;
    const drafts: DecisionDraft[] = [];
    for (const n of numbers.sort((a, b) => a - b)) {
      const slot = after.slots[n];
      if (slot === undefined) continue;
      after = withSlot(after, { ...slot, state: { kind: 'closed', node: nodeId, at: c.at, reason } });
      drafts.push({ slot: n, what: 'closed', generation: slot.generation, node: nodeId, reason, evidence: [] });
    }
    putTask(c, before, decided(c, after, ...drafts));
  }
  deletePeer(c, known);
  addEvent(c, 'peer.removed', known.name, reason);
  return OK;
}

export function invitationAdd(c: Change, { invitation }: Of<'invitation.add'>): ApplyResult {
  if (c.state.invitations.has(invitation.id)) return refused('already_exists', 'an invitation with this id exists');
  const spent = [...c.state.invitations.values()].filter((i) => i.expiresAt <= c.at || i.usesLeft <= 0);
  for (const id of spent.map((i) => i.id).sort()) deleteInvitation(c, id);
  if (c.state.invitations.size >= LIMITS.invitations)
    return refused('limit', `${LIMITS.invitations} invitations stand already; take some back`);
  putInvitation(c, invitation);
  addEvent(
    c,
    'invitation.added',
    invitation.id,
    `invitation for ${invitation.usesLeft} peer${invitation.usesLeft === 1 ? '' : 's'}`,
  );
  return OK;
}

export function invitationRemove(c: Change, { id }: Of<'invitation.remove'>): ApplyResult {
  if (!c.state.invitations.has(id)) return refused('not_found', 'no such invitation');
  deleteInvitation(c, id);
  addEvent(c, 'invitation.removed', id, 'invitation taken back');
  return OK;
}

function putInvitation(c: Change, invitation: InvitationRecord): void {
  c.state.invitations.set(invitation.id, invitation);
  c.puts.set(invitationKey(invitation.id), invitation);
}

function deleteInvitation(c: Change, id: string): void {
  c.state.invitations.delete(id);
  c.puts.set(invitationKey(id), null);
}

/** An empty value removes the setting. */
export function settingSet(c: Change, { key, value }: Of<'setting.set'>): ApplyResult {
  if (value === '') {
    c.state.settings.delete(key);
    c.puts.set(settingKey(key), null);
    return OK;
  }
  if (!c.state.settings.has(key) && c.state.settings.size >= LIMITS.settings)
    return refused('limit', `${LIMITS.settings} settings stand already`);
  c.state.settings.set(key, value);
  c.puts.set(settingKey(key), value);
  return OK;
}

/** The name itself, or with -2, -3 ... when a peer bears it already. */
function freeName(state: ClusterState, wanted: string): string {
  if (!state.peerNames.has(wanted)) return wanted;
  for (let n = 2; ; n++) {
    const name = `${wanted}-${n}`;
    if (!state.peerNames.has(name)) return name;
  }
}

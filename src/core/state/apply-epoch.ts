import type { ApplyResult, Command } from '../../model/commands.ts';
import type { NodeId } from '../../model/ids.ts';
import { LIMITS } from '../../model/limits.ts';
import type { ClusterRecord } from '../../model/records.ts';
import { addEvent, type Change } from './change.ts';
import { CLUSTER_KEY } from './keys.ts';
import { OK, refused } from './results.ts';
import type { ClusterState } from './types.ts';

// Recovery of a cluster whose majority is gone for good. The log goes on in a new epoch; what the epoch before may still
// grant is waited out. Why counting voters is enough: a lease is renewed only through a quorum round among the voters of its
// epoch (core/lease). Once so many of them are of the new epoch, or dead, that the rest is no majority, no lease of the old one
// can be renewed, so each ends within L, whoever holds it, known here or not.

type Of<T extends Command['type']> = Extract<Command, { type: T }>;

export function clusterRecover(c: Change, command: Of<'cluster.recover'>): ApplyResult {
  const known = c.state.cluster;
  if (known === undefined) return refused('not_found', 'there is no cluster to recover yet');
  if (command.epoch !== known.epoch + 1)
    return refused(
      'stale',
      `the cluster is of epoch ${known.epoch}; the next is ${known.epoch + 1}, not ${command.epoch}`,
    );
  const record: ClusterRecord = {
    ...known,
    epoch: command.epoch,
    epochId: command.epochId,
    parents: [...(known.parents ?? []), known.epochId].slice(-LIMITS.epochs),
    unsettled: { voters: command.voters, accounted: [] },
  };
  put(c, record);
  const by = nameOf(c.state, command.by);
  addEvent(c, 'cluster.recovered', known.name, `epoch ${command.epoch} begins on ${by}, by force`);
  account(c, [command.by, ...command.dead]);
  return OK;
}

export function clusterAccount(c: Change, command: Of<'cluster.account'>): ApplyResult {
  const { cluster } = c.state;
  if (cluster?.unsettled === undefined) return refused('stale', 'nothing of an earlier epoch is waited for');
  const names = command.nodes.map((id) => nameOf(c.state, id)).join(', ');
  const settled = account(c, command.nodes);
  addEvent(
    c,
    'cluster.accounted',
    names,
    `${names}: ${command.how}${settled ? '; exclusive tasks run again once old leases have run out' : ''}`,
  );
  return OK;
}

/** Returns true when the epoch before can grant nothing any more. */
function account(c: Change, nodes: readonly NodeId[]): boolean {
  const { cluster } = c.state;
  if (cluster?.unsettled === undefined) return false;
  const { unsettled, ...rest } = cluster;
  const accounted = [...new Set([...unsettled.accounted, ...nodes])].filter((id) => unsettled.voters.includes(id));
  const settled = unsettled.voters.length - accounted.length <= unsettled.voters.length / 2;
  put(c, settled ? rest : { ...rest, unsettled: { voters: unsettled.voters, accounted } });
  return settled;
}

function put(c: Change, record: ClusterRecord): void {
  c.state.cluster = record;
  c.puts.set(CLUSTER_KEY, record);
}

const nameOf = (state: ClusterState, id: NodeId): string => state.peers.get(id)?.name ?? id;

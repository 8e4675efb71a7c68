import type { Command } from '../../model/commands.ts';
import type { NodeId } from '../../model/ids.ts';
import type { MasterContext } from './types.ts';

// After a recovery by force: which voters of the epoch before are of this one now, and whether exclusive tasks must wait.

/** Why no exclusive slot is granted yet; undefined when the epoch before can grant nothing any more. */
export function exclusiveBar(ctx: Pick<MasterContext, 'state'>): string | undefined {
  const unsettled = ctx.state.cluster?.unsettled;
  if (unsettled === undefined) return undefined;
  const missing = unsettled.voters.filter((id) => !unsettled.accounted.includes(id));
  const names = missing.map((id) => ctx.state.peers.get(id)?.name ?? id).join(', ');
  return `the cluster was recovered by force, and ${names} may still run it: let them return, or name the dead: task-org cluster recover --force --dead NODE`;
}

/** Voters of the epoch before that live in this one, and are not yet counted. */
export function accountFor(ctx: MasterContext, self: NodeId): Command[] {
  const cluster = ctx.state.cluster;
  if (cluster?.unsettled === undefined) return [];
  const { voters, accounted } = cluster.unsettled;
  const nodes = voters.filter(
    (id) =>
      !accounted.includes(id) &&
      ctx.members.get(id)?.status === 'alive' &&
      ctx.facts.get(id)?.epoch?.id === cluster.epochId,
  );
  return nodes.length === 0 ? [] : [{ type: 'cluster.account', by: self, at: ctx.wall, nodes, how: 'of this epoch' }];
}

import type { FastifyInstance } from 'fastify';
import { Type } from 'typebox';
import { TaskOrgError } from '../../model/errors.ts';
import { type ApiContext, proposeOrThrow } from './context.ts';
import { errors } from './openapi.ts';
import { RecoveryView } from './schemas.ts';
import { findNode, nodeName, viewConflicts } from './views.ts';

// A cluster whose majority is gone for good, and recoveries that meet.

const RISKS =
  'what only the lost machines know is lost; if their majority lives on somewhere, two clusters run until one of them is given up';

export function recoveryRoutes(app: FastifyInstance, ctx: ApiContext): void {
  const { peer } = ctx.driver;

  app.post<{ Body: { force?: boolean; dead?: string[] } }>(
    '/cluster/recover',
    {
      schema: {
        summary:
          'Begin a new epoch from the records of this peer: its majority is gone for good. The agent starts again',
        body: Type.Object(
          {
            force: Type.Optional(Type.Boolean({ description: 'must be true' })),
            dead: Type.Optional(
              Type.Array(Type.String(), {
                maxItems: 1000,
                description: 'machines that certainly run nothing any more',
              }),
            ),
          },
          { additionalProperties: false },
        ),
        response: { 200: RecoveryView, ...errors },
      },
    },
    async (request) => {
      const dead = (request.body.dead ?? []).map((name) => findNode(peer, name));
      const alive = dead.find((id) => id === peer.self || peer.members().get(id)?.status === 'alive');
      if (alive !== undefined)
        throw new TaskOrgError('refused', `${nodeName(peer, alive)} is alive: it cannot be named dead`);
      if (request.body.force !== true)
        throw new TaskOrgError('refused', `recovery without a majority is not safe: ${RISKS}`, {
          hint: 'when the others are certainly gone: task-org cluster recover --force [--dead NODE]...',
        });
      const cluster = peer.state().cluster;
      if (cluster?.unsettled !== undefined && peer.leader() !== null) {
        if (dead.length === 0)
          throw new TaskOrgError('refused', 'the cluster has been recovered already', {
            hint: 'name those that are certainly dead, so that exclusive tasks may run: task-org cluster recover --force --dead NODE',
          });
        await proposeOrThrow(ctx, 'recover', { type: 'cluster.account', nodes: dead, how: 'named dead' });
        return {
          epoch: cluster.epoch,
          voters: cluster.unsettled.voters.map((id) => nodeName(peer, id)),
          started: false,
        };
      }
      const { epoch, voters } = await ctx.recover(dead);
      return { epoch, voters: voters.map((id) => nodeName(peer, id)), started: true };
    },
  );

  app.post<{ Body: { epochId: string } }>(
    '/cluster/rejoin',
    {
      schema: {
        summary:
          'Leave the epoch of this peer for another in reach; its records so far are kept aside. The agent starts again',
        body: Type.Object({ epochId: Type.String({ minLength: 1, maxLength: 128 }) }, { additionalProperties: false }),
        response: { 200: Type.Object({ epochId: Type.String() }), ...errors },
      },
    },
    async (request) => {
      const { epochId } = request.body;
      if (!viewConflicts(peer).some((c) => c.epochId === epochId))
        throw new TaskOrgError('not_found', `no peer in reach is of epoch ${epochId}`, {
          hint: 'task-org cluster status lists the epochs that are',
        });
      await ctx.rejoin(epochId);
      return { epochId };
    },
  );
}

import type { FastifyInstance } from 'fastify';
import { Type } from 'typebox';
import { LIMITS } from '../../model/limits.ts';
import { type ApiContext, expectOk, proposeOrThrow } from './context.ts';
import { errors } from './openapi.ts';
import { ChangeView } from './schemas.ts';

// Small values that people and programs keep in the cluster's log: on every peer, agreed on, at most LIMITS.settings of them
// together with the cluster's own. The cluster's own settings are not reachable here: every key begins with `user.`.

const VALUE_CHARACTERS = 4096;
const Params = Type.Object({ key: Type.String({ pattern: '^user\\.[A-Za-z0-9_./-]{1,123}$' }) });
const Body = Type.Object(
  { value: Type.String({ maxLength: VALUE_CHARACTERS, description: 'empty: the setting is removed' }) },
  { additionalProperties: false },
);

const OWN = 'user.';

export function settingRoutes(app: FastifyInstance, ctx: ApiContext): void {
  app.get(
    '/settings',
    {
      schema: {
        summary: "The values kept in the cluster's log, as this peer has applied them",
        response: {
          200: Type.Object({ items: Type.Array(Type.Object({ key: Type.String(), value: Type.String() })) }),
        },
      },
    },
    () => ({
      items: [...ctx.driver.peer.state().settings]
        .filter(([key]) => key.startsWith(OWN))
        .map(([key, value]) => ({ key, value })),
    }),
  );

  app.get<{ Params: { key: string } }>(
    '/settings/:key',
    {
      schema: {
        summary: 'One value, as new as every change that was answered before this request; empty when there is none',
        params: Params,
        response: { 200: Type.Object({ key: Type.String(), value: Type.String() }), ...errors },
      },
    },
    async ({ params: { key } }) => {
      expectOk(await ctx.driver.readCurrent(), 'setting');
      return { key, value: ctx.driver.peer.state().settings.get(key) ?? '' };
    },
  );

  app.put<{ Params: { key: string }; Body: { value: string } }>(
    '/settings/:key',
    {
      schema: {
        summary: `Keep a small value in the cluster's log (${LIMITS.settings} settings in all); answered when it is committed`,
        params: Params,
        body: Body,
        response: { 200: ChangeView, ...errors },
      },
    },
    (request) =>
      proposeOrThrow(ctx, 'setting', { type: 'setting.set', key: request.params.key, value: request.body.value }),
  );
}

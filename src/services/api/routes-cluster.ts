import type { FastifyInstance } from 'fastify';
import { Type } from 'typebox';
import { TaskOrgError } from '../../model/errors.ts';
import { formatGeneration } from '../../model/generation.ts';
import type { NodeId } from '../../model/ids.ts';
import { type ApiContext, proposeOrThrow } from './context.ts';
import { recoveryRoutes } from './routes-recovery.ts';
import { errors, NodeParam, query } from './openapi.ts';
import { ChangeView, ClusterView, EventView, listOf, NodeView, SettingView, TokenView } from './schemas.ts';
import {
  findNode,
  knowledge,
  named,
  nodeName,
  oldestFactMs,
  quorumOf,
  viewEvent,
  viewNode,
  viewConflicts,
  viewSide,
  viewUnaccounted,
} from './views.ts';

export function clusterRoutes(app: FastifyInstance, ctx: ApiContext): void {
  const { peer } = ctx.driver;

  app.get(
    '/version',
    {
      schema: {
        summary: 'Version and identity',
        response: { 200: Type.Object({ version: Type.String(), node: Type.String(), clusterId: Type.String() }) },
      },
    },
    () => ({
      version: ctx.version,
      node: ctx.self,
      clusterId: ctx.clusterId,
    }),
  );

  app.get(
    '/cluster',
    { schema: { summary: 'Master, term, quorum, peers and who sees them', response: { 200: ClusterView, ...errors } } },
    async () => {
      const state = peer.state();
      const views = await ctx.viewsOfPeers();
      const view = peer.consensus();
      const leader = peer.leader();
      const seenBy = (id: NodeId): string[] =>
        [...views].filter(([from, seen]) => from !== id && seen[id] === 'alive').map(([from]) => nodeName(peer, from));
      return {
        clusterId: ctx.clusterId,
        name: state.cluster?.name ?? '',
        epoch: state.cluster?.epoch ?? 0,
        self: ctx.self,
        master: leader,
        masterName: leader === null ? null : nodeName(peer, leader),
        term: view.term,
        quorum: quorumOf(peer),
        voters: view.membership.voters.map((v) => nodeName(peer, v)),
        commit: view.commit,
        applied: state.applied,
        peers: [...state.peers.keys()].map((id) => ({
          id,
          name: nodeName(peer, id),
          status: viewNode(peer, id, ctx.clock.mono()).status,
          seenBy: seenBy(id),
        })),
        pendingSubmissions: peer.pending().size,
        side: viewSide(peer, ctx.clock.mono()),
        epochId: state.cluster?.epochId ?? '',
        conflicts: viewConflicts(peer),
        unaccounted: viewUnaccounted(peer),
        oldestFactMs: oldestFactMs(peer, ctx.clock.mono()),
      };
    },
  );

  recoveryRoutes(app, ctx);

  app.get('/nodes', { schema: { summary: 'Machines', response: { 200: listOf(NodeView), ...errors } } }, () => ({
    items: [...peer.state().peers.keys()]
      .map((id) => viewNode(peer, id, ctx.clock.mono()))
      .sort((a, b) => a.name.localeCompare(b.name, 'en', { numeric: true })),
    seenBy: knowledge(peer),
    oldestFactMs: oldestFactMs(peer, ctx.clock.mono()),
  }));

  app.get<{ Params: { node: string } }>(
    '/nodes/:node',
    { schema: { summary: 'One machine', params: NodeParam, response: { 200: NodeView, ...errors } } },
    (request) => viewNode(peer, findNode(peer, request.params.node), ctx.clock.mono()),
  );

  for (const [verb, availability, summary] of [
    ['drain', 'drain', 'Move its tasks away and give it nothing new'],
    ['undrain', 'active', 'Let it run tasks again'],
  ] as const) {
    app.post<{ Params: { node: string } }>(
      `/nodes/:node/${verb}`,
      { schema: { summary, params: NodeParam, response: { 200: ChangeView, ...errors } } },
      async (request) => {
        const nodeId = findNode(peer, request.params.node);
        return proposeOrThrow(ctx, verb, { type: 'peer.update', nodeId, patch: { availability } });
      },
    );
  }

  app.delete<{ Params: { node: string }; Querystring: { force?: boolean } }>(
    '/nodes/:node',
    {
      schema: {
        summary: 'Strike a machine from the cluster; the cluster secret is changed',
        params: NodeParam,
        querystring: query({ force: Type.Optional(Type.Boolean({ description: 'also one that is alive' })) }),
        response: { 200: ChangeView, ...errors },
      },
    },
    async (request) => {
      const nodeId = findNode(peer, request.params.node);
      const status = viewNode(peer, nodeId, ctx.clock.mono()).status;
      const name = nodeName(peer, nodeId);
      if (status === 'alive' && request.query.force !== true) {
        throw new TaskOrgError('refused', `${name} is alive`, {
          hint: `stop task-org-peer on ${name} first, or task-org node rm --force ${name}`,
        });
      }
      if (nodeId === ctx.self)
        throw new TaskOrgError('refused', 'a peer cannot remove itself', {
          hint: 'run task-org node rm on another peer',
        });
      const done = await proposeOrThrow(ctx, 'node rm', { type: 'peer.remove', nodeId });
      await ctx.rotateSecret();
      return done;
    },
  );

  app.post<{ Body: { expiresMs?: number; uses?: number } }>(
    '/tokens',
    {
      // No body asks for the defaults.
      preValidation: (request, _reply, done) => {
        request.body ??= {};
        done();
      },
      schema: {
        summary: 'Make a join token',
        body: Type.Object(
          {
            expiresMs: Type.Optional(Type.Integer({ minimum: 1000, maximum: 30 * 86_400_000 })),
            uses: Type.Optional(Type.Integer({ minimum: 1, maximum: 10_000 })),
          },
          { additionalProperties: false },
        ),
        response: { 200: TokenView, ...errors },
      },
    },
    async (request) => {
      const expiresMs = request.body.expiresMs ?? 3_600_000;
      const uses = request.body.uses ?? 1;
      const token = await ctx.makeToken({ expiresMs, uses });
      return { token, expiresAt: ctx.clock.wall() + expiresMs, uses };
    },
  );

  app.get<{ Querystring: { since?: number; follow?: boolean } }>(
    '/events',
    {
      schema: {
        summary: 'What happened; with follow=true a stream of one JSON event a line that goes on as they come',
        querystring: query({
          since: Type.Optional(Type.Number({ description: 'epoch ms' })),
          follow: Type.Optional(Type.Boolean()),
        }),
        response: { 200: listOf(EventView), ...errors },
      },
    },
    async (request, reply) => {
      const since = request.query.since ?? 0;
      const kept = peer
        .state()
        .events.filter((e) => e.at >= since)
        .map((e) => viewEvent(peer, e));
      if (request.query.follow !== true)
        return { items: kept, seenBy: knowledge(peer), oldestFactMs: oldestFactMs(peer, ctx.clock.mono()) };
      reply.hijack();
      const raw = reply.raw;
      raw.writeHead(200, { 'content-type': 'application/x-ndjson' });
      raw.flushHeaders(); // the reader knows that it listens, though nothing may happen for hours
      for (const e of kept) raw.write(`${JSON.stringify(e)}\n`);
      const line = (e: EventView): void => {
        // A reader that does not keep up is cut off rather than buffered for without bound.
        if (raw.writableLength > 1024 * 1024) raw.destroy();
        else raw.write(`${JSON.stringify(e)}\n`);
      };
      const stop = ctx.notices.subscribe((notice) => {
        if (notice.type === 'cluster-event') line(viewEvent(peer, notice.event));
        else if (notice.type === 'member')
          line({
            index: 0,
            at: notice.at,
            type: `node.${notice.change.to}`,
            subject: nodeName(peer, notice.change.id),
            message: `seen here: ${notice.change.from} -> ${notice.change.to}${notice.change.evidence.length ? ` (${named(peer, notice.change.evidence.join('; '))})` : ''}`,
          });
        else if (notice.type === 'role')
          line({
            index: 0,
            at: ctx.clock.wall(),
            type: 'role',
            subject: nodeName(peer, ctx.self),
            message: `term ${notice.term}: this peer is ${notice.role}; master ${notice.leader === null ? 'unknown' : nodeName(peer, notice.leader)}`,
          });
        else if (notice.type === 'caretaker')
          line({
            index: 0,
            at: notice.at,
            type: 'caretaker',
            subject: notice.caretaker === null ? '' : nodeName(peer, notice.caretaker),
            message: notice.alone
              ? `no majority in reach; ${notice.caretaker === null ? 'this side chooses a caretaker' : `${nodeName(peer, notice.caretaker)} is caretaker of this side`}`
              : 'a majority is in reach again',
          });
        else if (notice.type === 'provisional') {
          const { order, node, at } = notice.decision;
          line({
            index: 0,
            at,
            type: 'slot.provisional',
            subject: peer.state().tasks.get(order.taskId)?.spec.name ?? order.taskId,
            message: named(
              peer,
              `${formatGeneration(order.generation)} starts on ${nodeName(peer, node)}: ${order.reason}`,
            ),
          });
        }
      });
      raw.on('close', stop);
      return reply;
    },
  );

  app.get(
    '/config',
    {
      schema: {
        summary: "This machine's settings and where each came from",
        response: { 200: Type.Object({ items: Type.Array(SettingView) }), ...errors },
      },
    },
    () => ({ items: [...ctx.configShown()] }),
  );
}

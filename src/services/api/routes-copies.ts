import type { FastifyInstance } from 'fastify';
import { Type } from 'typebox';
import { TaskOrgError } from '../../model/errors.ts';
import { LIMITS } from '../../model/limits.ts';
import type { ExecOptions } from '../../ports/runtime.ts';
import { decodeFrames, encodeError, encodeFrame, FRAME } from '../remote/stream-frames.ts';
import type { ApiContext } from './context.ts';
import { ErrorView, listOf, StatsView } from './schemas.ts';
import { findTask, knowledge, nodeName, oldestFactMs } from './views.ts';

/** Body of an exec request: frames both ways (services/remote/stream-frames.ts). */
export const FRAMES_TYPE = 'application/x-task-org-frames';
/** Exec options, as JSON in base64url. */
export const EXEC_HEADER = 'x-task-org-exec';

type TaskParams = { Params: { task: string } };

/** Streams of logs and exec, and live stats of copies, wherever they run. */
export function copyRoutes(app: FastifyInstance, ctx: ApiContext): void {
  const { peer } = ctx.driver;
  app.addContentTypeParser(FRAMES_TYPE, (_request, payload, done) => done(null, payload));

  app.get<TaskParams & { Querystring: { slot?: number; follow?: boolean; tail?: number; timestamps?: boolean } }>(
    '/tasks/:task/logs',
    {
      schema: {
        description: 'Frames of stdout and stderr: one byte of stream (1, 2; 6 = error text), four of length, the bytes.',
        querystring: Type.Object({ slot: Type.Optional(Type.Integer({ minimum: 0 })), follow: Type.Optional(Type.Boolean()), tail: Type.Optional(Type.Integer({ minimum: 0, maximum: LIMITS.logsTailLines })), timestamps: Type.Optional(Type.Boolean()) }),
      },
    },
    async (request, reply) => {
      const task = findTask(peer, request.params.task);
      const q = request.query;
      const gone = new AbortController();
      const chunks = ctx.remote.logs(task, q.slot ?? 0, { follow: q.follow ?? false, tail: q.tail ?? LIMITS.logsTailLines, timestamps: q.timestamps ?? false }, gone.signal)[Symbol.asyncIterator]();
      // The first chunk is awaited before the header, so that a task without a copy is an ordinary error.
      const first = q.follow === true ? undefined : await chunks.next();
      reply.hijack();
      reply.raw.on('close', () => gone.abort());
      reply.raw.writeHead(200, { 'content-type': FRAMES_TYPE });
      try {
        for (let r = first ?? (await chunks.next()); !r.done; r = await chunks.next()) {
          if (!reply.raw.write(encodeFrame(r.value.stream === 'stderr' ? FRAME.stderr : FRAME.stdout, r.value.data))) await drained(reply.raw, gone.signal);
        }
      } catch (error) {
        if (!gone.signal.aborted) reply.raw.write(encodeError(error));
      }
      reply.raw.end();
      return reply;
    },
  );

  app.post<TaskParams & { Querystring: { slot?: number } }>('/tasks/:task/exec', { schema: { description: 'Frames both ways; options in the x-task-org-exec header.', querystring: Type.Object({ slot: Type.Optional(Type.Integer({ minimum: 0 })) }) } }, async (request, reply) => {
    const task = findTask(peer, request.params.task);
    const options = execOptions(request.headers[EXEC_HEADER]);
    const gone = new AbortController();
    reply.hijack();
    reply.raw.on('close', () => gone.abort());
    reply.raw.writeHead(200, { 'content-type': FRAMES_TYPE });
    reply.raw.flushHeaders();
    try {
      const input = decodeFrames(request.body as AsyncIterable<Uint8Array>);
      for await (const bytes of ctx.remote.exec(task, request.query.slot ?? 0, options, input, gone.signal)) {
        if (!reply.raw.write(bytes)) await drained(reply.raw, gone.signal);
      }
    } catch (error) {
      if (!gone.signal.aborted) reply.raw.write(encodeError(error));
    }
    reply.raw.end();
    return reply;
  });

  app.get('/stats', { schema: { response: { 200: listOf(StatsView), '5xx': ErrorView } } }, async () => {
    const nodes = await ctx.remote.stats(AbortSignal.timeout(5000));
    const items = nodes.flatMap(({ node, rows }) =>
      rows.map(({ copyId, ...stats }) => {
        const copy = peer.facts().get(node)?.copies.find((c) => copyId.startsWith(`${c.taskId}.${c.slot}.`));
        const name = copy ? (peer.state().tasks.get(copy.taskId)?.spec.name ?? copy.taskId) : copyId;
        return { task: name, slot: copy?.slot ?? 0, node: nodeName(peer, node), ...stats };
      }),
    );
    return { items, seenBy: knowledge(peer), oldestFactMs: oldestFactMs(peer, ctx.clock.mono()) };
  });
}

function execOptions(header: string | string[] | undefined): ExecOptions {
  try {
    const o = JSON.parse(Buffer.from(String(header), 'base64url').toString('utf8')) as Partial<ExecOptions>;
    if (!Array.isArray(o.command) || o.command.length === 0 || !o.command.every((c) => typeof c === 'string')) throw new Error('command');
    return { command: o.command, env: o.env ?? {}, tty: o.tty === true, interactive: o.interactive === true, user: o.user ?? '', workdir: o.workdir ?? '', size: o.size ?? null };
  } catch {
    throw new TaskOrgError('invalid_input', `the ${EXEC_HEADER} header must hold the exec options as base64url JSON with a non-empty command`);
  }
}

function drained(raw: NodeJS.WritableStream, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const done = (): void => {
      raw.off('drain', done);
      signal.removeEventListener('abort', done);
      resolve();
    };
    raw.on('drain', done);
    signal.addEventListener('abort', done, { once: true });
  });
}

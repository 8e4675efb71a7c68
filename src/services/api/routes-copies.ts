import type { FastifyInstance } from 'fastify';
import { Type } from 'typebox';
import { TaskOrgError } from '../../model/errors.ts';
import { LIMITS } from '../../model/limits.ts';
import type { ExecOptions } from '../../ports/runtime.ts';
import { decodeFrames, encodeError, encodeFrame, FRAME } from '../remote/stream-frames.ts';
import type { ApiContext } from './context.ts';
import { bytesOf, errors, query, TaskParam } from './openapi.ts';
import { listOf, StatsView } from './schemas.ts';
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
        summary: 'Output of a copy, wherever it runs',
        params: TaskParam,
        response: {
          200: bytesOf(
            FRAMES_TYPE,
            'Frames: one byte of kind (1 stdout, 2 stderr, 6 error as JSON), four of length (big endian), the bytes.',
          ),
          ...errors,
        },
        querystring: query({
          slot: Type.Optional(Type.Integer({ minimum: 0 })),
          follow: Type.Optional(Type.Boolean()),
          tail: Type.Optional(
            Type.Integer({ minimum: 0, maximum: LIMITS.logsTailLines, description: 'only the last lines' }),
          ),
          timestamps: Type.Optional(Type.Boolean()),
        }),
      },
    },
    async (request, reply) => {
      const task = findTask(peer, request.params.task);
      const q = request.query;
      ctx.remote.expectCopy(task, q.slot ?? 0);
      const gone = new AbortController();
      const chunks = ctx.remote
        .logs(
          task,
          q.slot ?? 0,
          { follow: q.follow ?? false, tail: q.tail ?? LIMITS.logsTailLines, timestamps: q.timestamps ?? false },
          gone.signal,
        )
        [Symbol.asyncIterator]();
      // The first chunk is awaited before the header, so that a task without a copy is an ordinary error.
      const first = q.follow === true ? undefined : await chunks.next();
      reply.hijack();
      reply.raw.on('close', () => gone.abort());
      reply.raw.writeHead(200, { 'content-type': FRAMES_TYPE });
      try {
        for (let r = first ?? (await chunks.next()); !r.done; r = await chunks.next()) {
          if (!reply.raw.write(encodeFrame(r.value.stream === 'stderr' ? FRAME.stderr : FRAME.stdout, r.value.data)))
            await drained(reply.raw, gone.signal);
        }
      } catch (error) {
        if (!gone.signal.aborted) reply.raw.write(encodeError(error));
      }
      reply.raw.end();
      return reply;
    },
  );

  app.post<TaskParams & { Querystring: { slot?: number } }>(
    '/tasks/:task/exec',
    {
      schema: {
        summary: 'Run a command inside a copy, wherever it runs',
        description: `Options in the ${EXEC_HEADER} header: JSON in base64url with command, env, tty, interactive, user, workdir, size.`,
        params: TaskParam,
        querystring: query({ slot: Type.Optional(Type.Integer({ minimum: 0 })) }),
        body: bytesOf(FRAMES_TYPE, 'Frames: 0 input, 4 terminal size as JSON, 5 end of input.'),
        response: {
          200: bytesOf(FRAMES_TYPE, 'Frames: 1 stdout, 2 stderr; last 3 exit as JSON, or 6 error as JSON.'),
          ...errors,
        },
      },
    },
    async (request, reply) => {
      const task = findTask(peer, request.params.task);
      const options = execOptions(request.headers[EXEC_HEADER]);
      if (request.headers['content-type'] !== FRAMES_TYPE)
        throw new TaskOrgError('invalid_input', `exec takes a body of ${FRAMES_TYPE}`);
      ctx.remote.expectCopy(task, request.query.slot ?? 0);
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
    },
  );

  app.get(
    '/stats',
    {
      schema: {
        summary: 'What running copies use, on all machines in reach',
        response: { 200: listOf(StatsView), ...errors },
      },
    },
    async () => {
      const nodes = await ctx.remote.stats(AbortSignal.timeout(5000));
      const items = nodes.flatMap(({ node, rows }) =>
        rows.map(({ copyId, ...stats }) => {
          const copy = peer
            .facts()
            .get(node)
            ?.copies.find((c) => copyId.startsWith(`${c.taskId}.${c.slot}.`));
          const name = copy ? (peer.state().tasks.get(copy.taskId)?.spec.name ?? copy.taskId) : copyId;
          return { task: name, slot: copy?.slot ?? 0, node: nodeName(peer, node), ...stats };
        }),
      );
      return { items, seenBy: knowledge(peer), oldestFactMs: oldestFactMs(peer, ctx.clock.mono()) };
    },
  );
}

function execOptions(header: string | string[] | undefined): ExecOptions {
  try {
    const o = JSON.parse(Buffer.from(String(header), 'base64url').toString('utf8')) as Partial<ExecOptions>;
    if (!Array.isArray(o.command) || o.command.length === 0 || !o.command.every((c) => typeof c === 'string'))
      throw new Error('command');
    return {
      command: o.command,
      env: o.env ?? {},
      tty: o.tty === true,
      interactive: o.interactive === true,
      user: o.user ?? '',
      workdir: o.workdir ?? '',
      size: o.size ?? null,
    };
  } catch {
    throw new TaskOrgError(
      'invalid_input',
      `the ${EXEC_HEADER} header must hold the exec options as base64url JSON with a non-empty command`,
    );
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

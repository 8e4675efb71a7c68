import { isDeepStrictEqual } from 'node:util';
import type { FastifyInstance } from 'fastify';
import { Type } from 'typebox';
import { TaskOrgError } from '../../model/errors.ts';
import { type TaskId, taskId, wallMs } from '../../model/ids.ts';
import type { Submission, TaskRecord } from '../../model/records.ts';
import { submissionId } from '../../model/submission-id.ts';
import { parseTaskDocument } from '../../model/task-document.ts';
import type { TaskSpec } from '../../model/task-spec.ts';
import { type ApiContext, expectOk, proposeOrThrow } from './context.ts';
import { errors, query, TaskDocumentBody, TaskParam } from './openapi.ts';
import { ChangeView, listOf, SubmitView, TaskDetail, TaskView, VerdictView, WhyView } from './schemas.ts';
import { findTask, knowledge, type Look, look, oldestFactMs, viewDecisions, viewTask, viewWaiting } from './views.ts';

/** A submission nobody could settle is given up after this (protocol default). */
export const SUBMISSION_EXPIRY_MS = 24 * 3_600_000;
type TaskParams = { Params: { task: string } };

function parse(document: unknown): TaskSpec {
  const parsed = parseTaskDocument(document);
  if (!parsed.ok)
    throw new TaskOrgError('invalid_input', 'the task document is not as expected', {
      details: parsed.issues,
      hint: 'nothing was changed; mend the fields and submit again',
    });
  return parsed.spec;
}

function makeSubmission(ctx: ApiContext, spec: TaskSpec, id: string | undefined): Submission {
  const nonce = Buffer.from(ctx.random.bytes(16)).toString('base64url');
  const expiresAt = wallMs(ctx.clock.wall() + SUBMISSION_EXPIRY_MS);
  return {
    id: id === undefined ? submissionId(spec, nonce, expiresAt) : taskId(id),
    spec,
    nonce,
    expiresAt,
    from: ctx.self,
  };
}

/** As it would come back from the records. */
const stored = (spec: TaskSpec): unknown => JSON.parse(JSON.stringify(spec));

const waits = (task: TaskRecord): boolean =>
  task.desired === 'running' && task.slots.some((s) => s.state.kind === 'pending' || s.state.kind === 'closed');

export function taskRoutes(app: FastifyInstance, ctx: ApiContext): void {
  const { peer } = ctx.driver;
  const ended = (t: TaskView): boolean => t.desired !== 'running' || t.state === 'finished' || t.state === 'failed';
  /** One task, with every machine's reason when it waits. */
  const lookAtOne = async (task: TaskRecord): Promise<Look> =>
    look(peer, waits(task) ? await ctx.waiting(task.id) : new Map());

  app.get<{ Querystring: { all?: boolean } }>(
    '/tasks',
    {
      schema: {
        summary: 'Tasks',
        querystring: query({
          all: Type.Optional(Type.Boolean({ description: 'also stopped and ended ones; true unless said otherwise' })),
        }),
        response: { 200: listOf(TaskView), ...errors },
      },
    },
    async (request) => {
      const waiting = [...peer.state().tasks.values()].some(waits) ? await ctx.waiting(null) : new Map();
      const l = look(peer, waiting);
      const items = [...peer.state().tasks.values()].map((t) => viewTask(l, t));
      return {
        items: request.query.all === false ? items.filter((t) => !ended(t)) : items,
        seenBy: knowledge(peer),
        oldestFactMs: oldestFactMs(peer, ctx.clock.mono()),
      };
    },
  );

  submitRoutes(app, ctx);

  app.get<TaskParams>(
    '/tasks/:task',
    { schema: { summary: 'All that is known of a task', params: TaskParam, response: { 200: TaskDetail, ...errors } } },
    async (request) => {
      const task = findTask(peer, request.params.task);
      const l = await lookAtOne(task);
      return {
        ...viewTask(l, task),
        spec: task.spec,
        decisions: viewDecisions(peer, task),
        waiting: viewWaiting(l, task),
      };
    },
  );

  app.put<TaskParams>(
    '/tasks/:task',
    {
      schema: {
        summary: 'Update a task; nothing happens when the document says what is so already',
        params: TaskParam,
        body: TaskDocumentBody,
        response: { 200: ChangeView, ...errors },
      },
    },
    async (request) => {
      const task = findTask(peer, request.params.task);
      const spec = parse(request.body);
      if (isDeepStrictEqual(stored(spec), stored(task.spec)))
        return { index: peer.state().applied, copies: 0, changed: false };
      return proposeOrThrow(ctx, `task ${task.spec.name}`, { type: 'task.update', taskId: task.id, spec });
    },
  );

  const desire = (verb: string, summary: string, desired: 'running' | 'stopped', restart: boolean): void => {
    app.post<TaskParams>(
      `/tasks/:task/${verb}`,
      { schema: { summary, params: TaskParam, response: { 200: ChangeView, ...errors } } },
      async (request) => {
        const task = findTask(peer, request.params.task);
        return proposeOrThrow(ctx, `${verb} ${task.spec.name}`, {
          type: 'task.desire',
          taskId: task.id,
          desired,
          restart,
        });
      },
    );
  };
  desire('stop', 'Stop a task; record and volumes stay', 'stopped', false);
  desire('start', 'Run a stopped task again', 'running', false);
  desire('restart', 'Stop and start a task where it is', 'running', true);

  app.delete<TaskParams & { Querystring: { force?: boolean } }>(
    '/tasks/:task',
    {
      schema: {
        summary: 'Remove a task; named volumes stay',
        params: TaskParam,
        querystring: query({ force: Type.Optional(Type.Boolean({ description: 'also a running one' })) }),
        response: { 200: ChangeView, ...errors },
      },
    },
    async (request) => {
      const task = findTask(peer, request.params.task);
      if (!ended(viewTask(look(peer, new Map()), task)) && request.query.force !== true) {
        throw new TaskOrgError('refused', `task ${task.spec.name} is to be running`, {
          hint: `task-org stop ${task.spec.name} first, or task-org rm -f ${task.spec.name}`,
        });
      }
      return proposeOrThrow(ctx, `rm ${task.spec.name}`, { type: 'task.remove', taskId: task.id });
    },
  );

  app.get<TaskParams>(
    '/tasks/:task/why',
    {
      schema: {
        summary: 'The recorded decisions, and why it waits',
        params: TaskParam,
        response: { 200: WhyView, ...errors },
      },
    },
    async (request) => {
      const task = findTask(peer, request.params.task);
      const l = await lookAtOne(task);
      const view = viewTask(l, task);
      return {
        id: task.id,
        name: task.spec.name,
        now: view.error ? `${view.state}: ${view.error}` : view.state,
        rejections: (viewWaiting(l, task)?.rejections ?? []).map((r) => r.reason),
        decisions: viewDecisions(peer, task),
      };
    },
  );

  app.get<{ Params: { id: string } }>(
    '/submissions/:id',
    {
      schema: {
        summary: 'What became of a submission',
        params: Type.Object({ id: Type.String() }),
        response: { 200: VerdictView, ...errors },
      },
    },
    (request) => {
      const id = request.params.id as TaskId;
      const verdict = peer.state().verdicts.get(id);
      if (verdict) return { id, verdict: verdict.verdict, reason: verdict.reason };
      if (peer.state().tasks.has(id)) return { id, verdict: 'accepted', reason: '' };
      return { id, verdict: peer.pending().has(id) ? 'pending' : 'unknown', reason: '' };
    },
  );
}

function submitRoutes(app: FastifyInstance, ctx: ApiContext): void {
  const schema = {
    body: TaskDocumentBody,
    querystring: query({
      id: Type.Optional(
        Type.String({ pattern: '^[A-Za-z0-9_.-]{1,64}$', description: 'own id; the same id twice is one task' }),
      ),
    }),
    response: { 200: SubmitView, ...errors },
  };
  app.post<{ Querystring: { id?: string } }>(
    '/tasks',
    { schema: { summary: "Submit a task and wait for the master's verdict", ...schema } },
    async (request) => {
      const submission = makeSubmission(ctx, parse(request.body), request.query.id);
      const { index } = expectOk(await ctx.driver.submit(submission), `task ${submission.spec.name}`);
      return { id: submission.id, name: submission.spec.name, status: 'accepted', index };
    },
  );
  app.post<{ Querystring: { id?: string } }>(
    '/publish',
    {
      schema: {
        summary: 'Publish a task on the gossip topic without waiting; GET /v1/submissions/{id} has the verdict',
        ...schema,
      },
    },
    async (request) => {
      const submission = makeSubmission(ctx, parse(request.body), request.query.id);
      // Kept durably here, spread on the topic; the verdict comes with the log, whenever there is a master.
      void ctx.driver.submit(submission);
      return { id: submission.id, name: submission.spec.name, status: 'published', index: 0 };
    },
  );
}

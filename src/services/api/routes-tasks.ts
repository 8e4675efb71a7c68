import { Type } from 'typebox';
import type { FastifyInstance } from 'fastify';
import { TaskOrgError } from '../../model/errors.ts';
import { taskId, wallMs, type TaskId } from '../../model/ids.ts';
import type { Submission } from '../../model/records.ts';
import { submissionId } from '../../model/submission-id.ts';
import { parseTaskDocument } from '../../model/task-document.ts';
import type { TaskSpec } from '../../model/task-spec.ts';
import { expectOk, proposeOrThrow, type ApiContext } from './context.ts';
import { DecisionView, ErrorView, listOf, SubmitView, TaskView } from './schemas.ts';
import { findTask, knowledge, oldestFactMs, viewDecisions, viewTask } from './views.ts';

const errors = { '4xx': ErrorView, '5xx': ErrorView };
/** A submission nobody could settle is given up after this (protocol default). */
export const SUBMISSION_EXPIRY_MS = 24 * 3_600_000;
type TaskParams = { Params: { task: string } };

function parse(document: unknown): TaskSpec {
  const parsed = parseTaskDocument(document);
  if (!parsed.ok) throw new TaskOrgError('invalid_input', 'the task document is not as expected', { details: parsed.issues, hint: 'nothing was changed; mend the fields and submit again' });
  return parsed.spec;
}

function makeSubmission(ctx: ApiContext, spec: TaskSpec, id: string | undefined): Submission {
  const nonce = Buffer.from(ctx.random.bytes(16)).toString('base64url');
  const expiresAt = wallMs(ctx.clock.wall() + SUBMISSION_EXPIRY_MS);
  return { id: id === undefined ? submissionId(spec, nonce, expiresAt) : taskId(id), spec, nonce, expiresAt, from: ctx.self };
}

export function taskRoutes(app: FastifyInstance, ctx: ApiContext): void {
  const { peer } = ctx.driver;
  const submitSchema = {
    querystring: Type.Object({ id: Type.Optional(Type.String({ pattern: '^[A-Za-z0-9_.-]{1,64}$', description: 'own id; the same id twice is one task' })) }),
    response: { 200: SubmitView, ...errors },
  };

  app.get<{ Querystring: { all?: boolean } }>('/tasks', { schema: { querystring: Type.Object({ all: Type.Optional(Type.Boolean()) }), response: { 200: listOf(TaskView), ...errors } } }, (request) => {
    const items = [...peer.state().tasks.values()].map((t) => viewTask(peer, t));
    return {
      items: request.query.all === false ? items.filter((t) => t.desired === 'running' && t.state !== 'finished' && t.state !== 'failed') : items,
      seenBy: knowledge(peer),
      oldestFactMs: oldestFactMs(peer, ctx.clock.mono()),
    };
  });

  app.post<{ Querystring: { id?: string } }>('/tasks', { schema: submitSchema }, async (request) => {
    const submission = makeSubmission(ctx, parse(request.body), request.query.id);
    const { index } = expectOk(await ctx.driver.submit(submission), `task ${submission.spec.name}`);
    return { id: submission.id, name: submission.spec.name, status: 'accepted', index };
  });

  app.post<{ Querystring: { id?: string } }>('/publish', { schema: submitSchema }, async (request) => {
    const submission = makeSubmission(ctx, parse(request.body), request.query.id);
    // Kept durably here, spread on the topic; the verdict comes with the log, whenever there is a master.
    void ctx.driver.submit(submission);
    return { id: submission.id, name: submission.spec.name, status: 'published', index: 0 };
  });

  app.get<TaskParams>('/tasks/:task', { schema: { response: errors } }, (request) => {
    const task = findTask(peer, request.params.task);
    return { ...viewTask(peer, task), spec: task.spec, decisions: viewDecisions(peer, task), waiting: peer.waiting().get(task.id) ?? null };
  });

  app.put<TaskParams>('/tasks/:task', { schema: { response: errors } }, async (request) => {
    const task = findTask(peer, request.params.task);
    const spec = parse(request.body);
    return proposeOrThrow(ctx, `task ${task.spec.name}`, { type: 'task.update', taskId: task.id, spec });
  });

  const desire = (verb: string, desired: 'running' | 'stopped', restart: boolean): void => {
    app.post<TaskParams>(`/tasks/:task/${verb}`, { schema: { response: errors } }, async (request) => {
      const task = findTask(peer, request.params.task);
      return proposeOrThrow(ctx, `${verb} ${task.spec.name}`, { type: 'task.desire', taskId: task.id, desired, restart });
    });
  };
  desire('stop', 'stopped', false);
  desire('start', 'running', false);
  desire('restart', 'running', true);

  app.delete<TaskParams & { Querystring: { force?: boolean } }>('/tasks/:task', { schema: { querystring: Type.Object({ force: Type.Optional(Type.Boolean()) }), response: errors } }, async (request) => {
    const task = findTask(peer, request.params.task);
    const view = viewTask(peer, task);
    if (task.desired === 'running' && view.state !== 'finished' && view.state !== 'failed' && request.query.force !== true) {
      throw new TaskOrgError('refused', `task ${task.spec.name} is to be running`, { hint: `task-org stop ${task.spec.name} first, or task-org rm -f ${task.spec.name}` });
    }
    return proposeOrThrow(ctx, `rm ${task.spec.name}`, { type: 'task.remove', taskId: task.id });
  });

  app.get<TaskParams>('/tasks/:task/why', { schema: { response: { 200: Type.Object({ id: Type.String(), name: Type.String(), now: Type.String(), decisions: Type.Array(DecisionView), rejections: Type.Array(Type.String()) }), ...errors } } }, (request) => {
    const task = findTask(peer, request.params.task);
    const view = viewTask(peer, task);
    const waiting = peer.waiting().get(task.id);
    return { id: task.id, name: task.spec.name, now: view.error ? `${view.state}: ${view.error}` : view.state, decisions: viewDecisions(peer, task), rejections: [...(waiting?.rejections ?? [])] };
  });

  app.get<{ Params: { id: string } }>('/submissions/:id', { schema: { response: { 200: Type.Object({ id: Type.String(), verdict: Type.String(), reason: Type.String() }), ...errors } } }, (request) => {
    const id = request.params.id as TaskId;
    const verdict = peer.state().verdicts.get(id);
    if (verdict) return { id, verdict: verdict.verdict, reason: verdict.reason };
    if (peer.state().tasks.has(id)) return { id, verdict: 'accepted', reason: '' };
    return { id, verdict: peer.pending().has(id) ? 'pending' : 'unknown', reason: '' };
  });
}

import { chmod, rm } from 'node:fs/promises';
import swagger from '@fastify/swagger';
import Fastify, { type FastifyInstance } from 'fastify';
import { type ErrorCode, TaskOrgError, toTaskOrgError } from '../../model/errors.ts';
import { LIMITS } from '../../model/limits.ts';
import type { ApiContext } from './context.ts';
import { compileValidator } from './openapi.ts';
import { clusterRoutes } from './routes-cluster.ts';
import { copyRoutes } from './routes-copies.ts';
import { settingRoutes } from './routes-settings.ts';
import { taskRoutes } from './routes-tasks.ts';

// The client API: HTTP and JSON on a Unix socket (mode 0600) in the data directory. The network API of later versions is
// the same routes behind authentication.

const STATUS: Partial<Record<ErrorCode, number>> = {
  invalid_input: 400,
  not_found: 404,
  name_in_use: 409,
  already_exists: 409,
  refused: 409,
  busy: 503,
  no_master: 503,
  no_quorum: 503,
  not_master: 503,
  timeout: 504,
  unreachable: 502,
  image_missing: 409,
  too_large: 413,
  aborted: 499,
};

export interface ApiServer {
  readonly socketPath: string;
  close(): Promise<void>;
}

/** The routes, not listening anywhere yet. */
export async function createApi(ctx: ApiContext): Promise<FastifyInstance> {
  const app: FastifyInstance = Fastify({
    logger: false,
    bodyLimit: LIMITS.rpcFrameBytes,
    forceCloseConnections: true,
    routerOptions: { maxParamLength: 128 },
  });
  await app.register(swagger, {
    openapi: {
      openapi: '3.1.0',
      info: { title: 'task-org peer API', version: ctx.version, license: { name: 'Apache-2.0' } },
      servers: [{ url: 'http://localhost' }],
    },
  });
  app.setValidatorCompiler(compileValidator);
  app.setErrorHandler((cause, _request, reply) => {
    const error = fromCause(cause);
    void reply.status(STATUS[error.code] ?? 500).send({
      error: {
        code: error.code,
        message: error.message,
        ...(error.hint ? { hint: error.hint } : {}),
        details: error.details,
      },
    });
  });
  app.setNotFoundHandler((request, reply) => {
    void reply.status(404).send({
      error: {
        code: 'not_found',
        message: `no route ${request.method} ${request.url}`,
        hint: 'GET /v1/openapi.json lists the routes',
        details: [],
      },
    });
  });
  await app.register(
    async (v1) => {
      clusterRoutes(v1, ctx);
      taskRoutes(v1, ctx);
      copyRoutes(v1, ctx);
      settingRoutes(v1, ctx);
      v1.get('/openapi.json', { schema: { hide: true } }, () => app.swagger());
    },
    { prefix: '/v1' },
  );
  app.get('/metrics', { schema: { hide: true } }, async (_request, reply) => {
    void reply.type('text/plain; version=0.0.4');
    return ctx.metrics();
  });
  return app;
}

export async function startApi(ctx: ApiContext, socketPath: string): Promise<ApiServer> {
  const app = await createApi(ctx);
  await rm(socketPath, { force: true });
  await app.listen({ path: socketPath });
  await chmod(socketPath, 0o600);
  return {
    socketPath,
    close: async () => {
      await app.close();
      await rm(socketPath, { force: true });
    },
  };
}

function fromCause(cause: unknown): TaskOrgError {
  if (cause !== null && typeof cause === 'object' && 'validation' in cause) {
    const c = cause as {
      message?: string;
      validation: readonly { instancePath?: string; message?: string }[];
      validationContext?: string;
    };
    return new TaskOrgError('invalid_input', `the ${c.validationContext ?? 'request'} is not as expected`, {
      details: c.validation.map((v) => ({
        path: (v.instancePath ?? '').replaceAll('/', '.').replace(/^\./, ''),
        message: v.message ?? 'wrong',
      })),
    });
  }
  if (cause !== null && typeof cause === 'object' && 'statusCode' in cause) {
    const c = cause as { statusCode: number; message: string };
    if (c.statusCode === 413) return new TaskOrgError('too_large', `the body exceeds ${LIMITS.rpcFrameBytes} bytes`);
    if (c.statusCode >= 400 && c.statusCode < 500) return new TaskOrgError('invalid_input', c.message);
  }
  return toTaskOrgError(cause);
}

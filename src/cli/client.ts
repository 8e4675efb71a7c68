import { existsSync } from 'node:fs';
import { type IncomingMessage, type RequestOptions, request } from 'node:http';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { type ErrorCode, type FieldIssue, TaskOrgError } from '../model/errors.ts';

// The client's line to its peer: HTTP over the Unix socket in the data directory, or where TASKORG_HOST points.

/** A connection is given up after this. */
const CONNECT_TIMEOUT_MS = 10_000;
/** A peer answers every request sooner than this: it gives its own waits up first. */
const ANSWER_TIMEOUT_MS = 60_000;

export interface Target {
  /** `unix:/path/api.sock` or `http://host:port`. */
  readonly host: string;
}

export function resolveTarget(flags: { readonly host?: string; readonly dataDir?: string }): Target {
  const host = flags.host ?? process.env.TASKORG_HOST;
  if (host) return { host };
  const dataDir = flags.dataDir ?? process.env.TASKORG_DATA_DIR ?? join(homedir(), '.task-org');
  return { host: `unix:${join(dataDir, 'api.sock')}` };
}

export class ApiClient {
  readonly #target: Target;
  constructor(target: Target) {
    this.#target = target;
  }

  #options(): RequestOptions {
    const { host } = this.#target;
    if (host.startsWith('unix:')) return { socketPath: host.slice('unix:'.length).replace(/^\/\/(?=\/)/, '') };
    if (host.startsWith('/')) return { socketPath: host };
    const url = URL.canParse(host) ? new URL(host) : undefined;
    if (url?.protocol !== 'http:')
      throw new TaskOrgError(
        'invalid_input',
        `${host} is no peer's address: expected unix:/path/api.sock or http://host:port`,
        { hint: 'see --host and TASKORG_HOST' },
      );
    return { host: url.hostname, port: url.port || 80 };
  }

  /** Opens a request; the caller writes the body. Rejects with what a person can act on when no peer answers. */
  open(
    method: string,
    path: string,
    headers: Record<string, string>,
    body?: AsyncIterable<Uint8Array> | string,
  ): Promise<IncomingMessage> {
    return new Promise((resolve, reject) => {
      const options = this.#options();
      const req = request({ ...options, method, path, headers, agent: false }, resolve);
      req.on('socket', (socket) => {
        if (!socket.connecting) return;
        const timer = setTimeout(
          () => req.destroy(Object.assign(new Error('no connection in time'), { code: 'ETIMEDOUT' })),
          CONNECT_TIMEOUT_MS,
        );
        for (const event of ['connect', 'close'] as const) socket.once(event, () => clearTimeout(timer));
      });
      req.on('error', (cause: NodeJS.ErrnoException) => reject(this.#unreachable(cause, options)));
      if (body === undefined || typeof body === 'string') {
        req.end(body);
        return;
      }
      void (async () => {
        req.flushHeaders();
        for await (const chunk of body) if (!req.write(chunk)) await new Promise((r) => req.once('drain', r));
        req.end();
      })().catch((error: unknown) => req.destroy(error instanceof Error ? error : new Error(String(error))));
    });
  }

  #unreachable(cause: NodeJS.ErrnoException, options: RequestOptions): TaskOrgError {
    const where = options.socketPath ?? `${options.host}:${options.port}`;
    if (cause instanceof TaskOrgError) return cause;
    if (cause.code === 'EACCES')
      return new TaskOrgError('unreachable', `no permission to use ${where}`, {
        cause,
        hint: 'run as the user the peer runs as, or with sudo',
      });
    if (options.socketPath && !existsSync(options.socketPath)) {
      return new TaskOrgError('unreachable', `no peer is running here (${where} is not there)`, {
        cause,
        hint: 'start one with task-org-peer, or name its data directory with --data-dir or TASKORG_DATA_DIR',
      });
    }
    return new TaskOrgError(
      'unreachable',
      `the peer at ${where} does not answer (${cause.code === 'ECONNREFUSED' ? 'nothing listens there' : (cause.code ?? cause.message)})`,
      { cause, hint: 'start it with task-org-peer, or name another with --host or TASKORG_HOST' },
    );
  }

  async json<T>(method: string, path: string, body?: unknown): Promise<T> {
    const headers: Record<string, string> = body === undefined ? {} : { 'content-type': 'application/json' };
    const response = await this.open(method, path, headers, body === undefined ? undefined : JSON.stringify(body));
    const timer = setTimeout(
      () => response.destroy(new TaskOrgError('timeout', 'the peer did not finish its answer')),
      ANSWER_TIMEOUT_MS,
    );
    const text = await readAll(response).finally(() => clearTimeout(timer));
    if ((response.statusCode ?? 500) >= 400) throw errorOf(text, response.statusCode ?? 500);
    try {
      return JSON.parse(text) as T;
    } catch (cause) {
      throw new TaskOrgError('internal', 'what answered there is no task-org peer', {
        cause,
        hint: 'see --host and TASKORG_HOST',
      });
    }
  }

  get<T>(path: string): Promise<T> {
    return this.json<T>('GET', path);
  }

  /** A streaming answer; throws the peer's error when it is one. */
  async stream(
    method: string,
    path: string,
    headers: Record<string, string> = {},
    body?: AsyncIterable<Uint8Array>,
  ): Promise<IncomingMessage> {
    const response = await this.open(method, path, headers, body);
    if ((response.statusCode ?? 500) >= 400) throw errorOf(await readAll(response), response.statusCode ?? 500);
    return response;
  }
}

async function readAll(response: IncomingMessage): Promise<string> {
  let text = '';
  response.setEncoding('utf8');
  for await (const chunk of response) text += chunk as string;
  return text;
}

function errorOf(text: string, status: number): TaskOrgError {
  try {
    const { error } = JSON.parse(text) as {
      error: { code: ErrorCode; message: string; hint?: string; details?: FieldIssue[] };
    };
    return new TaskOrgError(error.code, error.message, {
      ...(error.hint === undefined ? {} : { hint: error.hint }),
      details: error.details ?? [],
    });
  } catch {
    return new TaskOrgError('internal', `the peer answered with status ${status}: ${text.slice(0, 200)}`);
  }
}

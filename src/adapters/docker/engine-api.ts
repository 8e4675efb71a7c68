import type { Duplex, Readable } from 'node:stream';
import Docker from 'dockerode';
import { TaskOrgError } from '../../model/errors.ts';

// The engine's HTTP API by dockerode's connection, without a version in the path: every engine from 1.41 on then answers
// with its own newest version, and the fields read here are in all of them.

/** A call that has not answered by then is given up, unless it names its own time. */
export const CALL_TIMEOUT_MS = 120_000;

export type Query = Readonly<Record<string, string | number | boolean>>;

export interface Call {
  readonly method: 'GET' | 'POST' | 'DELETE' | 'PUT';
  readonly path: string;
  readonly query?: Query;
  readonly body?: object;
  readonly signal?: AbortSignal;
  readonly timeoutMs?: number;
}

/** An answer of the engine other than success. */
export class EngineError extends Error {
  readonly status: number;
  constructor(status: number, message: string) {
    super(message);
    this.name = 'EngineError';
    this.status = status;
  }
}

interface Dial {
  path: string;
  method: string;
  options: { _query: Query; _body: object };
  abortSignal: AbortSignal;
  statusCodes: Record<number, true | string>;
  isStream?: boolean;
  hijack?: boolean;
  openStdin?: boolean;
}
interface Modem {
  dial(options: Dial, callback: (error: unknown, result: unknown) => void): void;
}

const SUCCESS: Record<number, true> = { 101: true, 200: true, 201: true, 204: true, 304: true };

export class EngineApi {
  readonly #modem: Modem;

  /** `socketPath` undefined: DOCKER_HOST, or the default socket. */
  constructor(socketPath?: string) {
    // An empty host keeps DOCKER_HOST from winning over a socket that was named.
    const docker = new Docker(socketPath === undefined ? {} : { socketPath, host: '' });
    this.#modem = docker.modem as Modem;
  }

  /** Throws EngineError for an answer, no_runtime where none came, aborted and timeout. */
  async call<T>(call: Call): Promise<T> {
    return (await this.#dial(call, {})) as T;
  }

  /** The answer's body as it comes. Destroying it ends the call. */
  async stream(call: Call): Promise<Readable> {
    return (await this.#dial(call, { isStream: true })) as Readable;
  }

  /** A raw connection in both directions (attach, exec). */
  async hijack(call: Call): Promise<Duplex> {
    return (await this.#dial(call, { isStream: true, hijack: true, openStdin: true })) as Duplex;
  }

  #dial(call: Call, how: { isStream?: boolean; hijack?: boolean; openStdin?: boolean }): Promise<unknown> {
    return new Promise((resolve, reject) => {
      const own = new AbortController();
      const signals = call.signal ? [call.signal, own.signal] : [own.signal];
      const signal = AbortSignal.any(signals);
      const timeoutMs = call.timeoutMs ?? CALL_TIMEOUT_MS;
      let timedOut = false;
      const timer = setTimeout(() => {
        timedOut = true;
        own.abort();
      }, timeoutMs);
      // Not only through the request: an engine that dies within an answer ends neither 'end' nor 'error' there.
      const onAbort = (): void => done(undefined, undefined);
      const done = (error: unknown, result: unknown): void => {
        clearTimeout(timer);
        signal.removeEventListener('abort', onAbort);
        if (timedOut) reject(noAnswer(call, timeoutMs));
        else if (signal.aborted)
          reject(new TaskOrgError('aborted', `${call.method} ${call.path} was called off`, { retryable: true }));
        else if (error) reject(translate(error, call));
        else resolve(result);
      };
      if (signal.aborted) return done(undefined, undefined);
      signal.addEventListener('abort', onAbort, { once: true });
      this.#modem.dial(
        {
          path: `${call.path}?`,
          method: call.method,
          options: { _query: call.query ?? {}, _body: call.body ?? {} },
          abortSignal: signal,
          statusCodes: SUCCESS,
          ...how,
        },
        done,
      );
    });
  }
}

function noAnswer(call: Call, ms: number): TaskOrgError {
  return new TaskOrgError(
    'no_runtime',
    `the Docker Engine did not answer ${call.method} ${call.path} within ${ms} ms`,
    {
      retryable: true,
      hint: 'look at the engine: docker info, systemctl status docker',
    },
  );
}

function translate(error: unknown, call: Call): Error {
  const e = error as { statusCode?: number; code?: string; message?: string; json?: { message?: string } };
  if (e.statusCode !== undefined)
    return new EngineError(e.statusCode, e.json?.message ?? e.message ?? 'no reason given');
  const hint =
    e.code === 'EACCES' || e.code === 'EPERM'
      ? 'the peer may not use the engine: run it as root or add its user to the group docker'
      : 'start the engine (systemctl start docker), or use --runtime process';
  return new TaskOrgError(
    'no_runtime',
    `the Docker Engine does not answer ${call.method} ${call.path} (${e.code ?? e.message})`,
    {
      cause: error,
      retryable: true,
      hint,
    },
  );
}

/** An engine's refusal as an error of ours. */
export function runtimeFailed(error: unknown, doing: string): TaskOrgError {
  if (error instanceof TaskOrgError) return error;
  if (!(error instanceof EngineError))
    return new TaskOrgError('runtime_failed', `${doing}: ${String(error)}`, { cause: error });
  if (error.status === 404 && /no such image/i.test(error.message))
    return imageMissing(error.message.replace(/^.*no such image: */i, ''), error);
  if (/port is already allocated|address already in use/i.test(error.message))
    return new TaskOrgError('port_in_use', `${doing}: ${error.message}`, {
      cause: error,
      retryable: true,
      hint: 'choose another host port, or 0 for a free one',
    });
  // 400: the engine does not take this specification, now or later.
  const invalid = error.status === 400 && /invalid|must be|minimum|not supported/i.test(error.message);
  return new TaskOrgError(invalid ? 'invalid_input' : 'runtime_failed', `${doing}: ${error.message}`, {
    cause: error,
    retryable: !invalid,
  });
}

export function imageMissing(image: string, cause?: unknown): TaskOrgError {
  return new TaskOrgError('image_missing', `the image ${image} is not on this machine`, {
    cause,
    hint: `load it: docker pull ${image}, or docker save on a machine that has it and docker load here`,
  });
}

import { Agent } from 'node:http';
import Docker from 'dockerode';
import { type ErrorOptionsEx, TaskOrgError } from '../../model/errors.ts';

/** Longest wait for an answer, ms. A machine that starts 200 containers answers slowly, and is not taken for dead. */
export const ENGINE_TIMEOUTS = {
  ping: 2_000,
  query: 10_000,
  create: 60_000,
  start: 60_000,
  remove: 30_000,
} as const;

/** The engine refused: `status` is its HTTP status, the message its words. */
export class EngineRefusal extends TaskOrgError {
  readonly status: number;
  constructor(code: TaskOrgError['code'], message: string, status: number, options: ErrorOptionsEx = {}) {
    super(code, message, options);
    this.status = status;
  }
}

export const hasStatus = (error: unknown, ...statuses: readonly number[]): boolean =>
  error instanceof EngineRefusal && statuses.includes(error.status);

/** No answer at all: the engine is down, hangs, or is out of reach. */
export const isSilence = (error: unknown): boolean => error instanceof TaskOrgError && error.code === 'no_runtime';

export interface AskOptions {
  readonly timeoutMs: number;
  readonly signal?: AbortSignal | undefined;
}

/** The Docker Engine's API (dockerode) with a limit of time on every call, abort signals obeyed and errors by name. */
export class Engine {
  readonly docker: Docker;
  readonly #agent: Agent;
  readonly #socketPath: string | undefined;

  /** Without `socketPath`: DOCKER_HOST, else the default socket. */
  constructor(socketPath?: string) {
    // Own connections, so that closing this runtime closes them.
    this.#agent = new Agent({ keepAlive: true });
    this.#socketPath = socketPath;
    const local = socketPath !== undefined || (process.env['DOCKER_HOST'] ?? 'unix:').startsWith('unix:');
    this.docker = new Docker({
      ...(socketPath === undefined ? {} : { socketPath, host: undefined as never }),
      ...(local ? { agent: this.#agent } : {}),
    });
  }

  /**
   * One call. Throws TaskOrgError: `aborted` (the caller's signal), `no_runtime` (no answer in time, socket gone),
   * or an EngineRefusal. The engine may still carry out what was aborted or late.
   */
  async ask<T>(what: string, o: AskOptions, call: (signal: AbortSignal) => Promise<T>): Promise<T> {
    return this.#within(what, o, (signal) => call(signal));
  }

  /** A call whose answer is a stream: the limit of time is on its beginning, the signal on all of it. */
  async open<T extends NodeJS.ReadableStream>(
    what: string,
    o: AskOptions,
    call: (signal: AbortSignal) => Promise<T>,
  ): Promise<T> {
    const late = new AbortController();
    const whole = AbortSignal.any([late.signal, ...(o.signal ? [o.signal] : [])]);
    try {
      const stream = await this.#within(what, o, () => call(whole));
      // An abort destroys the stream with an error, also when nobody reads it any more.
      stream.on('error', () => {});
      return stream;
    } catch (error) {
      late.abort();
      throw error;
    }
  }

  /** Whether it answers. */
  async ping(signal?: AbortSignal): Promise<boolean> {
    try {
      await this.ask('ping', { timeoutMs: ENGINE_TIMEOUTS.ping, signal }, (abortSignal) => this.docker.ping({ abortSignal }));
      return true;
    } catch {
      return false;
    }
  }

  close(): void {
    this.#agent.destroy();
  }

  async #within<T>(what: string, o: AskOptions, call: (signal: AbortSignal) => Promise<T>): Promise<T> {
    if (o.signal?.aborted) throw aborted(o.signal);
    const ended = new AbortController();
    let settle: (error: Error) => void = () => {};
    const stopped = new Promise<never>((_, reject) => {
      settle = reject;
    });
    const onAbort = (): void => {
      settle(aborted(o.signal));
      ended.abort();
    };
    const timer = setTimeout(() => {
      settle(silent(`the Docker Engine did not answer within ${o.timeoutMs} ms (${what})`));
      ended.abort();
    }, o.timeoutMs);
    o.signal?.addEventListener('abort', onAbort, { once: true });
    try {
      return await Promise.race([call(ended.signal), stopped]);
    } catch (error) {
      throw this.#translate(what, error);
    } finally {
      clearTimeout(timer);
      o.signal?.removeEventListener('abort', onAbort);
    }
  }

  #translate(what: string, error: unknown): TaskOrgError {
    if (error instanceof TaskOrgError) return error;
    const e = error as { statusCode?: number; json?: unknown; message?: string; code?: string };
    if (e.statusCode === undefined) {
      const hint = e.code === 'EACCES' ? 'this user may not use the engine: add it to the group docker, or run as root' : 'is dockerd running?';
      const where = this.#socketPath ?? process.env['DOCKER_HOST'] ?? 'its default socket';
      return silent(`the Docker Engine at ${where} does not answer (${what}): ${e.message ?? String(error)}`, { cause: error, hint });
    }
    const message = wordsOf(e.json) || (e.message ?? '').replace(/^\(HTTP code \d+\) [^-]*- /, '').trim() || `HTTP ${e.statusCode}`;
    if (e.statusCode === 404 && /no such image|image.*not found|unable to find image/i.test(message))
      return new EngineRefusal('image_missing', message, 404, { cause: error });
    if (/port is already allocated|address already in use/i.test(message))
      return new EngineRefusal('port_in_use', message, e.statusCode, { cause: error, retryable: true });
    return new EngineRefusal('runtime_failed', `${what}: ${message}`, e.statusCode, {
      cause: error,
      retryable: e.statusCode >= 500,
    });
  }
}

export function aborted(signal?: AbortSignal): TaskOrgError {
  return new TaskOrgError('aborted', 'given up before the Docker Engine was done', { cause: signal?.reason, retryable: true });
}

function silent(message: string, options: ErrorOptionsEx = {}): TaskOrgError {
  return new TaskOrgError('no_runtime', message, { retryable: true, ...options });
}

function wordsOf(json: unknown): string {
  if (Buffer.isBuffer(json)) return json.toString('utf8').trim();
  const message = (json as { message?: unknown } | null)?.message;
  return typeof message === 'string' ? message.trim() : '';
}

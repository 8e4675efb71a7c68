import type { ClusterView, NodeView, SubmitView, TaskView } from '../services/api/schemas.ts';
import { UnixHttp } from './unix-http.ts';

/** A list answer says what it rests on. */
export interface ListAnswer<T> {
  readonly items: readonly T[];
  readonly oldestFactMs: number;
}
export interface PeerEvent {
  readonly index: number;
  readonly at: number;
  readonly type: string;
  readonly subject: string;
  readonly message: string;
}

/** What the peer answered instead of what was asked for. `unreachable` = it did not answer at all. */
export class PeerClientError extends Error {
  readonly code: string;
  readonly status: number;
  constructor(code: string, status: number, message: string, cause?: unknown) {
    super(message, cause === undefined ? undefined : { cause });
    this.name = 'PeerClientError';
    this.code = code;
    this.status = status;
  }
}

/** A peer's client API over its Unix socket (`DATA_DIR/api.sock`). */
export class PeerClient {
  readonly #http: UnixHttp;

  /** `connections`: kept open at most; default 64. */
  constructor(socketPath: string, options: { readonly connections?: number } = {}) {
    this.#http = new UnixHttp(socketPath, options);
  }

  /** Resolves when the value is committed. `key` begins with `user.`. */
  async setSetting(key: string, value: string): Promise<void> {
    await this.#call('PUT', `/v1/settings/${key}`, { value });
  }

  /** As new as every change answered before the call; '' when there is none. */
  async setting(key: string): Promise<string> {
    return ((await this.#call('GET', `/v1/settings/${key}`)) as { value: string }).value;
  }

  async nodes(timeoutMs?: number): Promise<ListAnswer<NodeView>> {
    return (await this.#call('GET', '/v1/nodes', undefined, timeoutMs)) as ListAnswer<NodeView>;
  }

  async tasks(timeoutMs?: number): Promise<ListAnswer<TaskView>> {
    return (await this.#call('GET', '/v1/tasks', undefined, timeoutMs)) as ListAnswer<TaskView>;
  }

  /** Asks every peer for its view of the others, so it takes longer than `nodes`. */
  async cluster(timeoutMs?: number): Promise<ClusterView> {
    return (await this.#call('GET', '/v1/cluster', undefined, timeoutMs)) as ClusterView;
  }

  /** Resolves when the task is committed. The same `id` twice is one task. */
  async submit(
    document: unknown,
    options: { readonly id?: string; readonly timeoutMs?: number } = {},
  ): Promise<SubmitView> {
    const query = options.id === undefined ? '' : `?id=${encodeURIComponent(options.id)}`;
    return (await this.#call('POST', `/v1/tasks${query}`, document, options.timeoutMs)) as SubmitView;
  }

  async removeTask(task: string): Promise<void> {
    await this.#call('DELETE', `/v1/tasks/${encodeURIComponent(task)}?force=true`);
  }

  /** A join token good for `uses` peers and an hour. */
  async createToken(uses: number): Promise<string> {
    return ((await this.#call('POST', '/v1/tokens', { uses })) as { token: string }).token;
  }

  async events(sinceMs: number): Promise<ListAnswer<PeerEvent>> {
    return (await this.#call('GET', `/v1/events?since=${sinceMs}`)) as ListAnswer<PeerEvent>;
  }

  /** Events as they happen, those of membership (`node.dead`, subject = name) and role (`role`) included, until `signal` aborts. */
  async followEvents(
    sinceMs: number,
    onEvent: (event: PeerEvent) => void,
    signal: AbortSignal,
    onOpen?: () => void,
  ): Promise<void> {
    await this.#http.lines(
      `/v1/events?since=${sinceMs}&follow=true`,
      (value) => onEvent(value as PeerEvent),
      signal,
      onOpen,
    );
  }

  close(): void {
    this.#http.close();
  }

  async #call(method: string, path: string, body?: unknown, timeoutMs?: number): Promise<unknown> {
    let reply: Awaited<ReturnType<UnixHttp['request']>>;
    try {
      reply = await this.#http.request(method, path, {
        ...(body === undefined ? {} : { body }),
        ...(timeoutMs === undefined ? {} : { timeoutMs }),
      });
    } catch (cause) {
      throw new PeerClientError(
        'unreachable',
        0,
        `${this.#http.socketPath} does not answer: ${cause instanceof Error ? cause.message : String(cause)}`,
        cause,
      );
    }
    const text = reply.body.toString('utf8');
    if (reply.status < 400) return text === '' ? undefined : JSON.parse(text);
    throw fromAnswer(reply.status, text);
  }
}

function fromAnswer(status: number, text: string): PeerClientError {
  try {
    const { error } = JSON.parse(text) as {
      error: { code: string; message: string; details?: { path: string; message: string }[] };
    };
    const details = (error.details ?? []).map((one) => `; ${one.path}: ${one.message}`).join('');
    return new PeerClientError(error.code, status, error.message + details);
  } catch {
    return new PeerClientError('internal', status, `status ${status}: ${text.slice(0, 300)}`);
  }
}

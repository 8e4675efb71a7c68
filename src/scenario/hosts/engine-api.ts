import { UnixHttp } from '../unix-http.ts';
import { HostLabError } from './types.ts';

/** One message of the engine's event stream, what we use of it. */
export interface EngineEvent {
  readonly Type: string;
  readonly Action: string;
  readonly Actor: { readonly ID: string; readonly Attributes: Readonly<Record<string, string>> };
  readonly timeNano: number;
}

/** The Docker Engine's HTTP API, spoken plainly: what the reference measurements and witnesses need, and no more. */
export class EngineApi {
  readonly #http: UnixHttp;

  constructor(socketPath: string, options: { readonly connections?: number } = {}) {
    this.#http = new UnixHttp(socketPath, options);
  }

  /** True when the engine answers. */
  async ping(timeoutMs = 2_000): Promise<boolean> {
    try {
      return (await this.#http.request('GET', '/_ping', { timeoutMs })).status === 200;
    } catch {
      return false;
    }
  }

  /** JSON in, JSON out (undefined for an empty answer). Throws HostLabError('failed') with the engine's message on 4xx and 5xx. */
  async call(method: string, path: string, body?: unknown, timeoutMs = 60_000): Promise<unknown> {
    const reply = await this.#http.request(method, path, { timeoutMs, ...(body === undefined ? {} : { body }) });
    const text = reply.body.toString('utf8').trim();
    if (reply.status >= 400)
      throw new HostLabError('failed', `engine: ${method} ${path}: ${reply.status} ${text.slice(0, 500)}`);
    return text === '' ? undefined : JSON.parse(text);
  }

  /** `docker load`. Throws with the engine's words when it refuses the archive. */
  async load(tar: Buffer): Promise<void> {
    const reply = await this.#http.request('POST', '/images/load?quiet=1', {
      body: tar,
      headers: { 'content-type': 'application/x-tar' },
      timeoutMs: 300_000,
    });
    const text = reply.body.toString('utf8');
    if (reply.status !== 200 || text.includes('"errorDetail"'))
      throw new HostLabError('failed', `engine: the image was refused: ${reply.status} ${text.slice(0, 500)}`);
  }

  /** Container events until `signal` aborts or the engine goes; rejects only when it never answered. */
  async containerEvents(
    onEvent: (event: EngineEvent) => void,
    signal: AbortSignal,
    onOpen?: () => void,
  ): Promise<void> {
    const filters = encodeURIComponent(JSON.stringify({ type: ['container'], event: ['start', 'die'] }));
    await this.#http.lines(`/events?filters=${filters}`, (value) => onEvent(value as EngineEvent), signal, onOpen);
  }

  close(): void {
    this.#http.close();
  }
}

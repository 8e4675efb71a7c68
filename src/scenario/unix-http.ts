import { Agent, request as httpRequest, type IncomingMessage, type OutgoingHttpHeaders } from 'node:http';

export interface UnixReply {
  readonly status: number;
  readonly body: Buffer;
}
export interface UnixRequestOptions {
  readonly headers?: OutgoingHttpHeaders;
  /** JSON value, or raw bytes when a Buffer. */
  readonly body?: unknown;
  /** Whole answer, milliseconds. Default 10 s. */
  readonly timeoutMs?: number;
  readonly signal?: AbortSignal;
}

const DEFAULT_TIMEOUT_MS = 10_000;

/** HTTP over a Unix socket with kept-alive connections: the Docker Engine's API and a peer's own are both spoken so. */
export class UnixHttp {
  readonly socketPath: string;
  readonly #agent: Agent;

  constructor(socketPath: string, options: { readonly connections?: number } = {}) {
    this.socketPath = socketPath;
    this.#agent = new Agent({ keepAlive: true, maxSockets: options.connections ?? 64 });
  }

  /** Resolves with any status; rejects when the socket does not answer (ECONNREFUSED, ENOENT) or on time-out. */
  async request(method: string, path: string, options: UnixRequestOptions = {}): Promise<UnixReply> {
    const deadline = AbortSignal.timeout(options.timeoutMs ?? DEFAULT_TIMEOUT_MS);
    const signal = options.signal ? AbortSignal.any([deadline, options.signal]) : deadline;
    const response = await this.#open(method, path, options, signal);
    const parts: Buffer[] = [];
    for await (const part of response) parts.push(part as Buffer);
    return { status: response.statusCode ?? 0, body: Buffer.concat(parts) };
  }

  /** Calls `onValue` with every JSON line of an endless answer; resolves when the other side ends it or `signal` aborts. */
  async lines(
    path: string,
    onValue: (value: unknown) => void,
    signal: AbortSignal,
    onOpen?: () => void,
  ): Promise<void> {
    const response = await this.#open('GET', path, {}, signal);
    if (response.statusCode !== 200) {
      response.resume();
      throw new Error(`GET ${path}: status ${response.statusCode}`);
    }
    onOpen?.();
    let rest = '';
    try {
      for await (const part of response) {
        const pieces = (rest + (part as Buffer).toString('utf8')).split('\n');
        rest = pieces.pop() ?? '';
        for (const piece of pieces) if (piece.trim() !== '') onValue(JSON.parse(piece));
      }
    } catch (error) {
      if (!signal.aborted) throw error;
    }
  }

  close(): void {
    this.#agent.destroy();
  }

  #open(method: string, path: string, options: UnixRequestOptions, signal: AbortSignal): Promise<IncomingMessage> {
    const body = options.body;
    const payload = body === undefined || Buffer.isBuffer(body) ? body : Buffer.from(JSON.stringify(body));
    const headers: OutgoingHttpHeaders = { host: 'localhost', ...options.headers };
    if (payload) {
      headers['content-type'] ??= Buffer.isBuffer(body) ? 'application/octet-stream' : 'application/json';
      headers['content-length'] = payload.length;
    }
    return new Promise((resolve, reject) => {
      const req = httpRequest(
        { socketPath: this.socketPath, agent: this.#agent, method, path, headers, signal },
        resolve,
      );
      req.on('error', reject);
      req.end(payload);
    });
  }
}

import { connect, type Socket } from 'node:net';

/** Just enough HTTP/1.1 on a kept-alive Unix socket to write settings one by one: what a lean client of the API would cost. */
export class SettingsClient {
  readonly #socket: Socket;
  #received = '';
  #waiting: { readonly resolve: () => void; readonly reject: (error: Error) => void } | undefined;

  constructor(socketPath: string) {
    this.#socket = connect(socketPath);
    this.#socket.setEncoding('latin1');
    this.#socket.on('data', (part: string) => this.#onData(part));
    this.#socket.on('error', (error) => this.#settle(error));
    this.#socket.on('close', () => this.#settle(new Error('the peer closed the connection')));
  }

  /** Resolves when the value is committed; rejects with the peer's words. One at a time. */
  set(key: string, value: string): Promise<void> {
    if (this.#waiting) return Promise.reject(new Error('one write at a time'));
    if (this.#socket.destroyed) return Promise.reject(new Error('the connection is closed'));
    const body = JSON.stringify({ value });
    return new Promise((resolve, reject) => {
      this.#waiting = { resolve, reject };
      this.#socket.write(
        `PUT /v1/settings/${key} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n` +
          `content-length: ${Buffer.byteLength(body)}\r\n\r\n${body}`,
      );
    });
  }

  close(): void {
    this.#socket.destroy();
  }

  #onData(part: string): void {
    this.#received += part;
    const head = this.#received.indexOf('\r\n\r\n');
    if (head < 0) return;
    const length = Number(/content-length: (\d+)/i.exec(this.#received.slice(0, head))?.[1] ?? 0);
    if (this.#received.length < head + 4 + length) return;
    const status = Number(this.#received.slice(9, 12));
    const body = this.#received.slice(head + 4, head + 4 + length);
    this.#received = this.#received.slice(head + 4 + length);
    this.#settle(status < 300 ? undefined : new Error(`status ${status}: ${body}`));
  }

  #settle(error: Error | undefined): void {
    const waiting = this.#waiting;
    this.#waiting = undefined;
    if (error) waiting?.reject(error);
    else waiting?.resolve();
  }
}

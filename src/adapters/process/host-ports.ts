import { createSocket } from 'node:dgram';
import { createServer } from 'node:net';
import type { CopyId, DesiredCopy, ObservedCopy } from '../../core/reconcile/types.ts';
import { TaskOrgError } from '../../model/errors.ts';

type Protocol = 'tcp' | 'udp';
const FREE_PORT_TRIES = 16;

/**
 * Which copy has which port of the machine. A process binds its port itself, some time after its start: until then only
 * this keeps two copies apart.
 */
export class HostPorts {
  readonly #holders = new Map<string, CopyId>();

  /**
   * Host ports of a copy: those asked for, and for 0 a free one, the former one if it still is. Held until released.
   * Throws port_in_use (retryable). Somebody else may take a port before the task binds it; then the task fails and is
   * restarted.
   */
  async choose(copyId: CopyId, copy: DesiredCopy, former: ObservedCopy['ports']): Promise<ObservedCopy['ports']> {
    const chosen: { container: number; host: number; protocol: Protocol }[] = [];
    try {
      for (const { container, host, protocol } of copy.spec.ports) {
        const old = former.find((p) => p.container === container && p.protocol === protocol)?.host ?? 0;
        const port =
          (await this.#claim(copyId, protocol, host === 0 ? old : host)) ??
          (host === 0 ? await this.#any(copyId, protocol) : undefined);
        if (port === undefined) throw this.#inUse(protocol, host);
        chosen.push({ container, host: port, protocol });
      }
      return chosen;
    } catch (error) {
      this.release(copyId);
      throw error;
    }
  }

  /** Ports of a copy that an earlier agent started. */
  restore(copyId: CopyId, ports: ObservedCopy['ports']): void {
    for (const { protocol, host } of ports) this.#holders.set(`${protocol} ${host}`, copyId);
  }

  release(copyId: CopyId): void {
    for (const [key, holder] of this.#holders) if (holder === copyId) this.#holders.delete(key);
  }

  async #any(copyId: CopyId, protocol: Protocol): Promise<number | undefined> {
    for (let i = 0; i < FREE_PORT_TRIES; i++) {
      const free = await bindable(protocol, 0);
      if (free === undefined) return undefined;
      const port = await this.#claim(copyId, protocol, free);
      if (port !== undefined) return port;
    }
    return undefined;
  }

  async #claim(copyId: CopyId, protocol: Protocol, port: number): Promise<number | undefined> {
    const key = `${protocol} ${port}`;
    const holder = this.#holders.get(key);
    if (port === 0 || (holder !== undefined && holder !== copyId)) return undefined;
    this.#holders.set(key, copyId);
    if ((await bindable(protocol, port)) !== undefined) return port;
    this.#holders.delete(key);
    return undefined;
  }

  #inUse(protocol: Protocol, port: number): TaskOrgError {
    const holder = this.#holders.get(`${protocol} ${port}`);
    const by = holder === undefined ? '' : ` by the copy ${holder}`;
    return port === 0
      ? new TaskOrgError('port_in_use', `no free ${protocol} port on this machine`, { retryable: true })
      : new TaskOrgError('port_in_use', `${protocol} port ${port} is in use on this machine${by}`, {
          retryable: true,
          hint: 'choose another host port, or 0 for a free one',
        });
  }
}

/** The port when it can be bound (0: any that can), else undefined. */
function bindable(protocol: Protocol, port: number): Promise<number | undefined> {
  return new Promise((done) => {
    if (protocol === 'udp') {
      const socket = createSocket('udp4');
      socket.once('error', () => socket.close(() => done(undefined)));
      socket.bind(port, () => {
        const bound = socket.address().port;
        socket.close(() => done(bound));
      });
      return;
    }
    const server = createServer();
    server.once('error', () => done(undefined));
    server.listen(port, () => {
      const address = server.address();
      server.close(() => done(typeof address === 'object' && address ? address.port : undefined));
    });
  });
}

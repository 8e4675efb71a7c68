import { readFileSync, rmSync, watch } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { EngineApi } from './engine-api.ts';
import { commandName, signalPid, untilGone } from './processes.ts';
import type { HostLab } from './types.ts';
import { HostLabError } from './types.ts';

const START_TIMEOUT_MS = 60_000;

export interface LabEngineOptions {
  /** First two octets of the container bridges. */
  readonly containerNet: string;
  readonly args: readonly string[];
  readonly cgroupParent: (host: number) => string;
}

/** A host's Docker Engine: started as a plain daemon, on the default socket path. */
export class LabEngine {
  readonly #lab: HostLab;
  readonly #options: LabEngineOptions;

  constructor(lab: HostLab, options: LabEngineOptions) {
    this.#lab = lab;
    this.#options = options;
  }

  /** Resolves when the engine answers a ping. Returns epoch ms of that. */
  async start(host: number): Promise<number> {
    const { run, log } = this.#lab.paths(host);
    for (const left of ['docker.pid', 'docker.sock', 'docker/containerd/containerd.pid'])
      rmSync(join(run, left), { force: true });
    const daemon = await this.#lab.spawn(host, 'dockerd', [
      'dockerd',
      ...this.#options.args,
      ...['--bip', `${this.#options.containerNet}.${host}.1/24`],
      ...['--cgroup-parent', this.#options.cgroupParent(host)],
      ...['--exec-opt', 'native.cgroupdriver=cgroupfs'], // there is no systemd in a host
      ...['--storage-driver', 'overlay2'],
    ]);
    let ended = false;
    void daemon.exited.then(() => {
      ended = true;
    });
    const api = new EngineApi(this.#lab.socketPath(host));
    try {
      const deadline = Date.now() + START_TIMEOUT_MS;
      while (!(await api.ping())) {
        if (ended || Date.now() > deadline) {
          const words = readFileSync(join(log, 'dockerd'), 'utf8').trim().split('\n').slice(-3).join('\n');
          throw new HostLabError(
            'failed',
            `${this.#lab.hostname(host)}: dockerd ${ended ? 'ended' : `did not answer within ${START_TIMEOUT_MS} ms`}: ${words}`,
          );
        }
        await untilSocketMoves(run);
      }
    } finally {
      api.close();
    }
    return Date.now();
  }

  /** TERM: dockerd stops its containers, then itself. KILL: dockerd and containerd at once; shims and containers live on. */
  async end(host: number, signal: 'SIGTERM' | 'SIGKILL'): Promise<number> {
    const named = (names: readonly string[]): number[] =>
      this.#lab.pids(host).filter((pid) => names.includes(commandName(pid)));
    const pids = named(signal === 'SIGKILL' ? ['dockerd', 'containerd'] : ['dockerd']);
    if (pids.length === 0) throw new HostLabError('failed', `${this.#lab.hostname(host)}: no engine is running`);
    for (const pid of pids) signalPid(pid, signal);
    const at = Date.now();
    for (const pid of pids) await untilGone(pid, START_TIMEOUT_MS);
    return at;
  }
}

/** The next change in /run, or 50 ms: the socket file appears a moment before anybody listens. */
async function untilSocketMoves(run: string): Promise<void> {
  const watcher = watch(run);
  const moved = new Promise<void>((resolve) => {
    watcher.once('change', () => resolve());
  });
  await Promise.race([moved, delay(50)]);
  watcher.close();
}

import type { Fleet } from '../scenario/fleet.ts';
import { nodeName } from '../scenario/fleet.ts';
import { fleetOnHosts, launchPeer } from '../scenario/host-peer.ts';
import { EngineApi } from '../scenario/hosts/engine-api.ts';
import { commandLine, signalPid } from '../scenario/hosts/processes.ts';
import type { HostLab } from '../scenario/hosts/types.ts';
import type { PeerEvent } from '../scenario/peer-client.ts';
import { isPeerCommand } from '../scenario/peer-command.ts';
import type { TaskDocument } from '../scenario/types.ts';
import { until } from '../scenario/until.ts';
import { copyOfContainer, witnessDocument } from '../scenario/witness.ts';
import { type StartWatch, watchStarts } from './start-watch.ts';

const TIMEOUT_MS = 120_000;
/** Longer than the time a higher-ranked voter must be stable before it takes over. */
const LASTING_MS = 13_000;

const aborted = (signal: AbortSignal): Promise<never> =>
  new Promise((_, reject) => signal.addEventListener('abort', () => reject(signal.reason)));

/** Our own side of the measurements: one peer per host. */
export class OurCluster {
  readonly fleet: Fleet;
  readonly #lab: HostLab;
  readonly #hosts: readonly number[];
  readonly #engines = new Map<number, EngineApi>();

  constructor(lab: HostLab, hosts: readonly number[]) {
    this.#lab = lab;
    this.#hosts = hosts;
    this.fleet = fleetOnHosts(lab);
  }

  async form(): Promise<void> {
    await this.fleet.form({ peers: this.#hosts.length, joining: 0, witnesses: 0, runtime: 'docker', seed: '' });
  }

  async master(): Promise<number> {
    return await until('task-org has a master', TIMEOUT_MS, () => this.fleet.master());
  }

  /** Rank may move mastery when a cluster is young: whoever has kept it for a while. */
  async lastingMaster(): Promise<number> {
    let master = await this.master();
    let since = performance.now();
    return await until('mastery has come to rest', TIMEOUT_MS, async () => {
      const now = await this.master();
      if (now !== master) [master, since] = [now, performance.now()];
      return performance.now() - since > LASTING_MS && master;
    });
  }

  /** Publishes tasks until one of them runs on that host; its name. It may run anywhere afterwards. */
  async runOn(
    host: number,
    prefix: string,
    document: (name: string) => TaskDocument = (name) => witnessDocument({ name, onPartition: 'keep' }, 'docker'),
  ): Promise<string> {
    for (let count = 1; count <= 4 * this.#hosts.length; count += 1) {
      const name = `${prefix}-${count}`;
      await this.fleet.submit(document(name));
      const node = await until(`${name} runs`, TIMEOUT_MS, async () => {
        const slot = (await this.fleet.tasks()).find((task) => task.name === name)?.slots[0];
        return slot?.state === 'running' && slot.node !== null ? slot.node : undefined;
      });
      if (node === host) return name;
    }
    throw new Error(`none of ${4 * this.#hosts.length} tasks was placed on ${nodeName(host)}`);
  }

  /** Power cut; milliseconds until the task's container starts on another host, by that host's engine. */
  async timeRecovery(victim: number, task: string): Promise<number> {
    const others = this.#hosts.filter((host) => host !== victim);
    const watch = this.#watch(others, task, 1);
    try {
      await watch.opened;
      this.fleet.setReachable([victim], false);
      const at = await this.#lab.kill(victim);
      return (await watch.done) - at;
    } finally {
      watch.stop();
    }
  }

  /** Milliseconds from the order to the last container's start. */
  async timeDeploy(name: string, replicas: number): Promise<number> {
    const watch = this.#watch(this.#hosts, name, replicas);
    try {
      await watch.opened;
      const at = Date.now();
      await this.fleet.submit(witnessDocument({ name, replicas, onPartition: 'keep' }, 'docker'));
      return (await watch.done) - at;
    } finally {
      watch.stop();
    }
  }

  /**
   * Power cut, or what `strike` does instead (it returns the moment, epoch ms); milliseconds until each other peer has said,
   * first, something that `matches`.
   */
  async timeEvents(
    victim: number,
    matches: (event: PeerEvent) => boolean,
    wanted: 'first' | 'all',
    strike: (victim: number) => Promise<number> = (host) => this.#lab.kill(host),
  ): Promise<readonly number[]> {
    const others = this.#hosts.filter((host) => host !== victim);
    const abort = new AbortController();
    const timer = setTimeout(
      () => abort.abort(new Error(`not every peer noticed within ${TIMEOUT_MS} ms`)),
      TIMEOUT_MS,
    );
    let killedAt = Number.POSITIVE_INFINITY;
    const opened: Promise<void>[] = [];
    const known = others.map(
      (host) =>
        new Promise<number>((resolve, reject) => {
          abort.signal.addEventListener('abort', () => reject(abort.signal.reason));
          opened.push(
            new Promise((open) => {
              const onEvent = (event: PeerEvent): void => {
                if (Date.now() >= killedAt && matches(event)) resolve(Date.now());
              };
              this.fleet.client(host).followEvents(Date.now(), onEvent, abort.signal, open).catch(reject);
            }),
          );
        }),
    );
    for (const one of known) one.catch(() => {}); // awaited below, all or the first
    try {
      await Promise.race([Promise.all(opened), aborted(abort.signal)]);
      this.fleet.setReachable([victim], false);
      killedAt = Date.now();
      const at = await strike(victim);
      const times = wanted === 'all' ? await Promise.all(known) : [await Promise.any(known)];
      return times.map((time) => time - at);
    } finally {
      clearTimeout(timer);
      abort.abort();
    }
  }

  /** SIGKILL to the whole peer, boot and agent, on a host that lives on; epoch ms. */
  killPeer(host: number): Promise<number> {
    const pids = this.#lab.pids(host).filter((pid) => isPeerCommand(commandLine(pid)));
    const at = Date.now();
    for (const pid of pids) signalPid(pid, 'SIGKILL');
    return Promise.resolve(at);
  }

  /** Starts a killed peer again and waits until everybody is back. */
  async revivePeer(host: number): Promise<void> {
    await launchPeer(this.#lab, host, { witness: false });
    await this.fleet.ready(host);
    await this.fleet.untilAlive(this.#hosts.length);
  }

  /** Boots a killed host and waits until everybody is back. */
  async restore(host: number): Promise<void> {
    this.#engines.get(host)?.close();
    this.#engines.delete(host);
    await this.#lab.start(host);
    await this.revivePeer(host);
  }

  async removeTasks(): Promise<void> {
    const client = this.fleet.client(await this.master());
    for (const task of await this.fleet.tasks()) await client.removeTask(task.name);
    await until('every task is gone', TIMEOUT_MS, async () => (await this.fleet.tasks()).length === 0);
  }

  close(): void {
    this.fleet.close();
    for (const engine of this.#engines.values()) engine.close();
  }

  #watch(hosts: readonly number[], task: string, count: number): StartWatch {
    const engines = hosts.map((host) => this.#engine(host));
    return watchStarts({
      what: `task-org: ${task}`,
      engines,
      matches: (labels) => copyOfContainer(labels)?.taskId === task,
      count,
      timeoutMs: TIMEOUT_MS,
    });
  }

  #engine(host: number): EngineApi {
    const known = this.#engines.get(host) ?? new EngineApi(this.#lab.socketPath(host));
    this.#engines.set(host, known);
    return known;
  }
}

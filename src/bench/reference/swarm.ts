import { EngineApi } from '../../scenario/hosts/engine-api.ts';
import { BUSYBOX_IMAGE } from '../../scenario/hosts/image.ts';
import type { HostLab } from '../../scenario/hosts/types.ts';
import { until } from '../../scenario/until.ts';
import { type StartWatch, watchStarts } from '../start-watch.ts';

// Docker Swarm as the reference for recovery: the same engines, the same image, its defaults or its fastest settings.

export interface SwarmSettings {
  /** Agents' heartbeat period, seconds. Swarm's default is 5. */
  readonly heartbeatSeconds: number;
  /** Delay before a task is started again, seconds. Swarm's default is 5. */
  readonly restartDelaySeconds: number;
}
export const SWARM_DEFAULTS: SwarmSettings = { heartbeatSeconds: 5, restartDelaySeconds: 5 };
/** Below this Swarm moves the tasks of healthy hosts. */
export const SWARM_FASTEST: SwarmSettings = { heartbeatSeconds: 0.5, restartDelaySeconds: 0 };

const SLEEP = ['sleep', '1000000'];
const SECOND_NS = 1_000_000_000;
const FORM_TIMEOUT_MS = 120_000;

interface SwarmNode {
  readonly ID: string;
  readonly Version: { readonly Index: number };
  readonly Spec: { readonly Labels: Record<string, string> };
  readonly Description: { readonly Hostname: string };
  readonly Status: { readonly State: string };
  readonly ManagerStatus?: { readonly Leader?: boolean; readonly Reachability: string };
}

export class Swarm {
  readonly #lab: HostLab;
  readonly #hosts: readonly number[];
  readonly #managers: readonly number[];
  readonly #settings: SwarmSettings;
  readonly #apis: ReadonlyMap<number, EngineApi>;

  /** The first `managers` hosts order the swarm; all run tasks. */
  constructor(lab: HostLab, hosts: readonly number[], managers: number, settings: SwarmSettings) {
    this.#lab = lab;
    this.#hosts = hosts;
    this.#managers = hosts.slice(0, managers);
    this.#settings = settings;
    this.#apis = new Map(hosts.map((host) => [host, new EngineApi(lab.socketPath(host))]));
  }

  async form(): Promise<void> {
    const [first, ...rest] = this.#hosts;
    if (first === undefined) throw new Error('a swarm needs hosts');
    const spec = { Dispatcher: { HeartbeatPeriod: this.#settings.heartbeatSeconds * SECOND_NS } };
    await this.#api(first).call('POST', '/swarm/init', {
      ListenAddr: '0.0.0.0:2377',
      AdvertiseAddr: this.#lab.address(first),
      Spec: spec,
    });
    const swarm = (await this.#api(first).call('GET', '/swarm')) as { JoinTokens: { Worker: string; Manager: string } };
    for (const host of rest) {
      const token = this.#managers.includes(host) ? swarm.JoinTokens.Manager : swarm.JoinTokens.Worker;
      const join = {
        ListenAddr: '0.0.0.0:2377',
        AdvertiseAddr: this.#lab.address(host),
        RemoteAddrs: [`${this.#lab.address(first)}:2377`],
        JoinToken: token,
      };
      await this.#api(host).call('POST', '/swarm/join', join);
    }
    await this.untilComplete();
  }

  /** Every host ready, every manager reachable, one leader. */
  async untilComplete(): Promise<void> {
    await until(
      'every host of the swarm is ready',
      FORM_TIMEOUT_MS,
      async () => {
        const nodes = await this.#nodes();
        const managers = nodes.filter((node) => node.ManagerStatus?.Reachability === 'reachable');
        return (
          nodes.filter((node) => node.Status.State === 'ready').length === this.#hosts.length &&
          managers.length === this.#managers.length &&
          nodes.some((node) => node.ManagerStatus?.Leader)
        );
      },
      200,
    );
  }

  async leader(): Promise<number> {
    return await until('the swarm has a leader', FORM_TIMEOUT_MS, async () =>
      this.#hostOf((await this.#nodes()).find((node) => node.ManagerStatus?.Leader)?.Description.Hostname),
    );
  }

  /** Starts a service of one task on that host, free to run anywhere afterwards. Resolves once its container runs. */
  async runOn(host: number, service: string, command: readonly string[] = SLEEP): Promise<void> {
    const spot = `spot-${service}`;
    await this.#label(spot, [host]);
    const watch = this.#watch(service, [host], FORM_TIMEOUT_MS, 1);
    try {
      await watch.opened;
      await this.#create(service, 1, [`node.labels.${spot}==yes`], command);
      await watch.done;
    } finally {
      watch.stop();
    }
    await this.#label(
      spot,
      this.#hosts.filter((one) => one !== host),
    );
  }

  /** Power cut; milliseconds until the service's container starts on another host, by that host's engine. */
  async timeRecovery(victim: number, service: string, timeoutMs = 180_000): Promise<number> {
    const others = this.#hosts.filter((host) => host !== victim);
    const watch = this.#watch(service, others, timeoutMs, 1);
    try {
      await watch.opened;
      const at = await this.#lab.kill(victim);
      return (await watch.done) - at;
    } finally {
      watch.stop();
    }
  }

  /** Milliseconds from the order to the last container's start. */
  async timeDeploy(service: string, replicas: number, timeoutMs = 300_000): Promise<number> {
    const watch = this.#watch(service, this.#hosts, timeoutMs, replicas);
    try {
      await watch.opened;
      const at = Date.now();
      await this.#create(service, replicas, []);
      return (await watch.done) - at;
    } finally {
      watch.stop();
    }
  }

  /** Removes the service and waits until its containers are gone. */
  async remove(service: string): Promise<void> {
    await until(`the service ${service} is removed`, FORM_TIMEOUT_MS, async () => {
      await this.#manager('DELETE', `/services/${service}`).catch((error: unknown) => {
        if (!String(error).includes('404')) throw error;
      });
      return true;
    });
    const filters = encodeURIComponent(JSON.stringify({ label: [`com.docker.swarm.service.name=${service}`] }));
    for (const host of this.#hosts.filter((one) => this.#lab.isUp(one))) {
      await until(
        `the containers of ${service} are gone`,
        FORM_TIMEOUT_MS,
        async () =>
          ((await this.#api(host).call('GET', `/containers/json?all=1&filters=${filters}`)) as unknown[]).length === 0,
        200,
      );
    }
  }

  close(): void {
    for (const api of this.#apis.values()) api.close();
  }

  #watch(service: string, hosts: readonly number[], timeoutMs: number, count: number): StartWatch {
    const engines = hosts.map((host) => this.#api(host));
    const matches = (labels: Readonly<Record<string, string>>): boolean =>
      labels['com.docker.swarm.service.name'] === service;
    return watchStarts({ what: `swarm: ${service}`, engines, matches, count, timeoutMs });
  }

  async #create(
    service: string,
    replicas: number,
    constraints: readonly string[],
    command: readonly string[] = SLEEP,
  ): Promise<void> {
    await this.#manager('POST', '/services/create', {
      Name: service,
      TaskTemplate: {
        ContainerSpec: { Image: BUSYBOX_IMAGE, Command: command, StopSignal: 'SIGKILL' },
        Placement: { Constraints: constraints },
        RestartPolicy: { Condition: 'any', Delay: this.#settings.restartDelaySeconds * SECOND_NS },
      },
      Mode: { Replicated: { Replicas: replicas } },
      EndpointSpec: { Mode: 'dnsrr' }, // no virtual address: it needs IPVS, and we publish nothing
    });
  }

  async #label(name: string, hosts: readonly number[]): Promise<void> {
    for (const host of hosts) {
      await until(`the label ${name} is on host ${host}`, FORM_TIMEOUT_MS, async () => {
        const node = (await this.#nodes()).find((one) => this.#hostOf(one.Description.Hostname) === host);
        if (!node) return false;
        await this.#manager('POST', `/nodes/${node.ID}/update?version=${node.Version.Index}`, {
          ...node.Spec,
          Labels: { ...node.Spec.Labels, [name]: 'yes' },
        });
        return true;
      });
    }
  }

  async #nodes(): Promise<readonly SwarmNode[]> {
    return (await this.#manager('GET', '/nodes')) as readonly SwarmNode[];
  }

  /** Through any manager that answers. */
  async #manager(method: string, path: string, body?: unknown): Promise<unknown> {
    let last: unknown = new Error('no manager of the swarm is up');
    for (const host of this.#managers.filter((one) => this.#lab.isUp(one))) {
      try {
        return await this.#api(host).call(method, path, body, 10_000);
      } catch (error) {
        last = error;
      }
    }
    throw last;
  }

  #api(host: number): EngineApi {
    const api = this.#apis.get(host);
    if (!api) throw new Error(`host ${host} is not in the swarm`);
    return api;
  }

  #hostOf(hostname: string | undefined): number | undefined {
    return this.#hosts.find((host) => this.#lab.hostname(host) === hostname);
  }
}

import { followFile } from '../../scenario/follow-file.ts';
import { requireTool } from '../../scenario/hosts/requirements.ts';
import type { HostLab } from '../../scenario/hosts/types.ts';
import { until } from '../../scenario/until.ts';

// serf as the reference for failure detection (SWIM with Lifeguard): one agent per host, its LAN profile, its defaults.

const START_TIMEOUT_MS = 120_000;
/** Members a new one is told of; gossip does the rest. */
const JOIN_VIA = 3;

export class SerfCluster {
  readonly #lab: HostLab;
  readonly #hosts: readonly number[];
  readonly #logs = new Map<number, string>();

  constructor(lab: HostLab, hosts: readonly number[]) {
    requireTool('serf', 'serf');
    this.#lab = lab;
    this.#hosts = hosts;
  }

  async start(): Promise<void> {
    for (const host of this.#hosts) await this.startAgent(host);
    await this.untilComplete();
  }

  async startAgent(host: number): Promise<void> {
    const others = this.#hosts.filter((one) => one !== host && this.#lab.isUp(one));
    const joins = others.slice(0, JOIN_VIA).map((one) => `-retry-join=${this.#lab.address(one)}`);
    const agent = await this.#lab.spawn(host, 'serf', [
      'serf',
      'agent',
      ...[
        `-node=${this.#lab.hostname(host)}`,
        `-bind=${this.#lab.address(host)}`,
        '-profile=lan',
        '-log-level=info',
        ...joins,
      ],
    ]);
    this.#logs.set(host, agent.logFile);
  }

  /** Every agent sees every host alive. */
  async untilComplete(): Promise<void> {
    for (const host of this.#hosts) {
      await until(
        `serf on ${this.#lab.hostname(host)} sees ${this.#hosts.length} alive`,
        START_TIMEOUT_MS,
        async () => {
          const lines = await this.#lab.run(host, ['serf', 'members', '-status=alive']);
          return lines.trim().split('\n').length === this.#hosts.length;
        },
      );
    }
  }

  /** Cuts the power of a host; milliseconds until each other agent declares it failed. */
  async timeDetection(victim: number, timeoutMs = 60_000): Promise<readonly number[]> {
    const name = this.#lab.hostname(victim);
    const stops: (() => void)[] = [];
    let following = false; // what the logs already hold is of earlier deaths
    let timer: NodeJS.Timeout | undefined;
    const timeout = new Promise<never>((_, reject) => {
      timer = setTimeout(
        () => reject(new Error(`serf: not every agent saw ${name} fail within ${timeoutMs} ms`)),
        timeoutMs,
      );
    });
    const known = this.#hosts
      .filter((host) => host !== victim)
      .map(
        (host) =>
          new Promise<number>((resolve) => {
            const stop = followFile(this.#logs.get(host) ?? '', (line) => {
              if (following && line.includes(`EventMemberFailed: ${name} `)) resolve(Date.now());
            });
            stops.push(stop);
          }),
      );
    following = true;
    try {
      const at = await this.#lab.kill(victim);
      const times = await Promise.race([Promise.all(known), timeout]);
      return times.map((time) => time - at);
    } finally {
      clearTimeout(timer);
      for (const stop of stops) stop();
    }
  }
}

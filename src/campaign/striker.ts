import { setTimeout as delay } from 'node:timers/promises';
import type { Fleet } from '../scenario/fleet.ts';
import { commandLine, signalPid } from '../scenario/hosts/processes.ts';
import type { HostLab } from '../scenario/hosts/types.ts';
import { isAgentCommand, isPeerCommand } from '../scenario/peer-command.ts';
import { until } from '../scenario/until.ts';
import type { Freeze, Strike } from './overlap.ts';
import type { Kill, Round } from './schedule.ts';
import { uptimeMs } from './witness.ts';

const LEADER_TIMEOUT_MS = 60_000;

export interface StrikerDeps {
  readonly lab: HostLab;
  readonly fleet: Fleet;
  /** Puts writes on their way that the leader is killed in the middle of. */
  readonly writeBurst: () => void;
}

/** What a round did. `strikes` without an end yet: the next round begins it. */
export interface Struck {
  readonly text: string;
  readonly strikes: readonly Omit<Strike, 'untilMs'>[];
}

/** Carries a round out, from the first blow until everything is powered, plugged and started again. */
export class Striker {
  readonly #lab: HostLab;
  readonly #fleet: Fleet;
  readonly #deps: StrikerDeps;
  readonly #freezes: Freeze[] = [];

  constructor(deps: StrikerDeps) {
    this.#lab = deps.lab;
    this.#fleet = deps.fleet;
    this.#deps = deps;
  }

  get freezes(): readonly Freeze[] {
    return this.#freezes;
  }

  async carryOut(round: Round): Promise<Struck> {
    switch (round.type) {
      case 'kills': {
        const kills = round.kills.some((kill) => kill.kind === 'leader')
          ? await this.#withLeader(round.kills)
          : round.kills;
        const all = await Promise.all(kills.map((kill) => this.#kill(kill)));
        return { text: all.map((one) => one.text).join('; '), strikes: all.flatMap((one) => one.strikes) };
      }
      case 'partition':
        return await this.#partition(round);
      case 'freeze':
        return await this.#freeze(round.host, round.forMs);
    }
  }

  /** The leader's own number, and another host for what was to strike the same one. */
  async #withLeader(kills: readonly Kill[]): Promise<readonly Kill[]> {
    const leader = await until('there is a leader to kill', LEADER_TIMEOUT_MS, () => this.#fleet.master());
    const taken = new Set([leader, ...kills.filter((kill) => kill.kind !== 'leader').map((kill) => kill.host)]);
    return kills.map((kill) => {
      if (kill.kind === 'leader') return { ...kill, host: leader };
      if (kill.host !== leader) return kill;
      let host = leader;
      while (taken.has(host)) host = (host % this.#lab.size) + 1;
      taken.add(host);
      return { ...kill, host };
    });
  }

  async #kill(kill: Kill): Promise<Struck> {
    const { kind, downMs } = kill;
    if (kind === 'leader') return await this.#killLeader(kill);
    const { host } = kill;
    const text = `host ${host}: ${kind} killed`;
    if (kind === 'host') return await this.#powerCut(host, downMs, text);
    const copiesLiveOn = true;
    const atMs = uptimeMs();
    if (kind === 'engine') {
      await this.#lab.dockerd(host, 'kill');
      await delay(downMs);
      await this.#lab.dockerd(host, 'start');
      return { text, strikes: [{ hosts: [host], atMs, copiesLiveOn }] };
    }
    this.#signalPeer(host, kind);
    if (kind !== 'agent') {
      this.#fleet.setReachable([host], false);
      await delay(downMs);
      await this.#fleet.restart(host);
    }
    return { text, strikes: [{ hosts: [host], atMs, copiesLiveOn }] };
  }

  #signalPeer(host: number, which: 'agent' | 'boot' | 'both'): void {
    const wanted = (line: readonly string[]): boolean =>
      isPeerCommand(line) && (which === 'both' || isAgentCommand(line) === (which === 'agent'));
    const pids = this.#lab.pids(host).filter((pid) => wanted(commandLine(pid)));
    if (pids.length === 0) throw new Error(`host ${host} has no ${which} process to kill`);
    for (const pid of pids) signalPid(pid, 'SIGKILL');
  }

  async #powerCut(host: number, downMs: number, text: string): Promise<Struck> {
    this.#fleet.setReachable([host], false);
    const atMs = uptimeMs();
    await this.#lab.kill(host);
    await delay(downMs);
    await this.#lab.start(host);
    await this.#fleet.restart(host);
    return { text, strikes: [{ hosts: [host], atMs, copiesLiveOn: false }] };
  }

  /** Its power is cut, or its processes are killed, in the middle of many writes. */
  async #killLeader(kill: Kill): Promise<Struck> {
    const { host } = kill;
    this.#deps.writeBurst();
    // Some milliseconds into the burst, seeded like everything else.
    await delay(kill.downMs % 30);
    if (kill.downMs % 2 === 0)
      return await this.#powerCut(host, kill.downMs, `host ${host}: leader's power cut during commits`);
    const struck = await this.#kill({ ...kill, kind: 'both' });
    return { ...struck, text: `host ${host}: leader killed during commits` };
  }

  async #partition(round: Extract<Round, { type: 'partition' }>): Promise<Struck> {
    const { order, kind, forMs } = round;
    const [first = 1, second = 2] = order;
    switch (kind) {
      case 'cut': {
        const done = await this.#apart([first], forMs, () => this.#lab.cut(first));
        return { ...done, text: `host ${first} cut off for ${forMs} ms` };
      }
      case 'half': {
        const minority = order.slice(0, Math.floor(order.length / 2));
        const majority = order.slice(minority.length);
        const done = await this.#apart(minority, forMs, () => this.#lab.partition([minority, majority]));
        return { ...done, text: `hosts ${minority.join(' ')} | ${majority.join(' ')} for ${forMs} ms` };
      }
      case 'ring': {
        const pairs = order.flatMap((host, i) =>
          order
            .filter((_, j) => i !== j && ![1, order.length - 1].includes(Math.abs(i - j)))
            .map((from) => [host, from]),
        );
        await this.#blocked(pairs, forMs);
        return { text: `ring ${order.join(' ')} for ${forMs} ms`, strikes: [] };
      }
      case 'one-way': {
        // Half of the time one host is deaf to all, else to one other.
        const from = forMs % 2 === 0 ? order.slice(1) : [second];
        await this.#blocked(
          from.map((other) => [first, other]),
          forMs,
        );
        return { text: `host ${first} hears nothing from ${from.join(' ')} for ${forMs} ms`, strikes: [] };
      }
      case 'flap': {
        for (let left = forMs; left > 0; left -= 2 * round.periodMs) {
          await this.#lab.cut(first);
          await delay(round.periodMs);
          await this.#lab.heal(first);
          await delay(round.periodMs);
        }
        return { text: `host ${first} flaps every ${round.periodMs} ms for ${forMs} ms`, strikes: [] };
      }
    }
  }

  async #apart(hosts: readonly number[], forMs: number, cut: () => Promise<number>): Promise<Struck> {
    this.#fleet.setReachable(hosts, false);
    const atMs = uptimeMs();
    await cut();
    await delay(forMs);
    await this.#lab.heal();
    this.#fleet.setReachable(hosts, true);
    return { text: '', strikes: [{ hosts, atMs, copiesLiveOn: false }] };
  }

  /** Pairs [who, from whom it hears nothing]. */
  async #blocked(pairs: readonly (readonly number[])[], forMs: number): Promise<void> {
    await Promise.all(pairs.map(([host = 0, from = 0]) => this.#lab.block(host, from)));
    await delay(forMs);
    await Promise.all(pairs.map(([host = 0, from = 0]) => this.#lab.unblock(host, from)));
  }

  async #freeze(host: number, forMs: number): Promise<Struck> {
    this.#fleet.setReachable([host], false);
    const fromMs = uptimeMs();
    await this.#lab.freeze(host);
    await delay(forMs);
    // Noted before the thaw: from then on its copies run.
    this.#freezes.push({ host, fromMs, toMs: uptimeMs() });
    await this.#lab.thaw(host);
    this.#fleet.setReachable([host], true);
    return {
      text: `host ${host} frozen for ${forMs} ms`,
      strikes: [{ hosts: [host], atMs: fromMs, copiesLiveOn: false }],
    };
  }
}

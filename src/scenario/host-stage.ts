import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { TaskOrgError } from '../model/errors.ts';
import { nodeName } from './fleet.ts';
import { launchPeer, peerDataDir } from './host-peer.ts';
import { createHostLab } from './hosts/host-lab.ts';
import { busyboxImage } from './hosts/image.ts';
import { commandLine, signalPid } from './hosts/processes.ts';
import type { HostLab } from './hosts/types.ts';
import { type LiveBackend, LiveStage } from './live-stage.ts';
import { apiSocket, isAgentCommand } from './peer-command.ts';
import type { RunBook } from './run-book.ts';
import type { FaultAction, ScenarioStage, StageFault, StageOptions, Topology } from './types.ts';
import { EngineWitness } from './witness.ts';

export interface HostStageOptions extends StageOptions {
  /** Default `tohost`; several runs side by side need different ones. */
  readonly prefix?: string;
  /** Default 10.61.0.0/24. */
  readonly subnet?: string;
}

/** Peers on real hosts of their own (namespaces of this machine), each with its own Docker Engine if tasks are containers. Needs root. */
export function hostStage(options: HostStageOptions): ScenarioStage {
  return new LiveStage(new HostBackend(options), options.log);
}

class HostBackend implements LiveBackend {
  readonly kind = 'hosts';
  readonly supports: ReadonlySet<FaultAction> = new Set<FaultAction>([
    ...(['kill', 'kill-agent', 'start', 'cut', 'heal', 'partition'] as const),
    ...(['engine-kill', 'engine-start', 'freeze', 'thaw', 'join'] as const),
  ]);
  readonly #options: HostStageOptions;
  readonly #witnesses = new Map<number, EngineWitness>();
  #lab: HostLab | undefined;

  constructor(options: HostStageOptions) {
    this.#options = options;
  }

  async prepare(topology: Topology, witness: { readonly book: RunBook; readonly onChange: () => void }): Promise<void> {
    const prefix = this.#options.prefix ?? 'tohost';
    const docker = topology.runtime === 'docker';
    mkdirSync(this.#options.dir, { recursive: true });
    const lab = createHostLab(
      {
        hosts: topology.peers + topology.joining,
        dir: join(this.#options.dir, prefix),
        prefix,
        subnet: this.#options.subnet ?? '10.61.0.0/24',
        docker,
      },
      { log: this.#options.log },
    );
    this.#lab = lab;
    await lab.up();
    if (!docker) return;
    const image = busyboxImage();
    const hosts = Array.from({ length: lab.size }, (_, index) => index + 1);
    await Promise.all(hosts.map((host) => lab.loadImage(host, image)));
    for (const host of hosts) {
      const listener = new EngineWitness(witness.book, host, lab.socketPath(host), witness.onChange);
      this.#witnesses.set(host, listener);
      await listener.listen();
    }
  }

  dataDir(node: number): string {
    return peerDataDir(this.#hosts, node);
  }

  socketPath(node: number): string {
    return apiSocket(this.dataDir(node));
  }

  async launch(node: number, options: { readonly token?: string; readonly witness: boolean }): Promise<void> {
    await launchPeer(this.#hosts, node, options);
  }

  async kill(node: number): Promise<number> {
    this.#witnesses.get(node)?.stop();
    return await this.#hosts.kill(node);
  }

  async powerOn(node: number): Promise<void> {
    await this.#hosts.start(node);
    await this.#witnesses.get(node)?.listen();
  }

  async disturb(fault: Exclude<StageFault, { readonly do: 'kill' | 'start' | 'join' }>): Promise<number> {
    const lab = this.#hosts;
    if (fault.do === 'partition') return await lab.partition(fault.groups);
    if (fault.do === 'heal' && fault.nodes.length === 0) return await lab.heal();
    const moments = await Promise.all(fault.nodes.map((node) => this.#disturbOne(lab, fault.do, node)));
    return Math.min(...moments);
  }

  async #disturbOne(
    lab: HostLab,
    action: Exclude<FaultAction, 'kill' | 'start' | 'join' | 'partition'>,
    node: number,
  ): Promise<number> {
    switch (action) {
      case 'cut':
        return await lab.cut(node);
      case 'heal':
        return await lab.heal(node);
      case 'freeze':
        return await lab.freeze(node);
      case 'thaw':
        return await lab.thaw(node);
      case 'engine-kill':
        return await lab.dockerd(node, 'kill');
      case 'engine-start': {
        const atMs = await lab.dockerd(node, 'start');
        await this.#witnesses.get(node)?.listen();
        return atMs;
      }
      case 'kill-agent': {
        const agents = lab.pids(node).filter((pid) => isAgentCommand(commandLine(pid)));
        if (agents.length === 0) throw new TaskOrgError('not_found', `${nodeName(node)} has no agent process to kill`);
        for (const pid of agents) signalPid(pid, 'SIGKILL');
        return Date.now();
      }
    }
  }

  async teardown(): Promise<void> {
    for (const witness of this.#witnesses.values()) witness.stop();
    if (this.#lab && !this.#options.keep) await this.#lab.down();
  }

  get #hosts(): HostLab {
    if (!this.#lab) throw new TaskOrgError('internal', 'the hosts are not up');
    return this.#lab;
  }
}

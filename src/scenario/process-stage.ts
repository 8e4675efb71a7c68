import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, mkdirSync, openSync, rmSync } from 'node:fs';
import { mkdtemp } from 'node:fs/promises';
import { type AddressInfo, createServer } from 'node:net';
import { join } from 'node:path';
import { TaskOrgError } from '../model/errors.ts';
import { nodeName } from './fleet.ts';
import { commandLine, signalPid } from './hosts/processes.ts';
import { type LiveBackend, LiveStage } from './live-stage.ts';
import { apiSocket, isAgentCommand, peerCommand } from './peer-command.ts';
import { killPeer, processesOfPeer, STAGE_MARK } from './processes-of-peer.ts';
import type { FaultAction, ScenarioStage, StageFault, StageOptions, Topology } from './types.ts';

/**
 * Peers as processes of this machine, tasks as processes of theirs: no root, no engine. A kill takes boot, agent, guard
 * and copies at once, but the machine's kernel still closes their connections, which a power cut would not; and there is
 * no network to cut. For those: hosts.
 */
export function processStage(options: StageOptions): ScenarioStage {
  return new LiveStage(new ProcessBackend(options), options.log);
}

class ProcessBackend implements LiveBackend {
  readonly kind = 'processes';
  readonly supports: ReadonlySet<FaultAction> = new Set<FaultAction>([
    'kill',
    'kill-agent',
    'start',
    'freeze',
    'thaw',
    'join',
  ]);
  readonly #options: StageOptions;
  readonly #children = new Map<number, ChildProcess>();
  readonly #ports = new Map<number, number>();
  #dir = '';

  constructor(options: StageOptions) {
    this.#options = options;
  }

  async prepare(topology: Topology): Promise<void> {
    if (process.platform !== 'linux')
      throw new TaskOrgError('refused', 'killing a peer with all its copies is told from /proc, which only Linux has');
    if (topology.runtime !== 'process')
      throw new TaskOrgError('invalid_input', 'local peers share one Docker Engine, so none can lose its own', {
        hint: 'run the scenario with --runtime process, or on hosts: --stage hosts',
      });
    mkdirSync(this.#options.dir, { recursive: true });
    this.#dir = await mkdtemp(join(this.#options.dir, 'peers-'));
  }

  dataDir(node: number): string {
    return join(this.#dir, nodeName(node));
  }

  socketPath(node: number): string {
    return apiSocket(this.dataDir(node));
  }

  async launch(
    node: number,
    { token, witness }: { readonly token?: string; readonly witness: boolean },
  ): Promise<void> {
    const dataDir = this.dataDir(node);
    mkdirSync(dataDir, { recursive: true, mode: 0o700 });
    const log = openSync(join(this.#dir, `${nodeName(node)}.log`), 'a');
    const start = {
      dataDir,
      name: nodeName(node),
      witness,
      localPort: await this.#port(node),
      ...(token === undefined ? {} : { token }),
    };
    const [program = '', ...args] = peerCommand(start);
    const child = spawn(program, args, {
      detached: true,
      stdio: ['ignore', log, log],
      cwd: this.#dir,
      env: { ...process.env, [STAGE_MARK]: dataDir },
    });
    closeSync(log);
    await new Promise<void>((resolve, reject) => {
      child.once('spawn', () => resolve());
      child.once('error', reject);
    });
    child.unref();
    this.#children.set(node, child);
  }

  async kill(node: number): Promise<number> {
    return await killPeer(this.#children.get(node)?.pid, this.dataDir(node));
  }

  async powerOn(): Promise<void> {}

  async disturb(fault: Exclude<StageFault, { readonly do: 'kill' | 'start' | 'join' }>): Promise<number> {
    const nodes = fault.do === 'partition' ? [] : fault.nodes;
    const atMs = Date.now();
    for (const node of nodes) {
      const pids = processesOfPeer(this.#children.get(node)?.pid, this.dataDir(node));
      if (fault.do === 'kill-agent') {
        const agents = pids.filter((pid) => isAgentCommand(commandLine(pid)));
        if (agents.length === 0) throw new TaskOrgError('not_found', `${nodeName(node)} has no agent process to kill`);
        for (const pid of agents) signalPid(pid, 'SIGKILL');
      } else if (fault.do === 'freeze' || fault.do === 'thaw') {
        for (const pid of pids) signalPid(pid, fault.do === 'freeze' ? 'SIGSTOP' : 'SIGCONT');
      } else
        throw new TaskOrgError('refused', `local peers cannot be made to ${fault.do}`, { hint: 'use --stage hosts' });
    }
    return atMs;
  }

  async teardown(): Promise<void> {
    for (const [node, child] of this.#children) await killPeer(child.pid, this.dataDir(node));
    if (this.#dir !== '' && !this.#options.keep) rmSync(this.#dir, { recursive: true, force: true });
  }

  /** One port for the peer's whole life: after all have been down, they find each other where they were. */
  async #port(node: number): Promise<number> {
    const port = this.#ports.get(node) ?? (await freePort());
    this.#ports.set(node, port);
    return port;
  }
}

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(0, '127.0.0.1', resolve);
  });
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
}

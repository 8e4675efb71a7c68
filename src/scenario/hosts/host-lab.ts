import { spawn } from 'node:child_process';
import { closeSync, existsSync, mkdirSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { LabCgroups } from './cgroups.ts';
import { type CommandOptions, mustRun, runCommand } from './command.ts';
import { LabEngine } from './engine.ts';
import { EngineApi } from './engine-api.ts';
import { firstData, type HostBirth, layDisk, startInit, tail } from './host-boot.ts';
import { ENTER_SCRIPT, HOME_INSIDE, initTag } from './init-script.ts';
import { allPids, commandLine, onlyChild, signalPid, untilGone } from './processes.ts';
import { checkOptions, DEFAULT_PRIVATE_DIRS, LAB_PATH, whyNoHostLab } from './requirements.ts';
import { LabSwitch } from './switch.ts';
import type {
  ExecOptions,
  ExecResult,
  HostLab,
  HostLabDeps,
  HostLabOptions,
  HostProcess,
  InterfaceCounters,
  SpawnOptions,
} from './types.ts';
import { HostLabError } from './types.ts';

/** Marks a directory as ours, so that `down` never removes somebody else's. */
const MARKER = '.taskorg-hosts';
/** Engines and agents use inotify freely; Debian's default of 128 instances is for one machine, not for twenty. */
const INOTIFY_INSTANCES = 4096;

/**
 * N hosts on this machine. A host is a network namespace on a switch, and pid, mount, uts and ipc namespaces under one
 * pid 1, so that one SIGKILL is a power cut; an own /run, $HOME and copy-on-write /etc and /var/lib; a cgroup subtree;
 * and, if wanted, an own Docker Engine on the default socket. The rest of the file system (programs, /tmp) is shared.
 * What it cannot show: the page cache survives `kill`, so unsynced writes are not lost, and all hosts share one clock;
 * delay and loss on the wires are not offered here. Needs root.
 */
export function createHostLab(options: HostLabOptions, deps: HostLabDeps = {}): HostLab {
  return new Lab(options, deps);
}

class Lab implements HostLab {
  readonly size: number;
  readonly homeInside = HOME_INSIDE;
  readonly #options: HostLabOptions;
  readonly #log: (message: string) => void;
  readonly #net: string;
  readonly #switch: LabSwitch;
  readonly #engine: LabEngine;
  readonly #inits = new Map<number, number>();
  readonly #booting = new Set<number>();
  #cgroupTree: LabCgroups | undefined;

  constructor(options: HostLabOptions, deps: HostLabDeps) {
    const { net, containerNet } = checkOptions(options);
    this.size = options.hosts;
    this.#options = options;
    this.#log = deps.log ?? (() => {});
    this.#net = net;
    this.#switch = new LabSwitch(options.prefix, net);
    this.#engine = new LabEngine(this, {
      containerNet,
      args: options.engineArgs ?? [],
      cgroupParent: (host) => this.#cgroups.containerParent(host),
    });
  }

  /** Made on first use: without root or cgroups, `up` has the better words. */
  get #cgroups(): LabCgroups {
    this.#cgroupTree ??= new LabCgroups(this.#options.prefix);
    return this.#cgroupTree;
  }

  async up(): Promise<void> {
    const why = whyNoHostLab(this.#options.docker);
    if (why) throw why;
    await this.down();
    mkdirSync(this.#options.dir, { recursive: true });
    writeFileSync(join(this.#options.dir, MARKER), `${this.#options.prefix}\n`);
    raiseInotifyLimit();
    await this.#switch.create();
    const started = Date.now();
    const results = await Promise.allSettled(this.#all().map((host) => this.#boot(host)));
    const failed = results.find((result) => result.status === 'rejected');
    if (failed) {
      await this.down();
      throw failed.reason;
    }
    this.#log(`${this.size} hosts up in ${Date.now() - started} ms`);
  }

  async down(): Promise<void> {
    if (process.platform !== 'linux' || process.getuid?.() !== 0) return; // nothing can have been made
    const inits = this.#findInits();
    for (const host of this.#cgroups.hostsPresent()) await this.#thawQuietly(host);
    for (const pid of inits) signalPid(pid, 'SIGKILL');
    for (const pid of inits) await untilGone(pid);
    // What lived outside the pid namespaces in our cgroups: the programs that were entering a host.
    for (const pid of this.#cgroups.allPids()) if (pid !== process.pid) signalPid(pid, 'SIGKILL');
    this.#inits.clear();
    await this.#switch.removeAll();
    await this.#cgroups.removeAll();
    const marker = join(this.#options.dir, MARKER);
    if (existsSync(marker)) rmSync(this.#options.dir, { recursive: true, force: true });
  }

  isUp(host: number): boolean {
    const pid = this.#inits.get(host);
    return pid !== undefined && this.#isInit(pid, host);
  }

  async exec(host: number, command: readonly string[], options: ExecOptions = {}): Promise<ExecResult> {
    return await runCommand(this.#enter(host, command, options.cwd), this.#commandOptions(host, options));
  }

  async run(host: number, command: readonly string[], options: ExecOptions = {}): Promise<string> {
    const result = await this.exec(host, command, options);
    if (result.code === 0) return result.stdout;
    throw new HostLabError(
      'failed',
      `${this.hostname(host)}: \`${command.join(' ')}\` ended with ${result.code}: ${(result.stderr || result.stdout).trim().slice(-2000)}`,
    );
  }

  async spawn(
    host: number,
    name: string,
    command: readonly string[],
    options: SpawnOptions = {},
  ): Promise<HostProcess> {
    const logFile = join(this.paths(host).log, name);
    const [program = 'sh', ...args] = this.#enter(host, command, options.cwd);
    const log = openSync(logFile, 'a');
    const env = { ...this.#environment(host), ...options.env, TASKORG_SPAWNED: '1' };
    const child = spawn(program, args, { detached: true, stdio: ['ignore', log, log, 'pipe'], env });
    closeSync(log);
    const exited = new Promise<{ code: number | null; signal: NodeJS.Signals | null }>((resolve, reject) => {
      child.on('error', reject);
      child.on('exit', (code, signal) => resolve({ code, signal }));
    });
    exited.catch(() => {});
    await Promise.race([firstData(child.stdio[3] as NodeJS.ReadableStream), exited]);
    const pid = child.pid === undefined ? undefined : onlyChild(child.pid);
    if (pid === undefined) {
      const end = await exited;
      throw new HostLabError(
        'failed',
        `${this.hostname(host)}: \`${command.join(' ')}\` did not start (${end.code ?? end.signal}); see ${logFile}: ${tail(logFile)}`,
      );
    }
    child.unref();
    return { host, name, pid, logFile, exited, kill: (signal = 'SIGTERM') => void signalPid(pid, signal) };
  }

  async kill(host: number): Promise<number> {
    const pid = this.initPid(host);
    await this.#switch.unplug(host);
    const at = Date.now();
    await this.#thawQuietly(host); // on v1 a frozen process does not die
    signalPid(pid, 'SIGKILL');
    await untilGone(pid);
    this.#inits.delete(host);
    await this.#switch.removeHost(host);
    await this.#cgroups.remove(host);
    return at;
  }

  async start(host: number): Promise<void> {
    this.#check(host);
    if (this.isUp(host) || this.#booting.has(host))
      throw new HostLabError('host_up', `${this.hostname(host)} is up already`);
    await this.#switch.removeHost(host);
    await this.#boot(host);
  }

  async wipe(host: number): Promise<void> {
    this.#check(host);
    if (this.isUp(host))
      throw new HostLabError('host_up', `${this.hostname(host)} is up: kill it before its disk is wiped`);
    rmSync(this.#dir(host), { recursive: true, force: true });
  }

  async cut(host: number): Promise<number> {
    this.initPid(host);
    await this.#switch.unplug(host);
    return Date.now();
  }

  async heal(host?: number): Promise<number> {
    await this.#switch.plug(host === undefined ? this.#all().filter((one) => this.isUp(one)) : [host]);
    return Date.now();
  }

  async partition(groups: readonly (readonly number[])[]): Promise<number> {
    const named = groups.flat();
    if (new Set(named).size !== named.length)
      throw new HostLabError('bad_option', 'partition: a host is in two groups');
    for (const host of named) this.#check(host);
    const up = (host: number): boolean => this.isUp(host);
    await this.#switch.partition(
      groups.map((group) => group.filter(up)),
      this.#all().filter((host) => up(host) && !named.includes(host)),
    );
    return Date.now();
  }

  async block(host: number, from: number): Promise<number> {
    return await this.#firewall('-I', host, from);
  }

  async unblock(host: number, from: number): Promise<number> {
    return await this.#firewall('-D', host, from);
  }

  async freeze(host: number): Promise<number> {
    this.initPid(host);
    await this.#cgroups.freeze(host, true);
    return Date.now();
  }

  async thaw(host: number): Promise<number> {
    this.initPid(host);
    await this.#cgroups.freeze(host, false);
    return Date.now();
  }

  async dockerd(host: number, action: 'kill' | 'stop' | 'start'): Promise<number> {
    if (action === 'start') return await this.#engine.start(host);
    return await this.#engine.end(host, action === 'kill' ? 'SIGKILL' : 'SIGTERM');
  }

  async limit(host: number, cpus: number | null, memoryMiB: number | null): Promise<void> {
    this.initPid(host);
    this.#cgroups.limit(host, cpus, memoryMiB);
  }

  async loadImage(host: number, tar: string | Buffer): Promise<void> {
    this.initPid(host);
    const engine = new EngineApi(this.socketPath(host));
    try {
      await engine.load(typeof tar === 'string' ? await readFile(tar) : tar);
    } finally {
      engine.close();
    }
  }

  socketPath(host: number): string {
    return join(this.#dir(host), 'run', 'docker.sock');
  }

  address(host: number): string {
    return `${this.#net}.${host}`;
  }

  hostname(host: number): string {
    return `${this.#options.prefix}-${host}`;
  }

  paths(host: number): { readonly home: string; readonly run: string; readonly log: string } {
    const dir = this.#dir(host);
    return { home: join(dir, 'home'), run: join(dir, 'run'), log: join(dir, 'log') };
  }

  pids(host: number): readonly number[] {
    return this.#cgroups.pids(host, 'sys').filter((pid) => commandLine(pid)[0] !== 'nsenter');
  }

  initPid(host: number): number {
    this.#check(host);
    const pid = this.#inits.get(host);
    if (pid === undefined || !this.#isInit(pid, host))
      throw new HostLabError('host_down', `${this.hostname(host)} is down: start it first`);
    return pid;
  }

  cpuSeconds(host: number): { readonly daemons: number; readonly containers: number } {
    return { daemons: this.#cgroups.cpuSeconds(host, 'sys'), containers: this.#cgroups.cpuSeconds(host, 'ct') };
  }

  counters(host: number): InterfaceCounters {
    const line = readFileSync(`/proc/${this.initPid(host)}/net/dev`, 'utf8')
      .split('\n')
      .find((one) => one.trim().startsWith('eth0:'));
    const numbers = (line ?? '').split(':')[1]?.trim().split(/\s+/).map(Number) ?? [];
    return {
      rxBytes: numbers[0] ?? 0,
      rxPackets: numbers[1] ?? 0,
      txBytes: numbers[8] ?? 0,
      txPackets: numbers[9] ?? 0,
    };
  }

  async #boot(host: number): Promise<void> {
    this.#booting.add(host);
    try {
      layDisk(this.#birth(host));
      this.#cgroups.create(host);
      this.#cgroups.weigh(this.size);
      await this.#switch.addHost(host);
      await this.#switch.plug([host]);
      this.#inits.set(host, await startInit(this.#birth(host)));
      if (this.#options.docker) await this.#engine.start(host);
    } finally {
      this.#booting.delete(host);
    }
  }

  #birth(host: number): HostBirth {
    return {
      tag: initTag(this.#options.prefix, host),
      dir: this.#dir(host),
      namespace: this.#switch.namespace(host),
      hostname: this.hostname(host),
      address: this.address(host),
      known: this.#all().map((one) => ({ address: this.address(one), hostname: this.hostname(one) })),
      privateDirs: this.#options.privateDirs ?? DEFAULT_PRIVATE_DIRS,
    };
  }

  #enter(host: number, command: readonly string[], cwd: string | undefined): string[] {
    const pid = this.initPid(host);
    return [
      'sh',
      '-c',
      ENTER_SCRIPT,
      String(pid),
      ...this.#cgroups.procsFiles(host),
      '--',
      cwd ?? process.cwd(),
      ...command,
    ];
  }

  #environment(host: number): NodeJS.ProcessEnv {
    const { DOCKER_HOST: _outside, ...env } = process.env;
    return {
      ...env,
      PATH: LAB_PATH,
      HOME: HOME_INSIDE,
      HOSTNAME: this.hostname(host),
      HOST_ADDRESS: this.address(host),
    };
  }

  #commandOptions(host: number, options: ExecOptions): CommandOptions {
    const { cwd: _inside, env, ...rest } = options;
    return { ...rest, env: { ...this.#environment(host), ...env } };
  }

  async #firewall(action: '-I' | '-D', host: number, from: number): Promise<number> {
    this.#check(from);
    await mustRun(
      this.#enter(
        host,
        ['iptables', '-w', '-t', 'raw', action, 'PREROUTING', '-s', this.address(from), '-j', 'DROP'],
        '/',
      ),
      this.#commandOptions(host, {}),
    );
    return Date.now();
  }

  #findInits(): number[] {
    const start = `taskorg-host:${this.#options.prefix}:`;
    return allPids().filter((pid) => {
      const line = commandLine(pid);
      // `sh -c SCRIPT TAG ...` is pid 1 itself; nsenter and unshare, which carry the tag further on, end with it
      return line[0] === 'sh' && line[3]?.startsWith(start) === true;
    });
  }

  #isInit(pid: number, host: number): boolean {
    return commandLine(pid)[3] === initTag(this.#options.prefix, host);
  }

  async #thawQuietly(host: number): Promise<void> {
    try {
      await this.#cgroups.freeze(host, false);
    } catch {
      // its cgroup is gone already
    }
  }

  #dir(host: number): string {
    return join(this.#options.dir, String(host));
  }

  #all(): number[] {
    return Array.from({ length: this.size }, (_, index) => index + 1);
  }

  #check(host: number): void {
    if (!Number.isInteger(host) || host < 1 || host > this.size)
      throw new HostLabError('bad_option', `no host ${host}: hosts are 1 to ${this.size}`);
  }
}

function raiseInotifyLimit(): void {
  const path = '/proc/sys/fs/inotify/max_user_instances';
  if (Number(readFileSync(path, 'utf8')) < INOTIFY_INSTANCES) writeFileSync(path, String(INOTIFY_INSTANCES));
}

// Words of the host lab: N real hosts on one Linux machine.

export interface HostLabOptions {
  /** Hosts 1..hosts. At most 250. */
  readonly hosts: number;
  /** All state (disks, logs, sockets). On a file system that overlayfs accepts as upper layer (ext4, xfs, btrfs). */
  readonly dir: string;
  /** Names of namespaces, cgroups and machines: `PREFIX-1`, ... Labs with different prefix, dir and subnet do not see each other. */
  readonly prefix: string;
  /** A /24 of the hosts, e.g. `10.44.0.0/24`; host i is `.i`. */
  readonly subnet: string;
  /** True: every host has its own Docker Engine on the default socket path. */
  readonly docker: boolean;
  /** A /16 for the containers' bridges: host i has `A.B.i.1/24`. Default: the hosts' second octet plus one. */
  readonly containerSubnet?: string;
  /** More arguments for dockerd, e.g. `--experimental`. */
  readonly engineArgs?: readonly string[];
  /** Copy-on-write directories of each host, kept over kill and start. Default /etc and /var/lib. */
  readonly privateDirs?: readonly string[];
}

export interface HostLabDeps {
  /** Told what goes on, one line each. */
  readonly log?: (message: string) => void;
}

export interface ExecOptions {
  /** Default: the caller's own, if it exists inside the host. */
  readonly cwd?: string;
  readonly env?: Readonly<Record<string, string>>;
  readonly input?: string | Buffer;
  /** SIGKILL after this many milliseconds. Default 60 s. */
  readonly timeoutMs?: number;
  readonly signal?: AbortSignal;
}
export interface ExecResult {
  /** 128 + signal when a signal ended it. */
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}
export interface SpawnOptions {
  readonly cwd?: string;
  readonly env?: Readonly<Record<string, string>>;
}
export interface HostProcess {
  readonly host: number;
  readonly name: string;
  /** As seen from outside the host. */
  readonly pid: number;
  readonly logFile: string;
  readonly exited: Promise<{ readonly code: number | null; readonly signal: NodeJS.Signals | null }>;
  kill(signal?: NodeJS.Signals): void;
}

export interface InterfaceCounters {
  readonly rxBytes: number;
  readonly rxPackets: number;
  readonly txBytes: number;
  readonly txPackets: number;
}

/** N hosts on one Linux machine. Hosts are numbered from 1. Every method throws HostLabError with what to do next. */
export interface HostLab {
  readonly size: number;
  /** Removes what an earlier run with this prefix left behind, then brings every host up, in parallel. */
  up(): Promise<void>;
  /** Removes everything. Idempotent. */
  down(): Promise<void>;
  isUp(host: number): boolean;
  exec(host: number, command: readonly string[], options?: ExecOptions): Promise<ExecResult>;
  /** Like exec, but a non-zero code throws with the command's own words; returns stdout. */
  run(host: number, command: readonly string[], options?: ExecOptions): Promise<string>;
  /** Starts a background process; its output is appended to `logFile`. Resolves once it runs. */
  spawn(host: number, name: string, command: readonly string[], options?: SpawnOptions): Promise<HostProcess>;
  /** Power cut: the port is unplugged first, so that no FIN or RST leaves; then everything dies. Returns epoch ms of the cut. */
  kill(host: number): Promise<number>;
  /** Boots a killed host on the same disk; /run is cleared. */
  start(host: number): Promise<void>;
  /** Forgets a killed host's disk. */
  wipe(host: number): Promise<void>;
  /** Silence: carrier stays up, nothing passes. Returns epoch ms. */
  cut(host: number): Promise<number>;
  /** One host, or everybody, back on the one switch. Returns epoch ms. */
  heal(host?: number): Promise<number>;
  /** Groups on separate switches, within a millisecond; hosts in no group are alone. Returns epoch ms. */
  partition(groups: readonly (readonly number[])[]): Promise<number>;
  /** One direction: `host` hears nothing from `from`. */
  block(host: number, from: number): Promise<number>;
  unblock(host: number, from: number): Promise<number>;
  /** Every process suspended (VM pause, long GC); the host's kernel still answers ping and ACKs TCP. */
  freeze(host: number): Promise<number>;
  thaw(host: number): Promise<number>;
  /** The engine alone. After `kill` its containers live on; `start` then stops them (no live-restore). */
  dockerd(host: number, action: 'kill' | 'stop' | 'start'): Promise<number>;
  /** CPU bandwidth in cores and memory in MiB of the whole host; null = unlimited. */
  limit(host: number, cpus: number | null, memoryMiB: number | null): Promise<void>;
  /** `docker load` of a tar (path or bytes). */
  loadImage(host: number, tar: string | Buffer): Promise<void>;
  /** The host's Docker socket as reachable from outside its network. */
  socketPath(host: number): string;
  address(host: number): string;
  hostname(host: number): string;
  /** The host's disk and /run from outside: `home` is $HOME inside. */
  paths(host: number): { readonly home: string; readonly run: string; readonly log: string };
  /** $HOME as the host's own processes see it. */
  readonly homeInside: string;
  /** Outside pids of everything the lab started in the host (not containers), pid 1 excluded. */
  pids(host: number): readonly number[];
  /** Outside pid of the host's pid 1. Throws when the host is down. */
  initPid(host: number): number;
  /** CPU seconds used so far: daemons and containers apart. */
  cpuSeconds(host: number): { readonly daemons: number; readonly containers: number };
  /** Counters of eth0 inside the host. */
  counters(host: number): InterfaceCounters;
}

export type HostLabErrorCode =
  | 'not_root'
  | 'not_linux'
  | 'missing_tool'
  | 'bad_option'
  | 'host_down'
  | 'host_up'
  | 'failed';

export class HostLabError extends Error {
  readonly code: HostLabErrorCode;
  constructor(code: HostLabErrorCode, message: string, cause?: unknown) {
    super(message, cause === undefined ? undefined : { cause });
    this.name = 'HostLabError';
    this.code = code;
  }
}

import { existsSync, mkdirSync, readdirSync, readFileSync, realpathSync, rmdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { HostLabError } from './types.ts';

/** v1 hierarchies worth a subtree. `systemd`'s own is left alone; `unified` is the v2 tree of a hybrid machine. */
const V1_NAMES = ['cpu', 'cpuacct', 'memory', 'freezer', 'pids', 'blkio', 'devices', 'cpuset', 'unified'];
const V2_CONTROLLERS = ['cpu', 'cpuset', 'io', 'memory', 'pids'];
const CPU_PERIOD_US = 100_000;
/** The kernel's own weights of one process, or one group, beside others: v1 and v2, and the most there is. */
const SHARES = {
  v1: { file: 'cpu.shares', one: 1024, most: 262_144 },
  v2: { file: 'cpu.weight', one: 100, most: 10_000 },
};
/** A host is several busy processes. */
const WEIGHT_OF_HOST = 4;
const REMOVE_TIMEOUT_MS = 5_000;
const FREEZE_TIMEOUT_MS = 5_000;

/**
 * The lab's cgroup subtree `/PREFIX/I`, with `sys` for daemons and agents and `ct` for containers, in every hierarchy
 * of cgroup v1, or in the one of v2 (where only leaves hold processes).
 */
export class LabCgroups {
  readonly #prefix: string;
  readonly #roots: readonly string[];
  /** Also hierarchies where we made nothing: runc makes the containers' groups in every one, `systemd`'s too. */
  readonly #removalRoots: readonly string[];
  readonly #v2: boolean;
  readonly #mount: string;

  constructor(prefix: string, mount = '/sys/fs/cgroup') {
    this.#prefix = prefix;
    this.#mount = mount;
    this.#v2 = existsSync(join(mount, 'cgroup.controllers'));
    const candidates = this.#v2 ? [mount] : V1_NAMES.map((name) => join(mount, name));
    this.#roots = [
      ...new Set(candidates.filter((root) => existsSync(join(root, 'cgroup.procs'))).map((root) => realpathSync(root))),
    ];
    const every = this.#v2 ? [mount] : subdirs(mount).map((name) => join(mount, name));
    this.#removalRoots = [...new Set(every.map((root) => realpathSync(root)))];
    if (this.#roots.length === 0)
      throw new HostLabError(
        'failed',
        `no cgroups at ${mount}: mount them (on Debian: apt-get install cgroupfs-mount, or boot with systemd)`,
      );
  }

  create(host: number): void {
    const levels = [
      this.#prefix,
      `${this.#prefix}/${host}`,
      `${this.#prefix}/${host}/sys`,
      `${this.#prefix}/${host}/ct`,
    ];
    for (const root of this.#roots) {
      if (this.#v2) delegate(root);
      for (const level of levels) {
        const path = join(root, level);
        mkdirSync(path, { recursive: true });
        if (this.#v2 && !level.endsWith('/sys') && !level.endsWith('/ct')) delegate(path);
        if (!this.#v2 && existsSync(join(path, 'cpuset.cpus'))) inheritCpuset(path);
      }
    }
  }

  /** All hosts together would weigh as much as one process of this machine: they get the weight of so many machines. */
  weigh(hosts: number): void {
    const { file, one, most } = this.#v2 ? SHARES.v2 : SHARES.v1;
    const path = join(this.#v2 ? this.#mount : join(this.#mount, 'cpu'), this.#prefix, file);
    if (existsSync(path)) writeFileSync(path, String(Math.min(most, WEIGHT_OF_HOST * hosts * one)));
  }

  /** Files to write a pid to, so that the process belongs to the host. */
  procsFiles(host: number): readonly string[] {
    return this.#roots.map((root) => join(root, this.#prefix, String(host), 'sys', 'cgroup.procs'));
  }

  /** Path under the cgroup root for the engine's `--cgroup-parent`. */
  containerParent(host: number): string {
    return `/${this.#prefix}/${host}/ct`;
  }

  pids(host: number, group: 'sys' | 'ct' | ''): readonly number[] {
    const root = this.#roots.find((path) => path.endsWith('/pids')) ?? this.#roots[0] ?? '';
    return pidsBelow(join(root, this.#prefix, String(host), group));
  }

  /** Everything of this prefix, whichever host: for the remains of an earlier run. */
  allPids(): readonly number[] {
    return [...new Set(this.#roots.flatMap((root) => pidsBelow(join(root, this.#prefix))))];
  }

  hostsPresent(): readonly number[] {
    const seen = new Set<number>();
    for (const root of this.#roots)
      for (const name of subdirs(join(root, this.#prefix))) if (/^\d+$/.test(name)) seen.add(Number(name));
    return [...seen];
  }

  /** Resolves when every process of the host stands still, or may run again. Throws where there is no freezer. */
  async freeze(host: number, frozen: boolean): Promise<void> {
    const dir = `${this.#prefix}/${host}`;
    const v1 = join(this.#mount, 'freezer', dir, 'freezer.state');
    const v2 = join(this.#v2 ? this.#mount : join(this.#mount, 'unified'), dir);
    const old = existsSync(v1);
    if (!old && !existsSync(join(v2, 'cgroup.freeze'))) {
      throw new HostLabError('failed', `cannot freeze host ${host}: no cgroup freezer on this machine`);
    }
    if (old) writeFileSync(v1, frozen ? 'FROZEN' : 'THAWED');
    else writeFileSync(join(v2, 'cgroup.freeze'), frozen ? '1' : '0');
    // Both kernels answer before the last process has stopped.
    const done = (): boolean =>
      old
        ? readFileSync(v1, 'utf8').trim() === (frozen ? 'FROZEN' : 'THAWED')
        : readFileSync(join(v2, 'cgroup.events'), 'utf8').includes(`frozen ${frozen ? 1 : 0}`);
    for (const deadline = Date.now() + FREEZE_TIMEOUT_MS; !done(); await delay(1)) {
      if (Date.now() > deadline)
        throw new HostLabError('failed', `host ${host} does not ${frozen ? 'freeze' : 'thaw'}`);
    }
  }

  limit(host: number, cpus: number | null, memoryMiB: number | null): void {
    const dir = `${this.#prefix}/${host}`;
    const quota = cpus === null ? null : Math.round(cpus * CPU_PERIOD_US);
    const bytes = memoryMiB === null ? null : Math.round(memoryMiB * 1024 * 1024);
    if (this.#v2) {
      writeFileSync(join(this.#mount, dir, 'cpu.max'), `${quota ?? 'max'} ${CPU_PERIOD_US}`);
      writeFileSync(join(this.#mount, dir, 'memory.max'), String(bytes ?? 'max'));
      return;
    }
    writeFileSync(join(this.#mount, 'cpu', dir, 'cpu.cfs_period_us'), String(CPU_PERIOD_US));
    writeFileSync(join(this.#mount, 'cpu', dir, 'cpu.cfs_quota_us'), String(quota ?? -1));
    writeFileSync(join(this.#mount, 'memory', dir, 'memory.limit_in_bytes'), String(bytes ?? -1));
  }

  cpuSeconds(host: number, group: 'sys' | 'ct'): number {
    const dir = join(this.#prefix, String(host), group);
    if (this.#v2)
      return (
        Number(/^usage_usec (\d+)/m.exec(readFileSync(join(this.#mount, dir, 'cpu.stat'), 'utf8'))?.[1] ?? 0) / 1e6
      );
    return Number(readFileSync(join(this.#mount, 'cpuacct', dir, 'cpuacct.usage'), 'utf8')) / 1e9;
  }

  async remove(host: number): Promise<void> {
    await this.#removeTree(join(this.#prefix, String(host)));
  }

  async removeAll(): Promise<void> {
    await this.#removeTree(this.#prefix);
  }

  /** A cgroup goes away only when its last process is reaped, so a busy one is tried again for a while. */
  async #removeTree(relative: string): Promise<void> {
    const deadline = Date.now() + REMOVE_TIMEOUT_MS;
    for (const root of this.#removalRoots) {
      while (!removeDepthFirst(join(root, relative))) {
        if (Date.now() > deadline) {
          const pids = pidsBelow(join(root, relative));
          throw new HostLabError(
            'failed',
            `cgroup ${join(root, relative)} is still in use by ${pids.map(describePid).join('; ') || 'nobody'}`,
          );
        }
        await delay(5);
      }
    }
  }
}

function delegate(path: string): void {
  const file = join(path, 'cgroup.subtree_control');
  const available = readFileSync(join(path, 'cgroup.controllers'), 'utf8').trim().split(' ');
  for (const controller of V2_CONTROLLERS) if (available.includes(controller)) writeFileSync(file, `+${controller}`);
}

/** v1 cpusets start empty, and a process cannot enter an empty one. */
function inheritCpuset(path: string): void {
  for (const name of ['cpuset.cpus', 'cpuset.mems']) {
    if (readFileSync(join(path, name), 'utf8').trim() === '')
      writeFileSync(join(path, name), readFileSync(join(path, '..', name), 'utf8'));
  }
}

function subdirs(path: string): readonly string[] {
  try {
    return readdirSync(path, { withFileTypes: true })
      .filter((entry) => entry.isDirectory())
      .map((entry) => entry.name);
  } catch {
    return [];
  }
}

function pidsBelow(path: string): number[] {
  let own: number[] = [];
  try {
    own = readFileSync(join(path, 'cgroup.procs'), 'utf8').split('\n').map(Number);
  } catch {
    // gone, or a threaded cgroup
  }
  // pid 0 = a process of another pid namespace, which we cannot name
  return [...own.filter((pid) => pid > 0), ...subdirs(path).flatMap((name) => pidsBelow(join(path, name)))];
}

function removeDepthFirst(path: string): boolean {
  const children = subdirs(path).map((name) => removeDepthFirst(join(path, name)));
  if (children.includes(false)) return false;
  try {
    rmdirSync(path);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'ENOENT';
  }
}

function describePid(pid: number): string {
  try {
    return `${pid} ${readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ').slice(0, 80)}`;
  } catch {
    return String(pid);
  }
}

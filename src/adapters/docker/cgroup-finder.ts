import { existsSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import type { KillTarget } from '../../ports/runtime.ts';
import { type CgroupMount, cgroupMounts, cgroupsOf, directoryOf } from '../process/cgroup-fs.ts';

// Where a container's processes will stand. Boot must know it before any of them runs, but the engine's API does not
// tell the parent group (`--cgroup-parent`), so it is learned from the first container seen to run; until then the
// usual places are named, and whoever kills looks for the container's id in the whole tree when it is in none of them.

/** v1 hierarchies that are read: the freezer stops forks while killing, pids lists what is left. */
const V1 = ['freezer', 'pids', 'memory'];

export class CgroupFinder {
  readonly #mounts: readonly CgroupMount[];
  /** Parent group by hierarchy, learned: `v2` or v1 controller -> path inside it. */
  #parents: ReadonlyMap<string, string> | undefined;
  #systemd = false;

  constructor(mounts: readonly CgroupMount[] = cgroupMounts()) {
    const v1 = V1.map((name) => mounts.find((m) => m.controllers.includes(name))).filter((m) => m !== undefined);
    // Two v1 hierarchies are enough; v2 stands beside them on hybrid machines.
    this.#mounts = [...mounts.filter((m) => m.v2), ...new Set(v1)].slice(0, 3);
  }

  get learned(): boolean {
    return this.#parents !== undefined;
  }

  /** `driver`: the engine's CgroupDriver, `systemd` or `cgroupfs`. */
  setDriver(driver: string): void {
    this.#systemd = driver === 'systemd';
  }

  /** Directories of a container that need not run yet. */
  candidates(id: string): string[] {
    const group = this.#systemd ? `docker-${id}.scope` : id;
    const usual = this.#systemd ? ['/system.slice'] : ['/docker'];
    if (this.#mounts.length === 0) return [join('/sys/fs/cgroup', usual[0] ?? '', group)];
    return this.#mounts.flatMap((mount) => {
      const parents = this.#parents ? [this.#parents.get(hierarchy(mount))].filter((p) => p !== undefined) : usual;
      return parents.map((parent) => directoryOf(mount, join(parent, group))).filter((dir) => dir !== undefined);
    });
  }

  /** Directories of a container that runs as `pid`; undefined when they cannot be seen from here, or it has ended. */
  exact(id: string, pid: number): string[] | undefined {
    const groups = pid > 0 ? cgroupsOf(pid) : undefined;
    if (groups === undefined) return undefined;
    const found = this.#mounts.flatMap((mount) => {
      const key = hierarchy(mount);
      const group = groups.get(key);
      // The engine's pid may be another process here (its own pid namespace): the id in the group's name tells.
      if (group === undefined || !basename(group).includes(id)) return [];
      const dir = directoryOf(mount, group);
      return dir !== undefined && existsSync(dir) ? [{ key, parent: dirname(group), dir }] : [];
    });
    if (found.length === 0) return undefined;
    this.#parents = new Map(found.map((f) => [f.key, f.parent]));
    this.#systemd = found.some((f) => f.dir.endsWith('.scope'));
    return found.map((f) => f.dir);
  }
}

export const killTargetOf = (paths: readonly string[]): KillTarget => ({ type: 'cgroup', paths });

/** Whether `pid` is a process of the container. */
export function isInContainer(id: string, pid: number): boolean {
  return pid > 0 && [...(cgroupsOf(pid)?.values() ?? [])].some((group) => group.includes(id));
}

function hierarchy(mount: CgroupMount): string {
  return mount.v2 ? 'v2' : (V1.find((name) => mount.controllers.includes(name)) ?? '');
}

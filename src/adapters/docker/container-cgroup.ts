import { existsSync } from 'node:fs';
import { join } from 'node:path';
import type { KillTarget } from '../../model/boot-protocol.ts';
import { cgroupMounts, cgroupsOf, directoryOf } from '../process/cgroup-fs.ts';

// Where the engine puts a container's cgroup, so that boot can kill it while the engine does not answer. The parent group
// is the daemon's setting, which the API does not tell: it is learnt from the first container that runs. Until then the
// default is named, and killTarget looks for a container's id wherever it stands.

export interface EngineCgroup {
  readonly driver: 'cgroupfs' | 'systemd';
}

export class ContainerCgroups {
  readonly #driver: EngineCgroup['driver'];
  /** Parent by hierarchy (`v2` or a v1 controller), as learnt. */
  #parents: ReadonlyMap<string, string> | undefined;

  constructor(driver: string) {
    this.#driver = driver === 'systemd' ? 'systemd' : 'cgroupfs';
  }

  /** Whether the parent is known for certain, and is not only the default. */
  get learnt(): boolean {
    return this.#parents !== undefined;
  }

  /** Directories of a container, whether or not they exist yet: v2 (also the one of a hybrid machine), freezer, pids. */
  target(containerId: string): KillTarget {
    const parent = this.#driver === 'systemd' ? '/system.slice' : '/docker';
    const leaf = this.#driver === 'systemd' ? `docker-${containerId}.scope` : containerId;
    const paths: string[] = [];
    for (const mount of killMounts()) {
      const group = join(this.#parents?.get(mount.key) ?? parent, leaf);
      const dir = directoryOf(mount.mount, group);
      if (dir !== undefined) paths.push(dir);
    }
    return { type: 'cgroup', paths };
  }

  /** Reads the groups of a container's first process; true when they were other than what `target` had said. */
  learn(containerId: string, pid: number): boolean {
    const groups = cgroupsOf(pid);
    if (!groups) return false;
    const parents = new Map<string, string>();
    for (const { key } of killMounts()) {
      const group = groups.get(key);
      const at = group?.lastIndexOf(`/`) ?? -1;
      // In another pid namespace the number may name somebody else: only a group of this container counts.
      if (group !== undefined && at >= 0 && group.slice(at).includes(containerId))
        parents.set(key, group.slice(0, at) || '/');
    }
    if (parents.size === 0) return false;
    const before = this.target(containerId);
    this.#parents = parents;
    const after = this.target(containerId);
    return JSON.stringify(before) !== JSON.stringify(after);
  }
}

/** Whether a directory of the target stands: then its paths are right. */
export const targetStands = (target: KillTarget): boolean =>
  target.type === 'cgroup' && target.paths.some((path) => existsSync(path));

function killMounts(): { key: string; mount: ReturnType<typeof cgroupMounts>[number] }[] {
  const found: { key: string; mount: ReturnType<typeof cgroupMounts>[number] }[] = [];
  for (const mount of cgroupMounts()) {
    if (mount.v2) found.unshift({ key: 'v2', mount });
    else for (const key of ['freezer', 'pids']) if (mount.controllers.includes(key)) found.push({ key, mount });
  }
  return found;
}

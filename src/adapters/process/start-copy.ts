import { mkdirSync, statSync } from 'node:fs';
import type { CopyId, DesiredCopy, ObservedCopy } from '../../core/reconcile/types.ts';
import type { Log } from '../../ports/log.ts';
import type { KillTarget } from '../../ports/runtime.ts';
import { type CopyCgroup, createCopyCgroup, enterCgroup, removeCgroup } from './copy-cgroup.ts';
import { type CopyRecord, writeRecord } from './copy-record.ts';
import type { CpuPins } from './cpu-pins.ts';
import type { HostPorts } from './host-ports.ts';
import { killTarget } from './kill-target.ts';
import { type Launched, launchCopy } from './launcher.ts';
import { bootId, readProcStat } from './proc-fs.ts';
import { targetOf } from './process-copy.ts';
import { resolveUser } from './users.ts';
import { prepareSurroundings } from './work-directory.ts';

export interface StartRoom {
  readonly dataDir: string;
  /** Name of the cgroup above those of the copies. */
  readonly groupParent: string;
  readonly pins: CpuPins;
  readonly ports: HostPorts;
  readonly log: Log;
}

export interface StartedCopy extends Launched {
  readonly record: CopyRecord;
}

/**
 * Brings a copy up to its closed gate: directories, ports, cgroup, launcher, record, then `register`. None of the user's
 * code has run when it resolves; the caller opens the gate. When it throws, nothing of it is left running or held.
 */
export async function startCopy(
  room: StartRoom,
  dir: string,
  copyId: CopyId,
  desired: DesiredCopy,
  formerPorts: ObservedCopy['ports'],
  register: (how: KillTarget) => Promise<void>,
  signal: AbortSignal,
): Promise<StartedCopy> {
  const { spec } = desired;
  let group: CopyCgroup | undefined;
  let target: KillTarget | undefined;
  try {
    mkdirSync(dir, { recursive: true, mode: 0o700 });
    const user = resolveUser(spec.user);
    const ports = await room.ports.choose(copyId, desired, formerPorts);
    const around = prepareSurroundings(room.dataDir, desired, ports, user);
    if (user.uid !== null && (statSync(room.dataDir).mode & 0o001) === 0)
      room.log.warn(
        { copyId, user: spec.user },
        'user of the task may not pass through the data directory: only relative paths work',
      );
    const pins = room.pins.take(copyId, spec.cpus);
    group = createCopyCgroup(room.groupParent, copyId, { cpus: spec.cpus, pins, memoryBytes: spec.memoryBytes });
    signal.throwIfAborted();
    const launched = await launchCopy(dir, { argv: [...spec.command, ...spec.args], ...around, ...user });
    const startTicks = readProcStat(launched.pid)?.startTicks ?? 0;
    target = { type: 'process-group', pgid: launched.pid, startTicks };
    const record: CopyRecord = {
      version: 1,
      copyId,
      memoryBytes: spec.memoryBytes,
      pid: launched.pid,
      startTicks,
      bootId: bootId(),
      startedAt: Date.now(),
      ports: [...ports],
      env: { ...around.env },
      cwd: around.cwd,
      ...user,
      cgroupDirs: [...(group?.dirs ?? [])],
      killPaths: [...(group?.killPaths ?? [])],
      pins: pins ?? '',
    };
    // The launcher stands in its cgroup before that is registered: a kill from then on cannot miss it.
    const [entered] = await Promise.all([enter(room, group, copyId, launched.pid), writeRecord(dir, record)]);
    if (!entered && record.killPaths.length > 0) {
      record.killPaths = [];
      await writeRecord(dir, record);
    }
    const unmet = entered ? (group?.unmet ?? []) : limitsOf(desired);
    if (unmet.length > 0)
      room.log.warn({ copyId, limits: unmet }, 'limits of a process copy are not enforced on this machine');
    target = targetOf(record);
    await orAborted(register(target), signal);
    return { ...launched, record };
  } catch (error) {
    if (target) await killTarget(target);
    await removeCgroup(group?.dirs ?? []);
    room.pins.release(copyId);
    room.ports.release(copyId);
    throw error;
  }
}

/** False: there is no group, or the kernel refused; then the process group is all there is to kill by. */
async function enter(room: StartRoom, group: CopyCgroup | undefined, copyId: CopyId, pid: number): Promise<boolean> {
  if (group === undefined) return false;
  try {
    await enterCgroup(group.dirs, pid);
    return true;
  } catch (error) {
    room.log.warn({ copyId, error: String(error) }, 'process copy could not enter its cgroup');
    return false;
  }
}

const limitsOf = ({ spec }: DesiredCopy): string[] => [
  ...(spec.cpus > 0 ? ['cpus'] : []),
  ...(spec.memoryBytes > 0 ? ['memory'] : []),
];

async function orAborted(work: Promise<void>, signal: AbortSignal): Promise<void> {
  signal.throwIfAborted();
  let stop: (() => void) | undefined;
  const called = new Promise<never>((_, reject) => {
    stop = () => reject(signal.reason as Error);
    signal.addEventListener('abort', stop, { once: true });
  });
  try {
    await Promise.race([work, called]);
  } finally {
    if (stop) signal.removeEventListener('abort', stop);
  }
  signal.throwIfAborted();
}

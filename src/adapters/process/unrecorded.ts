import { readlinkSync, realpathSync } from 'node:fs';
import { join } from 'node:path';
import { removeCgroup } from './copy-cgroup.ts';
import { killTarget } from './kill-target.ts';
import { EXIT_FILE } from './launcher.ts';
import { listProcesses } from './proc-fs.ts';

/** The launcher's descriptor of its exit file. */
const EXIT_FD = 4;

/**
 * Ends what runs of a copy whose record cannot be read: by its cgroup, and by the launcher that holds the exit file of the
 * copy's directory open.
 */
export async function endUnrecorded(dir: string, cgroupDirs: readonly string[]): Promise<void> {
  if (cgroupDirs.length > 0 && (await killTarget({ type: 'cgroup', paths: cgroupDirs })))
    await removeCgroup(cgroupDirs);
  const exitFile = join(realpathSync(dir), EXIT_FILE);
  for (const { pid, session, startTicks } of listProcesses()) {
    if (pid !== session) continue;
    try {
      if (readlinkSync(`/proc/${pid}/fd/${EXIT_FD}`) !== exitFile) continue;
    } catch {
      continue; // gone, not ours, or no such descriptor
    }
    await killTarget({ type: 'process-group', pgid: pid, startTicks });
  }
}

import { linkSync, readFileSync, renameSync, rmSync, unlinkSync, writeFileSync } from 'node:fs';
import { isSameProcess, readProcStat } from '../adapters/process/proc-fs.ts';
import { TaskOrgError } from '../model/errors.ts';

/** A process by a name that is never given again on this boot of the machine. */
export interface ProcessName {
  readonly pid: number;
  /** Field 22 of /proc/PID/stat; 0 where there is no /proc. */
  readonly startTicks: number;
}

export const nameProcess = (pid: number): ProcessName => ({ pid, startTicks: readProcStat(pid)?.startTicks ?? 0 });

export function isRunning({ pid, startTicks }: ProcessName): boolean {
  if (startTicks !== 0) return isSameProcess(pid, startTicks);
  try {
    return process.kill(pid, 0);
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}

export function readProcessFile(path: string): ProcessName | undefined {
  try {
    const [pid, startTicks] = readFileSync(path, 'utf8').trim().split(' ').map(Number);
    return Number.isInteger(pid) && (pid ?? 0) > 1 && Number.isInteger(startTicks)
      ? { pid: pid as number, startTicks: startTicks as number }
      : undefined;
  } catch {
    return undefined;
  }
}

const text = ({ pid, startTicks }: ProcessName): string => `${pid} ${startTicks}\n`;

export function writeProcessFile(path: string, name: ProcessName): void {
  const temporary = `${path}.${process.pid}`;
  writeFileSync(temporary, text(name), { mode: 0o600 });
  renameSync(temporary, path);
}

/** SIGKILL to the process that a file names, if it is still the same one. Says whether it was. */
export function killNamed(name: ProcessName | undefined): boolean {
  if (name === undefined || name.pid === process.pid || !isRunning(name)) return false;
  try {
    process.kill(name.pid, 'SIGKILL');
    return true;
  } catch {
    return false;
  }
}

/**
 * One boot per data directory: a file made by link(2), which fails when it is there, naming its process. A file whose
 * process is gone is put aside first. Returns the release. Throws TaskOrgError data_dir_locked.
 */
export function lockDataDir(dataDir: string, path: string): () => void {
  const own = nameProcess(process.pid);
  const temporary = `${path}.${own.pid}`;
  writeFileSync(temporary, text(own), { mode: 0o600 });
  try {
    for (let attempt = 0; ; attempt++) {
      try {
        linkSync(temporary, path);
        return () => rmSync(path, { force: true });
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== 'EEXIST' || attempt > 10) throw error;
      }
      const holder = readProcessFile(path);
      if (holder !== undefined && isRunning(holder)) {
        throw new TaskOrgError(
          'data_dir_locked',
          `the data directory ${dataDir} is in use by the peer with process id ${holder.pid}`,
          {
            hint: `stop that peer first (kill ${holder.pid}), or give this one a data directory of its own (--data-dir)`,
          },
        );
      }
      // Of several boots that find the same stale file one moves it; what it moved is looked at again, lest it was new.
      const aside = `${path}.stale.${own.pid}`;
      try {
        renameSync(path, aside);
      } catch {
        continue;
      }
      const moved = readProcessFile(aside);
      if (moved !== undefined && isRunning(moved)) renameSync(aside, path);
      else unlinkSync(aside);
    }
  } finally {
    rmSync(temporary, { force: true });
  }
}

import { chownSync, lstatSync, mkdirSync, readlinkSync, rmSync, symlinkSync } from 'node:fs';
import { mkdir, rename } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { parseCopyId } from '../../core/reconcile/copy-id.ts';
import type { DesiredCopy, ObservedCopy } from '../../core/reconcile/types.ts';
import { TaskOrgError } from '../../model/errors.ts';
import { formatGeneration } from '../../model/generation.ts';

export interface Surroundings {
  readonly cwd: string;
  readonly env: Readonly<Record<string, string>>;
}

/** Of the peer's own environment only this reaches a task: the rest may hold secrets. */
const INHERITED = ['PATH', 'LANG', 'TZ', 'TMPDIR'];
const DEFAULT_PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';

/**
 * Makes the work directory of the copy's slot (kept over restarts and generations) and its volumes, and the environment
 * that names them. A volume mounted at `/data` is `data` in the work directory and TASKORG_VOLUME_<NAME>.
 */
export function prepareSurroundings(
  dataDir: string,
  copy: DesiredCopy,
  ports: ObservedCopy['ports'],
  user: { readonly uid: number | null; readonly gid: number | null },
): Surroundings {
  const { spec } = copy;
  const work = workDirectory(dataDir, copy);
  makeFor(work, user);
  const env: Record<string, string> = { PATH: DEFAULT_PATH, HOME: work };
  for (const name of INHERITED) if (process.env[name] !== undefined) env[name] = process.env[name];
  for (const port of ports) env[`PORT_${port.container}`] ??= String(port.host);
  if (ports[0]) env.PORT = String(ports[0].host);
  Object.assign(env, spec.env);
  for (const volume of spec.volumes) {
    const dir = join(dataDir, 'volumes', volume.name);
    makeFor(dir, user);
    env[`TASKORG_VOLUME_${volume.name.replace(/[^A-Za-z0-9]/g, '_').toUpperCase()}`] = dir;
    linkVolume(work, volume.path, dir);
  }
  env.TASKORG_TASK = spec.name;
  env.TASKORG_SLOT = String(copy.slot);
  env.TASKORG_GENERATION = formatGeneration(copy.generation);
  env.TASKORG_WORKDIR = work;
  const cwd = resolve(work, spec.workdir);
  if (cwd === work || cwd.startsWith(`${work}/`)) makeFor(cwd, user);
  return { cwd, env };
}

/**
 * A copy that lost against another of its slot: its logs and its slot's work directory become a branch, so that a later copy
 * of the slot here starts with a directory of its own. Volumes stay where they are, under their names.
 */
export async function setAside(dataDir: string, copyId: string, copyDir: string): Promise<void> {
  const branch = join(dataDir, 'branches', copyId);
  await mkdir(branch, { recursive: true, mode: 0o700 });
  const name = parseCopyId(copyId);
  const moves: [string, string][] = [[copyDir, join(branch, 'logs')]];
  if (name) moves.push([workDirectory(dataDir, name), join(branch, 'work')]);
  for (const [from, to] of moves)
    await rename(from, to).catch((error: NodeJS.ErrnoException) => {
      // Moved by an earlier try.
      if (error.code !== 'ENOENT' && error.code !== 'ENOTEMPTY' && error.code !== 'EEXIST') throw error;
    });
}

const workDirectory = (dataDir: string, copy: Pick<DesiredCopy, 'taskId' | 'slot'>): string =>
  join(dataDir, 'work', `${copy.taskId}.${copy.slot}`);

function makeFor(dir: string, user: { readonly uid: number | null; readonly gid: number | null }): void {
  // Only a directory just made is given away: what stands in it belongs to whoever wrote it.
  const made = mkdirSync(dir, { recursive: true, mode: 0o755 });
  if (made !== undefined && user.uid !== null) chownSync(dir, user.uid, user.gid ?? user.uid);
}

function linkVolume(work: string, path: string, dir: string): void {
  const link = resolve(work, `./${path}`);
  if (!link.startsWith(`${work}/`))
    throw new TaskOrgError('invalid_input', `the volume path ${path} leads out of the task's work directory`);
  mkdirSync(dirname(link), { recursive: true });
  try {
    symlinkSync(dir, link);
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code !== 'EEXIST') throw cause;
    if (lstatSync(link).isSymbolicLink()) {
      if (readlinkSync(link) === dir) return;
      // of a data directory that stood elsewhere, or of another volume before
      rmSync(link);
      symlinkSync(dir, link);
      return;
    }
    throw new TaskOrgError('invalid_input', `something else stands at ${path} in the task's work directory`, {
      hint: 'mount the volume at another path',
    });
  }
}

import { createSocket } from 'node:dgram';
import { chownSync, lstatSync, mkdirSync, readlinkSync, symlinkSync } from 'node:fs';
import { createServer } from 'node:net';
import { dirname, join, resolve } from 'node:path';
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
  const work = join(dataDir, 'work', `${copy.taskId}.${copy.slot}`);
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
    if (lstatSync(link).isSymbolicLink() && readlinkSync(link) === dir) return;
    throw new TaskOrgError('invalid_input', `something else stands at ${path} in the task's work directory`, {
      hint: 'mount the volume at another path',
    });
  }
}

/**
 * Host ports of a copy: those asked for, and for 0 a free one, the former one if it still is. Throws port_in_use
 * (retryable). Somebody else may take a port before the task binds it; then the task fails and is restarted.
 */
export async function choosePorts(copy: DesiredCopy, former: ObservedCopy['ports']): Promise<ObservedCopy['ports']> {
  const chosen: { container: number; host: number; protocol: 'tcp' | 'udp' }[] = [];
  for (const { container, host, protocol } of copy.spec.ports) {
    if (host !== 0) {
      if (await freePort(protocol, host)) chosen.push({ container, host, protocol });
      else
        throw new TaskOrgError('port_in_use', `${protocol} port ${host} is in use on this machine`, {
          retryable: true,
          hint: 'choose another host port, or 0 for a free one',
        });
      continue;
    }
    const old = former.find((p) => p.container === container && p.protocol === protocol)?.host;
    const free = (old === undefined ? undefined : await freePort(protocol, old)) ?? (await freePort(protocol, 0));
    if (free === undefined) throw new TaskOrgError('port_in_use', `no free ${protocol} port`, { retryable: true });
    chosen.push({ container, host: free, protocol });
  }
  return chosen;
}

/** The port when it can be bound (0: any that can), else undefined. */
function freePort(protocol: 'tcp' | 'udp', port: number): Promise<number | undefined> {
  return new Promise((done) => {
    if (protocol === 'udp') {
      const socket = createSocket('udp4');
      socket.once('error', () => done(undefined));
      socket.bind(port, () => {
        const bound = socket.address().port;
        socket.close(() => done(bound));
      });
      return;
    }
    const server = createServer();
    server.once('error', () => done(undefined));
    server.listen(port, () => {
      const address = server.address();
      server.close(() => done(typeof address === 'object' && address ? address.port : undefined));
    });
  });
}

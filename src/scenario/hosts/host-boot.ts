import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { closeSync, mkdirSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { INIT_SCRIPT } from './init-script.ts';
import { onlyChild } from './processes.ts';
import { LAB_PATH } from './requirements.ts';
import { HostLabError } from './types.ts';

/** What a host is made from. */
export interface HostBirth {
  /** Marks its pid 1. */
  readonly tag: string;
  readonly dir: string;
  readonly namespace: string;
  readonly hostname: string;
  readonly address: string;
  /** All hosts of the lab, for /etc/hosts. */
  readonly known: readonly { readonly address: string; readonly hostname: string }[];
  readonly privateDirs: readonly string[];
}

/** Directories of the host, and the files of /etc that make it a machine of its own. /run starts empty. */
export function layDisk(host: HostBirth): void {
  rmSync(join(host.dir, 'run'), { recursive: true, force: true });
  for (const name of ['run', 'docker', 'containerd', 'home', 'log', 'cow/etc/up']) {
    mkdirSync(join(host.dir, name), { recursive: true });
  }
  const etc = (name: string, text: string): void => writeFileSync(join(host.dir, 'cow/etc/up', name), text);
  etc('hosts', `127.0.0.1 localhost\n${host.known.map((one) => `${one.address} ${one.hostname}\n`).join('')}`);
  etc('hostname', `${host.hostname}\n`);
  etc('machine-id', `${createHash('sha256').update(host.hostname).digest('hex').slice(0, 32)}\n`);
  // Names are refused at once, by the host itself, where nobody listens on port 53. A resolver that cannot be reached
  // would make every image pull attempt wait for 15 s.
  etc('resolv.conf', `nameserver ${host.address}\noptions timeout:1 attempts:1\n`);
}

/** Starts pid 1 in its namespaces. Resolves, with its outside pid, once the host's own directories are in place. */
export async function startInit(host: HostBirth): Promise<number> {
  const logFile = join(host.dir, 'log', 'init');
  const log = openSync(logFile, 'w');
  const namespaces = [`--net=/run/netns/${host.namespace}`, 'unshare', '-m', '-u', '-i', '-p', '-f', '--mount-proc'];
  const init = ['sh', '-c', INIT_SCRIPT, host.tag, host.dir, host.hostname, ...host.privateDirs];
  const child = spawn('nsenter', [...namespaces, ...init], {
    detached: true,
    stdio: ['ignore', log, log, 'pipe'],
    env: { ...process.env, PATH: LAB_PATH },
    cwd: '/',
  });
  closeSync(log);
  const ended = new Promise<'ended'>((resolve, reject) => {
    child.on('exit', () => resolve('ended'));
    child.on('error', reject);
  });
  ended.catch(() => {});
  const what = await Promise.race([firstData(child.stdio[3] as NodeJS.ReadableStream), ended]);
  const pid = child.pid === undefined ? undefined : onlyChild(child.pid);
  if (what !== 'data' || pid === undefined) {
    throw new HostLabError('failed', `${host.hostname}: its pid 1 failed: ${tail(logFile)}`);
  }
  child.unref();
  return pid;
}

/** Whether the other end spoke or closed first. */
export function firstData(stream: NodeJS.ReadableStream): Promise<'data' | 'end'> {
  return new Promise((resolve) => {
    stream.once('data', () => resolve('data'));
    stream.once('end', () => resolve('end'));
  });
}

/** The last words of a log. */
export function tail(path: string): string {
  return readFileSync(path, 'utf8').trim().slice(-1500) || '(no output)';
}

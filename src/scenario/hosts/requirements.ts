import { accessSync, constants } from 'node:fs';
import { delimiter, join } from 'node:path';
import type { HostLabOptions } from './types.ts';
import { HostLabError } from './types.ts';

/** Programs the lab runs, with the Debian package that has them. */
const TOOLS = [
  { tool: 'ip', package: 'iproute2' },
  { tool: 'nsenter', package: 'util-linux' },
  { tool: 'unshare', package: 'util-linux' },
  { tool: 'mount', package: 'mount' },
] as const;
const ENGINE_TOOLS = [
  { tool: 'dockerd', package: 'docker.io' },
  { tool: 'containerd', package: 'containerd' },
  { tool: 'iptables', package: 'iptables' },
] as const;

/** sbin is missing from many PATHs, and it is where most of these live. */
export const LAB_PATH = [
  ...new Set([
    ...(process.env.PATH ?? '').split(delimiter),
    '/usr/local/sbin',
    '/usr/sbin',
    '/sbin',
    '/usr/bin',
    '/bin',
  ]),
]
  .filter((dir) => dir !== '')
  .join(delimiter);

export function findTool(tool: string): string | undefined {
  for (const dir of LAB_PATH.split(delimiter)) {
    const path = join(dir, tool);
    try {
      accessSync(path, constants.X_OK);
      return path;
    } catch {
      // not in this directory
    }
  }
  return undefined;
}

/** Throws HostLabError('missing_tool') that names the Debian package. Returns the program's path. */
export function requireTool(tool: string, debianPackage: string): string {
  const path = findTool(tool);
  if (path !== undefined) return path;
  throw new HostLabError('missing_tool', `${tool} is not installed; on Debian: apt-get install ${debianPackage}`);
}

/** Why this machine cannot run a host lab; undefined when it can. */
export function whyNoHostLab(docker: boolean): HostLabError | undefined {
  if (process.platform !== 'linux') {
    return new HostLabError('not_linux', `hosts are made of Linux namespaces; this machine runs ${process.platform}`);
  }
  if (process.getuid?.() !== 0) {
    return new HostLabError(
      'not_root',
      'hosts need root (namespaces, mounts, cgroups): run the command again as root, e.g. with sudo',
    );
  }
  const missing = [...TOOLS, ...(docker ? ENGINE_TOOLS : [])].filter(({ tool }) => findTool(tool) === undefined);
  if (missing.length === 0) return undefined;
  const names = missing.map(({ tool }) => tool).join(', ');
  const packages = [...new Set(missing.map((entry) => entry.package))].join(' ');
  return new HostLabError('missing_tool', `not installed: ${names}; on Debian: apt-get install ${packages}`);
}

const MAX_HOSTS = 250;
/** sun_path holds 107 characters; `/250/run/docker.sock` and `/250/home/data/api.sock` must fit behind `dir`. */
const MAX_DIR_LENGTH = 70;

export function checkOptions(options: HostLabOptions): { readonly net: string; readonly containerNet: string } {
  const bad = (message: string): never => {
    throw new HostLabError('bad_option', message);
  };
  if (!Number.isInteger(options.hosts) || options.hosts < 1 || options.hosts > MAX_HOSTS)
    bad(`hosts: 1 to ${MAX_HOSTS}, not ${options.hosts}`);
  if (!/^[a-z][a-z0-9]{0,11}$/.test(options.prefix))
    bad(`prefix: a letter and up to 11 letters or digits, not '${options.prefix}'`);
  if (!options.dir.startsWith('/') || options.dir.length > MAX_DIR_LENGTH)
    bad(`dir: an absolute path of at most ${MAX_DIR_LENGTH} characters (Unix sockets lie in it), not '${options.dir}'`);
  if (/[:,\s\\]/.test(options.dir))
    bad(`dir: no space, comma, colon or backslash (overlay mount options), not '${options.dir}'`);
  for (const dir of options.privateDirs ?? DEFAULT_PRIVATE_DIRS) {
    if (options.dir === dir || options.dir.startsWith(`${dir}/`))
      bad(`dir: not inside ${dir}, which every host overlays; choose another place`);
  }
  const subnet = /^(\d+)\.(\d+)\.(\d+)\.0\/24$/.exec(options.subnet);
  if (!subnet) return bad(`subnet: a /24 such as 10.44.0.0/24, not '${options.subnet}'`);
  const [, a, b, c] = subnet;
  const wide = options.containerSubnet ?? `${a}.${(Number(b) + 1) % 256}.0.0/16`;
  const container = /^(\d+\.\d+)\.0\.0\/16$/.exec(wide);
  if (!container?.[1]) return bad(`containerSubnet: a /16 such as 10.45.0.0/16, not '${wide}'`);
  return { net: `${a}.${b}.${c}`, containerNet: container[1] };
}

export const DEFAULT_PRIVATE_DIRS = ['/etc', '/var/lib'] as const;

import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, openSync, readFileSync } from 'node:fs';
import { constants } from 'node:os';
import { join } from 'node:path';
import type { Writable } from 'node:stream';
import { TaskOrgError } from '../../model/errors.ts';
import { listProcesses } from './proc-fs.ts';

// A process copy is a small shell, the launcher, in a session of its own, and the command as its child. The launcher lives
// on without the agent and notes the exit code. It runs nothing before the gate opens: until then the copy can be put into
// its cgroup, recorded and registered, and should the agent die meanwhile, the gate's end of file makes it go.

const LAUNCHER = `read -r go <&3 || exit 125
exec 3<&- 5>&2 2>/dev/null
(exec "$@" 2>&5 4>&- 5>&-)
echo $? >&4
kill -KILL 0`;

const GATE = `read -r go <&3 || exit 125
exec 3<&-
exec "$@"`;

export interface LaunchOptions {
  readonly argv: readonly string[];
  readonly cwd: string;
  readonly env: Readonly<Record<string, string>>;
  readonly uid: number | null;
  readonly gid: number | null;
}

export interface Launched {
  readonly child: ChildProcess;
  readonly pid: number;
  /** Lets the command run. */
  readonly open: () => void;
}

export const EXIT_FILE = 'exit';

/** Starts the launcher of a copy, its output appended to `stdout.log` and `stderr.log` in `dir`, waiting at its gate. */
export async function launchCopy(dir: string, options: LaunchOptions): Promise<Launched> {
  const fds: number[] = [];
  try {
    for (const [name, flags] of [
      ['stdout.log', 'a'],
      ['stderr.log', 'a'],
      [EXIT_FILE, 'w'],
    ] as const)
      fds.push(openSync(join(dir, name), flags, 0o600));
    const [out, err, exit] = fds as [number, number, number];
    return await launch(LAUNCHER, ['ignore', out, err, 'pipe', exit], options);
  } finally {
    for (const fd of fds) closeSync(fd);
  }
}

/** Starts a further command beside a copy, its output piped, waiting at its gate. */
export function launchBeside(options: LaunchOptions & { readonly interactive: boolean }): Promise<Launched> {
  return launch(GATE, [options.interactive ? 'pipe' : 'ignore', 'pipe', 'pipe', 'pipe'], options);
}

async function launch(
  script: string,
  stdio: ('ignore' | 'pipe' | number)[],
  options: LaunchOptions,
): Promise<Launched> {
  const child = spawn('/bin/sh', ['-c', script, 'task-org-copy', ...options.argv], {
    cwd: options.cwd,
    env: options.env,
    // setsid(): leader of its own session and group
    detached: true,
    stdio,
    ...(options.uid === null ? {} : { uid: options.uid }),
    ...(options.gid === null ? {} : { gid: options.gid }),
  });
  await new Promise<void>((resolve, reject) => {
    child.once('spawn', resolve);
    child.once('error', (cause) =>
      reject(
        new TaskOrgError('runtime_failed', `the command could not be started in ${options.cwd}: ${cause.message}`, {
          cause,
        }),
      ),
    );
  });
  const gate = child.stdio[3] as Writable;
  gate.on('error', () => {}); // it died first: its exit event tells
  return { child, pid: child.pid as number, open: () => gate.end('go\n') };
}

/** Exit code as the launcher noted it; undefined when it was killed before. */
export function readExitCode(dir: string): number | undefined {
  try {
    const m = /^(\d{1,3})\n/.exec(readFileSync(join(dir, EXIT_FILE), 'latin1'));
    return m ? Number(m[1]) : undefined;
  } catch {
    return undefined;
  }
}

/** The launcher's child, which the stop signal is for; undefined when there is none (yet, or any more). */
export function commandPid(launcherPid: number): number | undefined {
  return listProcesses().find((p) => p.ppid === launcherPid && p.state !== 'Z')?.pid;
}

/** `SIGTERM`, `SIGRTMIN+3`: the number on this machine; undefined when there is no such signal. */
export function signalNumber(name: string): number | undefined {
  const realtime = /^SIGRT(MIN|MAX)(?:([+-])(\d{1,2}))?$/.exec(name);
  if (!realtime) return constants.signals[name as NodeJS.Signals];
  const [, end, sign, offset] = realtime;
  // glibc keeps the first two for itself: SIGRTMIN is 34, SIGRTMAX 64
  const n = (end === 'MIN' ? 34 : 64) + (sign === '-' ? -1 : 1) * Number(offset ?? 0);
  return n >= 34 && n <= 64 ? n : undefined;
}

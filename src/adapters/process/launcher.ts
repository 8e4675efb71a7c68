import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, openSync, readFileSync, writeFileSync } from 'node:fs';
import { constants } from 'node:os';
import { join } from 'node:path';
import type { Writable } from 'node:stream';
import { TaskOrgError } from '../../model/errors.ts';
import { usualPriority } from '../host/priority.ts';
import { listProcesses } from './proc-fs.ts';

// A process copy is a small shell, the launcher, in a session of its own, and the command as its child. The launcher lives
// on without the agent and notes the exit code. It runs nothing before the gate opens: until then the copy can be put into
// its cgroup, recorded and registered, and should the agent die meanwhile, the gate's end of file makes it go.

// A stop signal goes to the whole group: the launcher catches it, waits on, and still notes the exit code; the command, a
// subshell of its own, gets the signals' usual effect. What the command leaves in its group ends with it.

/** All but KILL and STOP, which cannot be caught, CHLD, CONT, and those of the terminal's job control. Real-time: 34 to 64. */
const CAUGHT = [1, 2, 3, 6, 10, 12, 13, 14, 15, 28, ...Array.from({ length: 31 }, (_, i) => 34 + i)].join(' ');

const LAUNCHER = `read -r go <&3 || exit 125
exec 3<&- 5>&2 2>/dev/null
trap : ${process.platform === 'linux' ? CAUGHT : 'HUP INT QUIT ABRT ALRM TERM USR1 USR2'}
echo run >&4
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
  // Before the gate opens: what stands behind it inherits this.
  usualPriority(child.pid as number);
  const gate = child.stdio[3] as Writable;
  gate.on('error', () => {}); // it died first: its exit event tells
  return { child, pid: child.pid as number, open: () => gate.end('go\n') };
}

/**
 * What the launcher noted: whether the gate was opened at all (if not, nothing of the user's ran), and the exit code;
 * undefined when it was killed before.
 */
export function readExit(dir: string): { readonly begun: boolean; readonly code: number | undefined } {
  try {
    const m = /^run\n(?:(\d{1,3})\n)?/.exec(readFileSync(join(dir, EXIT_FILE), 'latin1'));
    return { begun: m !== null, code: m?.[1] === undefined ? undefined : Number(m[1]) };
  } catch {
    return { begun: false, code: undefined };
  }
}

/** Notes an exit code in the launcher's stead, so that the next agent tells the same. */
export function noteExit(dir: string, code: number): void {
  writeFileSync(join(dir, EXIT_FILE), `run\n${code}\n`, { mode: 0o600 });
}

/** The launcher's child, the command; undefined when there is none (yet, or any more). */
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

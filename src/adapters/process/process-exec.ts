import { execFile } from 'node:child_process';
import { readlinkSync } from 'node:fs';
import { resolve as resolvePath } from 'node:path';
import { PassThrough, type Readable, Transform, type TransformCallback } from 'node:stream';
import { TaskOrgError } from '../../model/errors.ts';
import type { ExecOptions, ExecSession, LogChunk } from '../../ports/runtime.ts';
import { findCommand } from './command-path.ts';
import { enterCgroup } from './copy-cgroup.ts';
import type { CopyRecord } from './copy-record.ts';
import { launchBeside, signalNumber } from './launcher.ts';
import { listProcesses, readProcStat } from './proc-fs.ts';
import { resolveUser } from './users.ts';

/** Output chunks held for a slow reader before the command is held up. */
const OUTPUT_CHUNKS = 64;

/**
 * Runs a command beside a copy: same environment, directory, user and cgroup, a session of its own. A terminal is made by
 * util-linux's `script`, since Node has no way to make one. `onEnd` is called when the command is over; `kill` ends it.
 */
export async function execInCopy(
  record: CopyRecord,
  options: ExecOptions,
  signal: AbortSignal,
  onEnd: () => void,
): Promise<{ readonly session: ExecSession; readonly pid: number; readonly startTicks: number }> {
  const user = options.user === '' ? { uid: record.uid, gid: record.gid } : resolveUser(options.user);
  const env: Record<string, string> = { ...(options.tty ? { TERM: 'xterm' } : {}), ...record.env, ...options.env };
  const cwd = resolvePath(record.cwd, options.workdir);
  const command = options.command[0] ?? '';
  if (!findCommand(command, env.PATH ?? '', cwd))
    throw new TaskOrgError('invalid_input', `command not found: ${command}`, {
      hint: 'give the full path of a program on that machine',
    });
  const argv = options.tty ? terminalCommand(options) : options.command;
  const { child, pid, open } = await launchBeside({ argv, cwd, env, ...user, interactive: options.interactive });
  const startTicks = readProcStat(pid)?.startTicks ?? 0;
  const end = (): void => {
    try {
      process.kill(-pid, 'SIGKILL');
    } catch {
      // gone
    }
  };
  const exitCode = new Promise<number>((resolve) => {
    child.once('exit', (code, name) => {
      onEnd();
      resolve(code ?? 128 + (signalNumber(name ?? '') ?? 9));
    });
  });
  try {
    if (record.killPaths.length > 0) await enterCgroup(record.cgroupDirs, pid);
    signal.throwIfAborted();
  } catch (cause) {
    end();
    throw new TaskOrgError(
      signal.aborted ? 'aborted' : 'runtime_failed',
      `the command could not join ${record.copyId}`,
      { cause },
    );
  }
  // What the command left in its group may hold the output open: ending the session ends that too.
  signal.addEventListener('abort', end, { once: true });
  child.once('close', () => signal.removeEventListener('abort', end));
  child.stdin?.on('error', () => {}); // the command is over: its exit code tells
  open();
  const session: ExecSession = {
    output: mergeOutput(child.stdout as Readable, child.stderr as Readable),
    write: (data) =>
      new Promise((resolve, reject) => {
        if (!child.stdin) reject(new TaskOrgError('invalid_input', 'this command takes no input (not interactive)'));
        else
          child.stdin.write(data, (error) =>
            error ? reject(new TaskOrgError('aborted', 'the command has ended', { cause: error })) : resolve(),
          );
      }),
    closeInput: () => child.stdin?.end(),
    resize: async (columns, rows) => resizeTerminal(pid, columns, rows),
    exitCode,
  };
  return { session, pid, startTicks };
}

const quote = (word: string): string => `'${word.replaceAll("'", `'\\''`)}'`;

function terminalCommand(options: ExecOptions): string[] {
  if (!findCommand('script', process.env.PATH ?? '', '/'))
    throw new TaskOrgError('invalid_input', 'no terminal can be made on this machine', {
      hint: 'install util-linux (script), or run the command without a terminal',
    });
  const size = options.size ? `stty rows ${options.size.rows} cols ${options.size.columns} 2>/dev/null; ` : '';
  const command = options.command.map(quote).join(' ');
  return process.platform === 'darwin'
    ? ['script', '-q', '/dev/null', '/bin/sh', '-c', `${size}exec ${command}`]
    : ['script', '-qfec', `${size}exec ${command}`, '/dev/null'];
}

/** `script` (pid) has the command on its terminal's other end; stty sets the size there, and the kernel tells the command. */
function resizeTerminal(pid: number, columns: number, rows: number): Promise<void> {
  const inside = listProcesses().find((p) => p.ppid === pid);
  if (!inside) return Promise.resolve();
  return new Promise((resolve) => {
    try {
      const terminal = readlinkSync(`/proc/${inside.pid}/fd/0`);
      if (!terminal.startsWith('/dev/pts/')) return resolve();
      execFile('stty', ['-F', terminal, 'rows', String(rows), 'cols', String(columns)], () => resolve());
    } catch {
      resolve(); // it ended meanwhile
    }
  });
}

function mergeOutput(stdout: Readable, stderr: Readable): AsyncIterable<LogChunk> {
  const merged = new PassThrough({ objectMode: true, highWaterMark: OUTPUT_CHUNKS });
  let left = 2;
  for (const [stream, source] of [
    ['stdout', stdout],
    ['stderr', stderr],
  ] as const) {
    const tag = new Transform({
      readableObjectMode: true,
      transform(data: Buffer, _encoding, done: TransformCallback) {
        done(null, { stream, data } satisfies LogChunk);
      },
    });
    source.pipe(tag).pipe(merged, { end: false });
    tag.once('end', () => {
      if (--left === 0) merged.end();
    });
  }
  return merged;
}

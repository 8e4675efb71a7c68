import type { Duplex } from 'node:stream';
import { setTimeout as delay } from 'node:timers/promises';
import { TaskOrgError } from '../../model/errors.ts';
import type { ExecOptions, ExecSession, LogChunk } from '../../ports/runtime.ts';
import { cgroupsOf } from '../process/cgroup-fs.ts';
import { demultiplex } from './demux.ts';
import { type EngineApi, EngineError } from './engine-api.ts';

/** The engine notes the exit code a moment after the output has ended. */
const EXIT_LOOK_MS = 5;
const EXIT_LOOKS = 400;

interface ExecState {
  readonly Running: boolean;
  readonly ExitCode: number | null;
  readonly Pid: number;
}

/** Runs a command in a running container. When `signal` aborts, the connection closes and the command is killed if it can be seen. */
export async function execInContainer(
  api: EngineApi,
  containerId: string,
  options: ExecOptions,
  signal: AbortSignal,
): Promise<ExecSession> {
  const { Id: execId } = await api.call<{ Id: string }>({
    method: 'POST',
    path: `/containers/${containerId}/exec`,
    body: {
      AttachStdin: options.interactive,
      AttachStdout: true,
      AttachStderr: true,
      Tty: options.tty,
      Cmd: options.command,
      Env: Object.entries(options.env).map(([name, value]) => `${name}=${value}`),
      ...(options.user ? { User: options.user } : {}),
      ...(options.workdir ? { WorkingDir: options.workdir } : {}),
    },
    signal,
  });
  const socket = await api.hijack({
    method: 'POST',
    path: `/exec/${execId}/start`,
    body: { Detach: false, Tty: options.tty },
    signal,
  });
  const onAbort = (): void => {
    socket.destroy();
    void killExec(api, execId, containerId);
  };
  if (signal.aborted) onAbort();
  else signal.addEventListener('abort', onAbort, { once: true });
  socket.on('error', () => {}); // its end is seen by the reader
  const closed = new Promise<void>((resolve) => {
    socket.once('end', resolve);
    socket.once('close', resolve);
  });
  void closed.then(() => signal.removeEventListener('abort', onAbort));
  const exitCode = closed.then(() => exitCodeOf(api, execId));
  exitCode.catch(() => {}); // a caller that does not ask is not told
  const resize = async (columns: number, rows: number): Promise<void> => {
    try {
      await api.call({ method: 'POST', path: `/exec/${execId}/resize`, query: { w: columns, h: rows } });
    } catch (error) {
      // Not started yet in the engine's eyes, or over.
      if (!(error instanceof EngineError)) throw error;
    }
  };
  if (options.tty && options.size) await resize(options.size.columns, options.size.rows);
  return {
    output: options.tty ? rawOutput(socket) : demultiplex(quietly(socket)),
    write: (data) =>
      new Promise((resolve, reject) => {
        if (!options.interactive)
          reject(new TaskOrgError('invalid_input', 'this command takes no input (not interactive)'));
        else
          socket.write(data, (error) =>
            error ? reject(new TaskOrgError('aborted', 'the command has ended', { cause: error })) : resolve(),
          );
      }),
    closeInput: () => socket.end(),
    resize,
    exitCode,
  };
}

/** A connection that breaks ends the output; the exit code tells the rest. */
async function* quietly(socket: Duplex): AsyncGenerator<Uint8Array> {
  try {
    for await (const data of socket) yield data as Uint8Array;
  } catch {
    // closed by abort, or by the engine
  }
}

async function* rawOutput(socket: Duplex): AsyncGenerator<LogChunk> {
  for await (const data of quietly(socket)) yield { stream: 'stdout', data };
}

async function exitCodeOf(api: EngineApi, execId: string): Promise<number> {
  for (let i = 0; i < EXIT_LOOKS; i++) {
    const state = await api.call<ExecState>({ method: 'GET', path: `/exec/${execId}/json` });
    if (!state.Running && state.ExitCode !== null) return state.ExitCode;
    await delay(EXIT_LOOK_MS);
  }
  throw new TaskOrgError('runtime_failed', 'the command goes on without its connection');
}

/** The API has no way to end a command: its process is killed, if it really is one of this container. */
async function killExec(api: EngineApi, execId: string, containerId: string): Promise<void> {
  try {
    const { Running, Pid } = await api.call<ExecState>({ method: 'GET', path: `/exec/${execId}/json` });
    if (!Running || Pid <= 1) return;
    const groups = [...(cgroupsOf(Pid)?.values() ?? [])];
    if (groups.some((group) => group.includes(containerId))) process.kill(Pid, 'SIGKILL');
  } catch {
    // gone with the container or the engine
  }
}

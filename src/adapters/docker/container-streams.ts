import { PassThrough, type Duplex } from 'node:stream';
import type { ExecOptions, ExecSession, LogChunk } from '../../ports/runtime.ts';
import { isInContainer } from './cgroup-finder.ts';
import { type Engine, ENGINE_TIMEOUTS } from './engine.ts';
import { pause } from './removals.ts';

const HEADER_BYTES = 8;
const STDERR = 2;
/** The engine's own frames are of 16 or 32 KiB; a larger length means that the stream is not of frames. */
const FRAME_LIMIT = 16 * 1024 * 1024;
/** Output of a command that is held for a reader who is slow or does not come, bytes. */
const HELD_BYTES = 1024 * 1024;
const EXIT_POLL_MS = 20;
const EXIT_WAIT_MS = 10_000;

/**
 * Takes the engine's frames apart: 8 bytes (stream 0-2, three zeros, length big-endian), then the payload
 * (Engine API, "Attach to a container", stream format). Payloads are given on as they come, frame by frame or in parts.
 */
export async function* demux(stream: AsyncIterable<Uint8Array | string>): AsyncGenerator<LogChunk> {
  let held = Buffer.alloc(0);
  let left = 0;
  let name: LogChunk['stream'] = 'stdout';
  for await (const chunk of stream) {
    held = held.length === 0 ? Buffer.from(chunk as Uint8Array) : Buffer.concat([held, chunk as Uint8Array]);
    let at = 0;
    for (;;) {
      if (left === 0) {
        if (held.length - at < HEADER_BYTES) break;
        left = held.readUInt32BE(at + 4);
        if ((held[at] ?? 0) > STDERR || left > FRAME_LIMIT) throw new Error('the engine sent output that is not in frames');
        name = held[at] === STDERR ? 'stderr' : 'stdout';
        at += HEADER_BYTES;
        continue;
      }
      if (at === held.length) break;
      const end = Math.min(held.length, at + left);
      yield { stream: name, data: held.subarray(at, end) };
      left -= end - at;
      at = end;
    }
    held = held.subarray(at);
  }
}

/** A copy's output. `tail`: so many last lines, all of them when negative. */
export async function* readLogs(
  engine: Engine,
  id: string,
  o: { readonly follow: boolean; readonly tail: number; readonly timestamps: boolean },
  signal: AbortSignal,
): AsyncGenerator<LogChunk> {
  const stop = new AbortController();
  const until = AbortSignal.any([signal, stop.signal]);
  const stream = await engine.open('logs', { timeoutMs: ENGINE_TIMEOUTS.query, signal: until }, async (abortSignal) => {
    const options = { follow: o.follow, stdout: true, stderr: true, timestamps: o.timestamps, tail: o.tail < 0 ? 'all' : String(o.tail), abortSignal };
    // dockerode gives a stream for `follow` only; without it the whole text would be gathered in memory.
    return await dial(engine, `/containers/${id}/logs?`, options);
  });
  try {
    yield* demux(stream as unknown as AsyncIterable<Uint8Array>);
  } catch (error) {
    if (!signal.aborted) throw error;
  } finally {
    stop.abort();
  }
}

function dial(engine: Engine, path: string, options: Record<string, unknown>): Promise<NodeJS.ReadableStream> {
  return new Promise((resolve, reject) => {
    const { abortSignal, ...query } = options;
    engine.docker.modem.dial(
      { path, method: 'GET', isStream: true, abortSignal, statusCodes: { 200: true }, options: query } as never,
      (error: unknown, stream: unknown) => (error ? reject(error) : resolve(stream as NodeJS.ReadableStream)),
    );
  });
}

/** Runs a command in a container. Aborting kills it. */
export async function runExec(engine: Engine, id: string, o: ExecOptions, signal: AbortSignal): Promise<ExecSession> {
  const ask = { timeoutMs: ENGINE_TIMEOUTS.query, signal };
  const exec = await engine.ask('exec', ask, (abortSignal) =>
    engine.docker.getContainer(id).exec({
      Cmd: [...o.command],
      Env: Object.entries(o.env).map(([key, value]) => `${key}=${value}`),
      AttachStdin: o.interactive,
      AttachStdout: true,
      AttachStderr: true,
      Tty: o.tty,
      ...(o.user === '' ? {} : { User: o.user }),
      ...(o.workdir === '' ? {} : { WorkingDir: o.workdir }),
      abortSignal,
    } as object),
  );
  const socket = (await engine.open('exec', ask, (abortSignal) =>
    exec.start({ hijack: true, stdin: true, Tty: o.tty, Detach: false, abortSignal } as object),
  )) as Duplex;
  const ended = new Promise<void>((resolve) => {
    for (const event of ['end', 'close', 'error'] as const) socket.once(event, () => resolve());
  });
  const state = (timeoutMs: number): Promise<{ Running: boolean; ExitCode: number | null; Pid: number }> =>
    engine.ask('exec inspect', { timeoutMs }, (abortSignal) => exec.inspect({ abortSignal } as object)) as never;
  // Closing the connection leaves the command running (there is no call to end it), so it is killed by its pid.
  const onAbort = (): void => {
    void state(ENGINE_TIMEOUTS.ping).then((s) => s.Running && isInContainer(id, s.Pid) && process.kill(s.Pid, 'SIGKILL')).catch(() => {});
  };
  signal.addEventListener('abort', onAbort, { once: true });
  const held = new PassThrough({ highWaterMark: HELD_BYTES });
  socket.pipe(held);
  void ended.then(() => held.end());
  const exitCode = ended.then(async () => {
    signal.removeEventListener('abort', onAbort);
    return await exitCodeOf(() => state(ENGINE_TIMEOUTS.query), signal);
  });
  exitCode.catch(() => {});
  if (!o.interactive) socket.end();
  const resize = async (columns: number, rows: number): Promise<void> => {
    if (o.tty) await engine.ask('exec resize', ask, (abortSignal) => exec.resize({ h: rows, w: columns, abortSignal } as never));
  };
  // The size cannot be set before the command runs; that it has ended already is no error.
  if (o.size) await resize(o.size.columns, o.size.rows).catch(() => {});
  return {
    output: o.tty ? raw(held) : demux(held),
    write: (data) => new Promise((resolve, reject) => socket.write(data, (error) => (error ? reject(error) : resolve()))),
    closeInput: () => void socket.end(),
    resize,
    exitCode,
  };
}

async function exitCodeOf(state: () => Promise<{ Running: boolean; ExitCode: number | null }>, signal: AbortSignal): Promise<number> {
  const deadline = performance.now() + EXIT_WAIT_MS;
  for (;;) {
    signal.throwIfAborted();
    // The output can end a moment before the engine has noted the exit.
    const s = await state();
    if (!s.Running && s.ExitCode !== null) return s.ExitCode;
    if (performance.now() > deadline) return s.ExitCode ?? 0;
    await pause(EXIT_POLL_MS);
  }
}

async function* raw(stream: AsyncIterable<unknown>): AsyncGenerator<LogChunk> {
  for await (const data of stream) yield { stream: 'stdout', data: data as Uint8Array };
}

import { encode } from '@ipld/dag-cbor';
import { Type } from 'typebox';
import { Compile } from 'typebox/compile';
import { placedCopy, provisionalCopies } from '../placed-copy.ts';
import { copyKey } from '../../core/peer/facts-book.ts';
import type { Peer } from '../../core/peer/peer.ts';
import { formatCopyId } from '../../core/reconcile/copy-id.ts';
import type { CopyId } from '../../core/reconcile/types.ts';
import type { RuntimeDriver } from '../../driver/runtime-driver.ts';
import { decodeCbor } from '../../model/cbor.ts';
import { TaskOrgError } from '../../model/errors.ts';
import type { NodeId } from '../../model/ids.ts';
import { LIMITS } from '../../model/limits.ts';
import type { TaskRecord } from '../../model/records.ts';
import type { CopyStats, ExecOptions, LogChunk, Runtime } from '../../ports/runtime.ts';
import type { ByteStream, Transport } from '../../ports/transport.ts';
import { decodeFrames, encodeError, encodeFrame, errorOfFrame, FRAME, type StreamFrame } from './stream-frames.ts';

// Logs, exec and stats of a copy wherever it runs: here through the runtime, elsewhere through a stream to its peer.

export const METHOD_LOGS = 'copy.logs';
export const METHOD_EXEC = 'copy.exec';
export const METHOD_STATS = 'copies.stats';
const STATS_TIMEOUT_MS = 3000;

export interface LogOptions {
  readonly follow: boolean;
  readonly tail: number;
  readonly timestamps: boolean;
}

const LogsRequest = Compile(
  Type.Object({
    copyId: Type.String({ maxLength: 256 }),
    runtime: Type.String(),
    options: Type.Object({
      follow: Type.Boolean(),
      tail: Type.Integer({ minimum: 0, maximum: LIMITS.logsTailLines }),
      timestamps: Type.Boolean(),
    }),
  }),
);
const ExecRequest = Compile(
  Type.Object({
    copyId: Type.String({ maxLength: 256 }),
    runtime: Type.String(),
    options: Type.Object({
      command: Type.Array(Type.String({ maxLength: 32_768 }), { minItems: 1, maxItems: 256 }),
      env: Type.Record(Type.String(), Type.String()),
      tty: Type.Boolean(),
      interactive: Type.Boolean(),
      user: Type.String({ maxLength: 64 }),
      workdir: Type.String({ maxLength: 4096 }),
      size: Type.Union([
        Type.Null(),
        Type.Object({
          columns: Type.Integer({ minimum: 1, maximum: 10_000 }),
          rows: Type.Integer({ minimum: 1, maximum: 10_000 }),
        }),
      ]),
    }),
  }),
);

const StatsAnswer = Compile(
  Type.Array(
    Type.Object({
      copyId: Type.String({ maxLength: 256 }),
      cpuCores: Type.Number(),
      memoryBytes: Type.Number(),
      memoryLimitBytes: Type.Union([Type.Null(), Type.Number()]),
      networkRxBytes: Type.Number(),
      networkTxBytes: Type.Number(),
      diskReadBytes: Type.Number(),
      diskWriteBytes: Type.Number(),
      pids: Type.Number(),
    }),
  ),
);
/** Undefined fits no request. */
const read = (payload: Uint8Array): unknown => {
  const decoded = decodeCbor(payload, LIMITS.rpcFrameBytes);
  return decoded.ok ? decoded.value : undefined;
};

export interface CopyStatsRow extends CopyStats {
  readonly copyId: CopyId;
}

export interface RemoteCopies {
  /** Throws not_found when the slot has no copy now. */
  expectCopy(task: TaskRecord, slot: number): void;
  logs(task: TaskRecord, slot: number, options: LogOptions, signal: AbortSignal): AsyncIterable<LogChunk>;
  /** Frames from the caller in, frames to the caller out; ends with an exit or error frame. */
  exec(
    task: TaskRecord,
    slot: number,
    options: ExecOptions,
    input: AsyncIterable<StreamFrame>,
    signal: AbortSignal,
  ): AsyncIterable<Uint8Array>;
  /** Stats of every running copy on every reachable node. */
  stats(signal: AbortSignal): Promise<readonly { readonly node: NodeId; readonly rows: readonly CopyStatsRow[] }[]>;
  onRequest(method: string, payload: Uint8Array, signal: AbortSignal): Promise<Uint8Array> | undefined;
  onStream(method: string, payload: Uint8Array, stream: ByteStream, signal: AbortSignal): Promise<void> | undefined;
}

export function createRemoteCopies(deps: {
  readonly peer: Peer;
  readonly transport: Transport;
  readonly runtimes: () => RuntimeDriver;
}): RemoteCopies {
  const { peer, transport } = deps;

  function locate(task: TaskRecord, slotNumber: number): { node: NodeId; copyId: CopyId; kind: 'docker' | 'process' } {
    const slot = task.slots.find((s) => s.slot === slotNumber);
    if (!slot) throw new TaskOrgError('not_found', `task ${task.spec.name} has no slot ${slotNumber}`);
    const copyOf = (node: NodeId, key: string) =>
      peer
        .facts()
        .get(node)
        ?.copies.find((c) => copyKey(c) === key);
    const placed = placedCopy(peer, task, slot, copyOf, provisionalCopies(peer));
    if (!placed)
      throw slot.state.kind === 'pending'
        ? new TaskOrgError('not_found', `no copy of task ${task.spec.name} is on any machine now`, {
            hint: `task-org why ${task.spec.name} says why`,
          })
        : new TaskOrgError('not_found', `no copy of ${task.spec.name} is reported yet`, {
            retryable: true,
            hint: 'task-org ps shows when it runs',
          });
    return {
      node: placed.node,
      copyId: formatCopyId({
        taskId: task.id,
        slot: slotNumber,
        generation: placed.named,
        specVersion: task.specVersion,
      }),
      kind: task.spec.runtime,
    };
  }

  const runtimeOf = (kind: string): Runtime => {
    const runtime = kind === 'docker' || kind === 'process' ? deps.runtimes().runtime(kind) : undefined;
    if (!runtime) throw new TaskOrgError('no_runtime', `this machine has no ${kind} runtime`);
    return runtime;
  };

  async function* logs(
    task: TaskRecord,
    slot: number,
    options: LogOptions,
    signal: AbortSignal,
  ): AsyncGenerator<LogChunk> {
    const { node, copyId, kind } = locate(task, slot);
    if (node === peer.self) {
      yield* runtimeOf(kind).logs(copyId, options, signal);
      return;
    }
    const stream = await transport.openStream(
      node,
      METHOD_LOGS,
      encode({ copyId, runtime: kind, options: { ...options } }),
      signal,
    );
    for await (const frame of decodeFrames(stream.source)) {
      if (frame.kind === FRAME.error) throw errorOfFrame(frame.body);
      yield { stream: frame.kind === FRAME.stderr ? 'stderr' : 'stdout', data: frame.body };
    }
  }

  async function* exec(
    task: TaskRecord,
    slot: number,
    options: ExecOptions,
    input: AsyncIterable<StreamFrame>,
    signal: AbortSignal,
  ): AsyncGenerator<Uint8Array> {
    const { node, copyId, kind } = locate(task, slot);
    if (node === peer.self) {
      yield* runExec(runtimeOf(kind), copyId, options, input, signal);
      return;
    }
    const stream = await transport.openStream(
      node,
      METHOD_EXEC,
      encode({ copyId, runtime: kind, options: { ...options } }),
      signal,
    );
    // Not waited for: a terminal's input goes on after the command has ended.
    void (async () => {
      for await (const frame of input) await stream.write(encodeFrame(frame.kind, frame.body));
      await stream.end();
    })().catch((error: unknown) => stream.abort(error instanceof Error ? error : new Error(String(error))));
    yield* stream.source;
  }

  async function localStats(signal: AbortSignal): Promise<readonly CopyStatsRow[]> {
    const running = peer.copies().filter((c) => c.state === 'running');
    const rows = await Promise.all(
      running.map(async (c): Promise<CopyStatsRow | undefined> => {
        const task = peer.state().tasks.get(c.taskId);
        if (!task) return undefined;
        const copyId = formatCopyId({
          taskId: c.taskId,
          slot: c.slot,
          generation: c.generation,
          specVersion: task.specVersion,
        });
        const stats = await runtimeOf(task.spec.runtime)
          .stats(copyId, signal)
          .catch(() => undefined);
        return stats && { copyId, ...stats };
      }),
    );
    return rows.filter((r) => r !== undefined);
  }

  return {
    expectCopy: (task, slot) => void locate(task, slot),
    logs,
    exec,
    stats: async (signal) => {
      const others = transport.connected().map(async (node) => {
        const bytes = await transport
          .request(node, METHOD_STATS, new Uint8Array(0), { timeoutMs: STATS_TIMEOUT_MS, signal })
          .catch(() => undefined);
        const rows = bytes && decodeCbor(bytes, LIMITS.rpcFrameBytes);
        return { node, rows: rows?.ok && StatsAnswer.Check(rows.value) ? (rows.value as CopyStatsRow[]) : [] };
      });
      return Promise.all([localStats(signal).then((rows) => ({ node: peer.self, rows })), ...others]);
    },
    onRequest: (method, _payload, signal) =>
      method === METHOD_STATS ? localStats(signal).then((rows) => encode(rows)) : undefined,
    onStream: (method, payload, stream, signal) => {
      if (method === METHOD_LOGS) return serveLogs(payload, stream, signal);
      if (method === METHOD_EXEC) return serveExec(payload, stream, signal);
      return undefined;
    },
  };

  async function serveLogs(payload: Uint8Array, stream: ByteStream, signal: AbortSignal): Promise<void> {
    try {
      const request = read(payload);
      if (!LogsRequest.Check(request)) throw new TaskOrgError('invalid_input', 'malformed logs request');
      for await (const chunk of runtimeOf(request.runtime).logs(request.copyId, request.options, signal)) {
        await stream.write(encodeFrame(chunk.stream === 'stderr' ? FRAME.stderr : FRAME.stdout, chunk.data));
      }
    } catch (error) {
      if (!signal.aborted) await stream.write(encodeError(error));
    }
    await stream.end();
  }

  async function serveExec(payload: Uint8Array, stream: ByteStream, signal: AbortSignal): Promise<void> {
    const request = read(payload);
    if (!ExecRequest.Check(request)) throw new TaskOrgError('invalid_input', 'malformed exec request');
    try {
      const runtime = runtimeOf(request.runtime);
      for await (const bytes of runExec(runtime, request.copyId, request.options, decodeFrames(stream.source), signal))
        await stream.write(bytes);
    } catch (error) {
      await stream.write(encodeError(error));
    }
    await stream.end();
  }
}

async function* runExec(
  runtime: Runtime,
  copyId: CopyId,
  options: ExecOptions,
  input: AsyncIterable<StreamFrame>,
  signal: AbortSignal,
): AsyncGenerator<Uint8Array> {
  const session = await runtime.exec(copyId, options, signal);
  void (async () => {
    for await (const frame of input) {
      if (frame.kind === FRAME.stdin) await session.write(frame.body);
      else if (frame.kind === FRAME.endOfInput) session.closeInput();
      else if (frame.kind === FRAME.resize) {
        const size = JSON.parse(new TextDecoder().decode(frame.body)) as { columns: number; rows: number };
        await session.resize(size.columns, size.rows);
      }
    }
    session.closeInput();
  })().catch(() => session.closeInput());
  for await (const chunk of session.output)
    yield encodeFrame(chunk.stream === 'stderr' ? FRAME.stderr : FRAME.stdout, chunk.data);
  yield encodeFrame(FRAME.exit, JSON.stringify({ exitCode: await session.exitCode }));
}

import { LIMITS } from '../../model/limits.ts';
import type { LogChunk } from '../../ports/runtime.ts';
import { demultiplex } from './demux.ts';
import { type EngineApi, runtimeFailed } from './engine-api.ts';

export interface LogOptions {
  readonly follow: boolean;
  /** Last lines; negative: as many as the limit allows. */
  readonly tail: number;
  readonly timestamps: boolean;
}

/** A container's output until it ends, `signal` aborts, or, without `follow`, all there is was read. */
export async function* containerLogs(
  api: EngineApi,
  containerId: string,
  options: LogOptions,
  signal: AbortSignal,
): AsyncGenerator<LogChunk> {
  const { follow, timestamps } = options;
  const tail = options.tail < 0 ? LIMITS.logsTailLines : Math.min(Math.floor(options.tail), LIMITS.logsTailLines);
  const path = `/containers/${containerId}/logs`;
  const query = { stdout: true, stderr: true, follow, timestamps, tail };
  try {
    const stream = await api.stream({ method: 'GET', path, query, signal });
    try {
      yield* demultiplex(stream);
    } finally {
      stream.destroy();
    }
  } catch (error) {
    if (!signal.aborted) throw runtimeFailed(error, 'logs');
  }
}

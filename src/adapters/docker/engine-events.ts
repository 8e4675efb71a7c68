import type { CopyId } from '../../core/reconcile/types.ts';
import { TaskOrgError } from '../../model/errors.ts';
import type { RuntimeEvent } from '../../ports/runtime.ts';
import { type Engine, ENGINE_TIMEOUTS } from './engine.ts';
import { copyOf, type Owner, ourLabels } from './labels.ts';
import { pause } from './removals.ts';

/** How often an engine that went away is asked whether it is back, ms. */
const RETRY_MS = 250;
/** One line of the stream, characters; labels are the bulk of it. */
const LINE_LIMIT = 1024 * 1024;
/** Containers remembered as having met the memory limit, until they end. */
const OOM_LIMIT = 1024;
const OUT_OF_MEMORY_EXIT = 137;

interface EngineEvent {
  readonly Action: string;
  readonly Actor: { readonly ID: string; readonly Attributes: Readonly<Record<string, string>> };
  readonly timeNano: number;
}

export interface EventSink {
  readonly owner: Owner;
  readonly onEvent: (event: RuntimeEvent) => void;
  readonly onExit: (copyId: CopyId, id: string) => void;
}

/** Follows the engine's event stream until `signal` aborts. Exits missed while it was away show in a listing after `up`. */
export async function followEvents(engine: Engine, sink: EventSink, signal: AbortSignal): Promise<void> {
  const oom = new Set<string>();
  // From now on, on the engine's clock (this machine's): an exit while the stream is being opened is told.
  let since = BigInt(Date.now()) * 1_000_000n;
  let down = false;
  const take = (line: string): void => {
    const event = JSON.parse(line) as EngineEvent;
    // The engine writes nanoseconds as a JSON number, which is not exact here: the last one comes again, and is known.
    const key = BigInt(event.timeNano ?? 0);
    if (key > since) since = key;
    tell(sink, event, oom);
  };
  while (!signal.aborted) {
    let reason = 'its event stream ended';
    try {
      const stream = await engine.open('events', { timeoutMs: ENGINE_TIMEOUTS.query, signal }, (abortSignal) =>
        engine.docker.getEvents({
          filters: { type: ['container'], event: ['die', 'oom'], label: ourLabels(sink.owner) },
          since: `${since / 1_000_000_000n}.${String(since % 1_000_000_000n).padStart(9, '0')}`,
          abortSignal,
        } as object),
      );
      if (down) sink.onEvent({ type: 'up' });
      down = false;
      for await (const line of lines(stream)) take(line);
    } catch (error) {
      if (!(error instanceof TaskOrgError) && !(error instanceof SyntaxError)) reason = String(error);
      else reason = error.message;
    }
    if (signal.aborted) return;
    if (!down && !(await engine.ping(signal)) && !signal.aborted) {
      down = true;
      sink.onEvent({ type: 'down', reason });
    }
    await Promise.race([pause(down ? RETRY_MS : RETRY_MS / 5), aborts(signal)]);
  }
}

function tell(sink: EventSink, event: EngineEvent, oom: Set<string>): void {
  const { ID: id, Attributes: words } = event.Actor;
  const copy = copyOf(sink.owner, words);
  if (copy === undefined) return;
  if (event.Action === 'oom') {
    if (oom.size >= OOM_LIMIT) oom.clear();
    oom.add(id);
    return;
  }
  const code = Number(words['exitCode'] ?? Number.NaN);
  const exitCode = Number.isInteger(code) ? code : null;
  sink.onExit(copy.copyId, id);
  // A child may have met the limit long before: only a copy that was killed died of it.
  sink.onEvent({ type: 'exited', copyId: copy.copyId, exitCode, oomKilled: oom.delete(id) && exitCode === OUT_OF_MEMORY_EXIT });
}

async function* lines(stream: NodeJS.ReadableStream): AsyncGenerator<string> {
  const decoder = new TextDecoder();
  let rest = '';
  for await (const chunk of stream) {
    rest += decoder.decode(chunk as Uint8Array, { stream: true });
    const parts = rest.split('\n');
    rest = parts.pop() ?? '';
    if (rest.length > LINE_LIMIT) throw new TaskOrgError('runtime_failed', 'the event stream sent a line that is too long');
    yield* parts.filter((part) => part.trim() !== '');
  }
}

function aborts(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    signal.addEventListener('abort', () => resolve(), { once: true });
  });
}

import type { Readable } from 'node:stream';
import { setTimeout as delay } from 'node:timers/promises';
import { toTaskOrgError } from '../../model/errors.ts';
import type { RuntimeEvent } from '../../ports/runtime.ts';
import { type Owner, ownLabels, readLabels } from './container-spec.ts';
import type { EngineApi } from './engine-api.ts';

const RECONNECT_MS = 250;
const CONNECT_TIMEOUT_MS = 5_000;
/** One event as a line of JSON is far smaller: more without a newline is no event stream. */
const LINE_LIMIT = 1024 * 1024;
const NANOS = 1_000_000_000n;

interface EngineEvent {
  readonly Action?: string;
  readonly timeNano?: number;
  readonly Actor?: { readonly Attributes?: Readonly<Record<string, string>> };
}

/**
 * Follows the engine's events of our containers until `signal` aborts: ends as they happen. A closed connection is `down`
 * at once; then it is tried every 250 ms, and the stream goes on where it was left (`since`).
 */
export async function followEvents(
  api: EngineApi,
  owner: Owner,
  onEvent: (event: RuntimeEvent) => void,
  signal: AbortSignal,
): Promise<void> {
  const oom = new Set<string>();
  let lastNano = BigInt(Date.now()) * 1_000_000n;
  let connected: boolean | undefined;
  const labels = Object.entries(ownLabels(owner)).map(([name, value]) => `${name}=${value}`);
  const filters = JSON.stringify({ type: ['container'], event: ['die', 'oom'], label: labels });

  const take = (line: string): void => {
    const event = parse(line);
    const nano = BigInt(Math.round(event?.timeNano ?? 0));
    const copyId = readLabels(event?.Actor?.Attributes ?? {})?.copyId;
    // `since` names the last event again.
    if (!event || copyId === undefined || nano <= lastNano) return;
    lastNano = nano;
    if (event.Action === 'oom') oom.add(copyId);
    if (event.Action !== 'die') return;
    const code = Number(event.Actor?.Attributes?.exitCode ?? Number.NaN);
    onEvent({ type: 'exited', copyId, exitCode: Number.isInteger(code) ? code : null, oomKilled: oom.delete(copyId) });
  };

  while (!signal.aborted) {
    let reason = 'the engine closed the event stream';
    try {
      const since = `${lastNano / NANOS}.${String(lastNano % NANOS).padStart(9, '0')}`;
      const stream = await api.stream({
        method: 'GET',
        path: '/events',
        query: { since, filters },
        signal,
        timeoutMs: CONNECT_TIMEOUT_MS,
      });
      if (connected === false) onEvent({ type: 'up' });
      connected = true;
      await eachLine(stream, take);
    } catch (error) {
      reason = toTaskOrgError(error).message;
    }
    if (signal.aborted) return;
    if (connected !== false) onEvent({ type: 'down', reason });
    connected = false;
    await delay(RECONNECT_MS, undefined, { signal }).catch(() => {});
  }
}

async function eachLine(stream: Readable, take: (line: string) => void): Promise<void> {
  const decoder = new TextDecoder();
  let held = '';
  for await (const chunk of stream) {
    held += decoder.decode(chunk as Uint8Array, { stream: true });
    const lines = held.split('\n');
    held = lines.pop() ?? '';
    if (held.length > LINE_LIMIT) throw new Error('an endless line in the event stream');
    for (const line of lines) if (line !== '') take(line);
  }
}

function parse(line: string): EngineEvent | undefined {
  try {
    return JSON.parse(line) as EngineEvent;
  } catch {
    return undefined;
  }
}

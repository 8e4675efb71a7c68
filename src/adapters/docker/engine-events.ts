import type { Readable } from 'node:stream';
import { setTimeout as delay } from 'node:timers/promises';
import type { CopyId } from '../../core/reconcile/types.ts';
import { BOOT_LIMITS } from '../../model/boot-protocol.ts';
import { toTaskOrgError } from '../../model/errors.ts';
import type { RuntimeEvent } from '../../ports/runtime.ts';
import { type Owner, ownLabels, readLabels } from './container-spec.ts';
import type { EngineApi } from './engine-api.ts';
import { RecentIds } from './waiting.ts';

const RECONNECT_MS = 250;
const CONNECT_TIMEOUT_MS = 5_000;
const PING_TIMEOUT_MS = 2_000;
/** One event as a line of JSON is far smaller: more without a newline is no event stream. */
const LINE_LIMIT = 1024 * 1024;
const NANOS = 1_000_000_000n;
/** Exit code of SIGKILL: a child may have met the memory limit long before, only a copy that was killed died of it. */
const KILLED = 137;

interface EngineEvent {
  readonly Action?: string;
  readonly timeNano?: number;
  readonly Actor?: { readonly ID?: string; readonly Attributes?: Readonly<Record<string, string>> };
}

/**
 * Follows the engine's events of our containers until `signal` aborts: ends as they happen. A closed connection is `down`
 * when a ping fails, too; then it is tried every 250 ms, and the stream goes on where it was left (`since`). `isPresent`:
 * whether a container is the one its copy has now and whose end was not asked for; the ends of others are not told.
 */
export async function followEvents(
  api: EngineApi,
  owner: Owner,
  onEvent: (event: RuntimeEvent) => void,
  isPresent: (copyId: CopyId, containerId: string) => boolean,
  signal: AbortSignal,
): Promise<void> {
  const oom = new RecentIds(BOOT_LIMITS.copies);
  // By container, which ends once: `since` names the last events again, and events that happen together come in any order.
  const told = new RecentIds(BOOT_LIMITS.copies);
  let lastNano = BigInt(Date.now()) * 1_000_000n;
  let connected: boolean | undefined;
  const labels = Object.entries(ownLabels(owner)).map(([name, value]) => `${name}=${value}`);
  const filters = JSON.stringify({ type: ['container'], event: ['die', 'oom'], label: labels });

  const take = (line: string): void => {
    const event = parse(line);
    const nano = BigInt(Math.round(event?.timeNano ?? 0));
    const copyId = readLabels(event?.Actor?.Attributes ?? {})?.copyId;
    const id = event?.Actor?.ID ?? '';
    if (!event || copyId === undefined) return;
    if (nano > lastNano) lastNano = nano;
    if (event.Action === 'oom') oom.add(id);
    if (event.Action !== 'die' || told.has(id)) return;
    told.add(id);
    const limitMet = oom.delete(id);
    if (!isPresent(copyId, id)) return;
    const code = Number(event.Actor?.Attributes?.exitCode ?? Number.NaN);
    onEvent({
      type: 'exited',
      copyId,
      exitCode: Number.isInteger(code) ? code : null,
      oomKilled: limitMet && code === KILLED,
    });
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
    if (connected !== false && !(await answers(api, signal)) && !signal.aborted) {
      onEvent({ type: 'down', reason });
      connected = false;
    }
    await delay(RECONNECT_MS, undefined, { signal }).catch(() => {});
  }
}

async function answers(api: EngineApi, signal: AbortSignal): Promise<boolean> {
  try {
    await api.call({ method: 'GET', path: '/_ping', signal, timeoutMs: PING_TIMEOUT_MS });
    return true;
  } catch {
    return false;
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

import type { MonoMs } from '../model/ids.ts';
import type { Clock } from '../ports/clock.ts';

// Self-clocked batching of what clients propose (group commit, DeWitt et al. 1984, with Nagle's rule, RFC 896): while little
// is under way everything goes at once; under load what comes waits for what is under way, but never longer than GATHER_MS.
// One batch costs every machine one message, one write and one fsync, however many proposals it holds.

/** Below so many unanswered proposals nothing waits. */
const EAGER = 4;
const GATHER_MS = 4;
/** So many do not wait for more. */
const MOST = 256;

export interface Gather<T> {
  add(item: T): void;
  /** One of those flushed was answered. */
  answered(): void;
}

export function createGather<T>(clock: Clock, flush: (items: T[]) => void): Gather<T> {
  let waiting: T[] = [];
  let underWay = 0;
  let soon = false;
  let cancel: (() => void) | undefined;

  const go = (): void => {
    soon = false;
    cancel?.();
    cancel = undefined;
    if (waiting.length === 0) return;
    const items = waiting;
    waiting = [];
    underWay += items.length;
    flush(items);
  };
  /** The requests of one turn of the event loop go on together. */
  const goSoon = (): void => {
    if (soon) return;
    soon = true;
    setImmediate(go);
  };

  return {
    add: (item) => {
      waiting.push(item);
      if (underWay < EAGER || waiting.length >= MOST) goSoon();
      else cancel ??= clock.at((clock.mono() + GATHER_MS) as MonoMs, go);
    },
    answered: () => {
      underWay -= 1;
      if (waiting.length > 0 && underWay < EAGER) goSoon();
    },
  };
}

// Named wake-up times: a binary heap with lazy deletion, so that setting, moving and finding the next one costs O(log n)
// however many copies, slots or leases there are. Used by the cores that must say when they want to be called next.

export interface WakeQueue {
  /** Sets or moves the wake-up of `key`. */
  set(key: string, at: number): void;
  /** As `set`, but never later than what is already set. */
  setEarlier(key: string, at: number): void;
  delete(key: string): void;
  get(key: string): number | undefined;
  /** Earliest time set, if any. */
  next(): number | undefined;
  /** Takes out all keys whose time has come, earliest first. */
  due(now: number): string[];
  clear(): void;
  readonly size: number;
}

interface Item {
  readonly at: number;
  readonly key: string;
}

export function createWakeQueue(): WakeQueue {
  const times = new Map<string, number>();
  let heap: Item[] = [];

  const up = (start: number): void => {
    let i = start;
    while (i > 0) {
      const parent = (i - 1) >> 1;
      const a = heap[i] as Item;
      const b = heap[parent] as Item;
      if (b.at <= a.at) return;
      heap[i] = b;
      heap[parent] = a;
      i = parent;
    }
  };
  const down = (): void => {
    let i = 0;
    for (;;) {
      const left = 2 * i + 1;
      if (left >= heap.length) return;
      const right = left + 1;
      const child = right < heap.length && (heap[right] as Item).at < (heap[left] as Item).at ? right : left;
      const a = heap[i] as Item;
      const b = heap[child] as Item;
      if (a.at <= b.at) return;
      heap[i] = b;
      heap[child] = a;
      i = child;
    }
  };
  const pop = (): void => {
    const last = heap.pop() as Item;
    if (heap.length > 0) {
      heap[0] = last;
      down();
    }
  };
  /** Drops stale tops; rebuilds when moved and deleted items outweigh live ones, so the heap stays bounded by 4x live. */
  const settle = (): Item | undefined => {
    for (;;) {
      const top = heap[0];
      if (top === undefined || times.get(top.key) === top.at) return top;
      pop();
    }
  };
  const push = (key: string, at: number): void => {
    times.set(key, at);
    heap.push({ at, key });
    up(heap.length - 1);
    if (heap.length > 64 && heap.length > 4 * times.size) {
      heap = [...times].map(([k, t]) => ({ at: t, key: k })).sort((a, b) => a.at - b.at);
    }
  };

  return {
    set: (key, at) => {
      if (times.get(key) !== at) push(key, at);
    },
    setEarlier: (key, at) => {
      const old = times.get(key);
      if (old === undefined || at < old) push(key, at);
    },
    delete: (key) => {
      times.delete(key);
    },
    get: (key) => times.get(key),
    next: () => settle()?.at,
    due: (now) => {
      const out: string[] = [];
      for (let top = settle(); top !== undefined && top.at <= now; top = settle()) {
        times.delete(top.key);
        pop();
        out.push(top.key);
      }
      return out;
    },
    clear: () => {
      times.clear();
      heap = [];
    },
    get size() {
      return times.size;
    },
  };
}

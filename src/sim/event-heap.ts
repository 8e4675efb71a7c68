/** A binary heap of things to do, by virtual time, then by order of insertion: the same seed gives the same order. */
export interface EventHeap {
  push(at: number, run: () => void): void;
  /** Removes and returns the earliest; undefined when empty. */
  pop(): { readonly at: number; readonly run: () => void } | undefined;
  /** Time of the earliest. */
  nextAt(): number | undefined;
  readonly size: number;
}

interface Item {
  readonly at: number;
  readonly order: number;
  readonly run: () => void;
}

export function createEventHeap(): EventHeap {
  const items: Item[] = [];
  let order = 0;
  const before = (a: Item, b: Item): boolean => a.at < b.at || (a.at === b.at && a.order < b.order);

  return {
    push: (at, run) => {
      const item = { at, order: order++, run };
      let i = items.length;
      items.push(item);
      while (i > 0) {
        const parent = (i - 1) >> 1;
        const p = items[parent] as Item;
        if (!before(item, p)) break;
        items[i] = p;
        i = parent;
      }
      items[i] = item;
    },
    pop: () => {
      const top = items[0];
      const last = items.pop();
      if (top === undefined || last === undefined) return undefined;
      if (items.length > 0) {
        let i = 0;
        for (;;) {
          let child = 2 * i + 1;
          if (child >= items.length) break;
          if (child + 1 < items.length && before(items[child + 1] as Item, items[child] as Item)) child += 1;
          if (!before(items[child] as Item, last)) break;
          items[i] = items[child] as Item;
          i = child;
        }
        items[i] = last;
      }
      return top;
    },
    nextAt: () => items[0]?.at,
    get size() {
      return items.length;
    },
  };
}

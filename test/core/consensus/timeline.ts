// Virtual time: what is to happen, earliest first; at the same instant in the order it was asked for. A binary heap.

interface Item {
  readonly at: number;
  readonly seq: number;
  readonly run: () => void;
}

export class Timeline {
  readonly #heap: Item[] = [];
  #seq = 0;

  get next(): number {
    return this.#heap[0]?.at ?? Number.POSITIVE_INFINITY;
  }

  at(at: number, run: () => void): void {
    const item = { at, seq: this.#seq++, run };
    const h = this.#heap;
    h.push(item);
    let i = h.length - 1;
    while (i > 0) {
      const up = (i - 1) >> 1;
      if (before(h[up] as Item, item)) break;
      h[i] = h[up] as Item;
      i = up;
    }
    h[i] = item;
  }

  pop(): Item | undefined {
    const h = this.#heap;
    const top = h[0];
    const last = h.pop();
    if (top === undefined || last === undefined || h.length === 0) return top;
    let i = 0;
    for (;;) {
      let kid = 2 * i + 1;
      if (kid >= h.length) break;
      if (kid + 1 < h.length && before(h[kid + 1] as Item, h[kid] as Item)) kid++;
      if (before(last, h[kid] as Item)) break;
      h[i] = h[kid] as Item;
      i = kid;
    }
    h[i] = last;
    return top;
  }
}

function before(a: Item, b: Item): boolean {
  return a.at < b.at || (a.at === b.at && a.seq < b.seq);
}

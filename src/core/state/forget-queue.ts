import type { WallMs } from '../../model/ids.ts';
import type { SubmissionVerdict } from '../../model/records.ts';
import type { ForgetQueue } from './types.ts';

const before = (a: SubmissionVerdict, b: SubmissionVerdict): boolean =>
  a.forgetAt < b.forgetAt || (a.forgetAt === b.forgetAt && a.id < b.id);

/** A binary heap. Its order is total, so two peers that built it differently still forget in the same order. */
export function createForgetQueue(): ForgetQueue {
  const heap: SubmissionVerdict[] = [];
  const at = (i: number): SubmissionVerdict => heap[i] as SubmissionVerdict;

  const swap = (i: number, j: number): void => {
    const t = at(i);
    heap[i] = at(j);
    heap[j] = t;
  };

  const sink = (): void => {
    for (let i = 0; ; ) {
      let least = i;
      for (const child of [2 * i + 1, 2 * i + 2])
        if (child < heap.length && before(at(child), at(least))) least = child;
      if (least === i) return;
      swap(i, least);
      i = least;
    }
  };

  return {
    get size() {
      return heap.length;
    },
    push(verdict) {
      heap.push(verdict);
      for (let i = heap.length - 1; i > 0; ) {
        const parent = (i - 1) >> 1;
        if (!before(at(i), at(parent))) return;
        swap(i, parent);
        i = parent;
      }
    },
    popDue(now: WallMs) {
      const first = heap[0];
      if (first === undefined || first.forgetAt > now) return undefined;
      const last = heap.pop() as SubmissionVerdict;
      if (heap.length > 0) {
        heap[0] = last;
        sink();
      }
      return first;
    },
  };
}

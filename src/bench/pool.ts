/** At most `width` of the items in work at once. `worker` is 0..width-1. Rejects with the first failure. */
export async function pool<T>(
  items: readonly T[],
  width: number,
  work: (item: T, index: number, worker: number) => Promise<void>,
): Promise<void> {
  let next = 0;
  const run = async (worker: number): Promise<void> => {
    while (next < items.length) {
      const index = next++;
      await work(items[index] as T, index, worker);
    }
  };
  await Promise.all(Array.from({ length: Math.min(width, items.length) }, (_, worker) => run(worker)));
}

/** Part `index` of `total` split as evenly as whole numbers allow. */
export function share(total: number, parts: number, index: number): number {
  return Math.floor(total / parts) + (index < total % parts ? 1 : 0);
}

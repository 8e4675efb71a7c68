/**
 * Carries effects out one after another. An effect that leads to further effects (a read that is ready lets a lease be granted,
 * which asks for the next read, ...) has them wait for those that came before: what was committed first is applied first.
 */
export function createInOrder<T>(run: (effect: T) => void): (effects: readonly T[]) => void {
  const waiting: T[] = [];
  let running = false;
  return (effects) => {
    for (const effect of effects) waiting.push(effect);
    if (running) return;
    running = true;
    for (let next = waiting.shift(); next !== undefined; next = waiting.shift()) run(next);
    running = false;
  };
}

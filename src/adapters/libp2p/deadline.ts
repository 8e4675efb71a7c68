/**
 * Calls back after `ms`, or later: never before the sockets have been read. A stalled loop fires its timers before it reads
 * what arrived in time, so an overdue timer would accuse the other end of this end's own stall. Two turns drain it.
 * Returns a cancel function.
 */
export function deadline(ms: number, action: () => void): () => void {
  let cancelled = false;
  const act = (): void => {
    if (!cancelled) action();
  };
  const timer = setTimeout(() => setImmediate(() => setImmediate(act)), ms);
  return () => {
    cancelled = true;
    clearTimeout(timer);
  };
}

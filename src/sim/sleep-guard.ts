import type { NodeId } from '../model/ids.ts';
import { InvariantBroken } from './invariants.ts';

// A core that is always due again keeps a processor busy, and virtual time standing.

/** No timer is finer. */
export const TIMER_MS = 0.01;
const WINDOW_MS = 10;
const TICKS = 500;

/** To be called at every tick of a peer. */
export function sleepGuard(node: NodeId): (now: number) => void {
  let from = 0;
  let ticks = 0;
  return (now) => {
    if (now - from > WINDOW_MS) {
      from = now;
      ticks = 0;
    }
    ticks += 1;
    if (ticks > TICKS)
      throw new InvariantBroken('a core sleeps', `${node} wakes ${TICKS} times within ${WINDOW_MS} ms, at ${now}`);
  };
}

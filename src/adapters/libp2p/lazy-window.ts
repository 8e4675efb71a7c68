import type { Stream } from '@libp2p/interface';

/** What is used of a yamux stream. */
interface Windowed {
  state: number;
  recvWindow: number;
  recvWindowCapacity: number;
  sendWindowUpdate(): void;
}

/** yamux's own number for a stream that is open both ways. */
const ESTABLISHED = 3;

/**
 * Grants new room to send only once half of it is used, as the yamux specification says ('only ... when they have a
 * significant delta', and as HashiCorp's does). libp2p's answers every frame of data with one of its own, which costs each
 * message of ours a second packet and the other end a second waking. Where a stream looks different, it stays as it was.
 */
export function lazyWindow(stream: Stream): void {
  const windowed = stream as unknown as Partial<Windowed>;
  const { sendWindowUpdate } = windowed;
  if (typeof sendWindowUpdate !== 'function' || typeof windowed.recvWindow !== 'number') return;
  if (typeof windowed.recvWindowCapacity !== 'number' || typeof windowed.state !== 'number') return;
  const own = windowed as Windowed;
  own.sendWindowUpdate = () => {
    if (own.state === ESTABLISHED && own.recvWindowCapacity > own.recvWindow / 2) return;
    sendWindowUpdate.call(own);
  };
}

import type { Connection } from '@libp2p/interface';

/** What is used of node:net's Socket. */
interface Corkable {
  write(...args: readonly unknown[]): boolean;
  cork(): void;
  uncork(): void;
}

/**
 * Gathers what one callback writes to a connection's socket into one system call, and so into one packet: every frame
 * otherwise takes a write each for its length, its text and its tag, and wakes the other end as often. libp2p gives no door
 * to the socket, so it is looked for; where it is not found, or looks different, everything stays as it was.
 */
export function corkWrites(connection: Connection): void {
  const { maConn } = connection as unknown as { readonly maConn?: { readonly socket?: Corkable } };
  const socket = maConn?.socket;
  if (typeof socket?.write !== 'function' || typeof socket.cork !== 'function') return;
  const write = socket.write.bind(socket);
  let corked = false;
  const uncork = (): void => {
    corked = false;
    socket.uncork();
  };
  socket.write = (...args) => {
    if (!corked) {
      corked = true;
      socket.cork();
      process.nextTick(uncork);
    }
    return write(...args);
  };
}

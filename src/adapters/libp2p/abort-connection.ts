import type { Connection } from '@libp2p/interface';

/**
 * Cuts a connection at once. libp2p's own abort runs our close listeners in its middle; when one of them cuts the same
 * connection again, the outer call throws on its last words to the other end. The second try finishes what it left.
 */
export function abortConnection(connection: Connection, reason: string): void {
  const error = new Error(reason);
  try {
    connection.abort(error);
  } catch {
    try {
      connection.abort(error);
    } catch {
      // Closed already.
    }
  }
}

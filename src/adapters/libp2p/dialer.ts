import type { Connection } from '@libp2p/interface';
import { multiaddr } from '@multiformats/multiaddr';
import { abortConnection } from './abort-connection.ts';

/** The head start of a better address over the next one. */
const STAGGER_MS = 150;
/** An address that answers nothing for this long is given up. */
const ADDRESS_TIMEOUT_MS = 2_500;
const MAX_ADDRESSES = 24;

export interface DialFailure {
  readonly address: string;
  readonly refused: boolean;
  readonly message: string;
}
export type DialOutcome =
  | { readonly ok: true; readonly connection: Connection; readonly address: string }
  | { readonly ok: false; readonly failures: readonly DialFailure[] };

export interface AddressDialer {
  dial(address: ReturnType<typeof multiaddr>, options: { signal: AbortSignal }): Promise<Connection>;
}

/**
 * Dials the addresses of one peer, best first, each a little after the one before or as soon as that failed (RFC 8305's
 * way): an address that swallows packets costs 150 ms, not a timeout. The first to be upgraded wins, the others are dropped.
 * libp2p's own queue takes one address after the other. `peer` null: whoever answers.
 */
export async function race(
  dialer: AddressDialer,
  peer: string | null,
  addresses: readonly string[],
  signal: AbortSignal,
): Promise<DialOutcome> {
  const targets = addresses.slice(0, MAX_ADDRESSES);
  const failures: DialFailure[] = [];
  if (targets.length === 0) return { ok: false, failures };
  const attempts = new Set<AbortController>();
  const done = Promise.withResolvers<DialOutcome>();
  let next = 0;
  let open = 0;
  let won = false;
  let timer: NodeJS.Timeout | undefined;
  const attempt = async (address: string): Promise<void> => {
    // Not the caller's signal: Node destroys a socket whose connect signal aborts, even long after it is connected.
    const controller = new AbortController();
    attempts.add(controller);
    const overdue = setTimeout(() => controller.abort(), ADDRESS_TIMEOUT_MS);
    try {
      const target = multiaddr(peer === null ? address : `${address}/p2p/${peer}`);
      const connection = await dialer.dial(target, { signal: controller.signal });
      attempts.delete(controller);
      if (won) abortConnection(connection, 'another address was faster');
      else {
        won = true;
        for (const other of attempts) other.abort();
        done.resolve({ ok: true, connection, address });
      }
    } catch (cause) {
      failures.push({
        address,
        refused: isRefused(cause),
        message: cause instanceof Error ? cause.message : String(cause),
      });
    } finally {
      clearTimeout(overdue);
      attempts.delete(controller);
      open--;
      if (!won) launch();
    }
  };
  const launch = (): void => {
    clearTimeout(timer);
    const address = signal.aborted ? undefined : targets[next++];
    if (address === undefined) {
      if (open === 0 && !won) done.resolve({ ok: false, failures });
      return;
    }
    open++;
    void attempt(address);
    timer = setTimeout(() => {
      if (!won && next < targets.length) launch();
    }, STAGGER_MS);
  };
  const onAbort = (): void => {
    for (const controller of attempts) controller.abort();
  };
  signal.addEventListener('abort', onAbort, { once: true });
  launch();
  try {
    return await done.promise;
  } finally {
    signal.removeEventListener('abort', onAbort);
    clearTimeout(timer);
  }
}

function isRefused(cause: unknown): boolean {
  if (!(cause instanceof Error)) return false;
  return (cause as NodeJS.ErrnoException).code === 'ECONNREFUSED' || cause.message.includes('ECONNREFUSED');
}

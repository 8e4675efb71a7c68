import type { Connection } from '@libp2p/interface';
import type { Counters } from './counters.ts';

// What a stranger may send. libp2p reads the length of a negotiation's message byte by byte and looks at all bytes read so
// far each time: a megabyte that never ends such a length keeps the event loop for seconds, and leases run out meanwhile.
// Admission needs less than a kilobyte, joining a few; so everything before it is counted, and cut off early.

/** Up to the end of encryption and multiplexing. */
const NEGOTIATION_BYTES = 16 * 1024;
/** Up to admission, in all: one frame of the join dialogue and what is around it. */
const STRANGER_BYTES = 96 * 1024;

/** What is used of a connection that libp2p has not upgraded yet. */
export interface RawConnection {
  readonly remoteAddr: { toString(): string };
  onData(data: { readonly byteLength: number }): void;
  abort(error: Error): void;
  addEventListener(type: 'close', listener: () => void): void;
}

/** Address and port. An upgraded connection's address also names its peer. */
const addressOf = (connection: { readonly remoteAddr: { toString(): string } }): string =>
  connection.remoteAddr.toString().replace(/\/p2p\/.*$/, '');

interface Guest {
  left: number;
}

export class StrangerAllowance {
  readonly #counters: Counters;
  /** By remote address and port: what the raw connection and the upgraded one have in common. */
  readonly #guests = new Map<string, Guest>();

  constructor(counters: Counters) {
    this.#counters = counters;
  }

  /** An inbound connection, before anything is read from it. */
  watch(raw: RawConnection): void {
    const key = addressOf(raw);
    const guest: Guest = { left: NEGOTIATION_BYTES };
    this.#guests.set(key, guest);
    const forget = (): void => {
      if (this.#guests.get(key) === guest) this.#guests.delete(key);
    };
    const onData = raw.onData.bind(raw);
    raw.onData = (data) => {
      guest.left -= data.byteLength;
      if (guest.left >= 0) return onData(data);
      forget();
      this.#counters.add('refused_allowance');
      raw.abort(new Error('a stranger sends too much'));
    };
    raw.addEventListener('close', forget);
  }

  /** It speaks the protocols, encrypted: room for admission. */
  opened(connection: Connection): void {
    const guest = this.#guests.get(addressOf(connection));
    if (guest) guest.left += STRANGER_BYTES - NEGOTIATION_BYTES;
  }

  /** A stranger no more. */
  lift(connection: Connection): void {
    const key = addressOf(connection);
    const guest = this.#guests.get(key);
    if (!guest) return;
    guest.left = Number.POSITIVE_INFINITY;
    this.#guests.delete(key);
  }
}

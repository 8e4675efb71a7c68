import type { ConnectionEncrypter } from '@libp2p/interface';
import { type NoiseComponents, type NoiseExtensions, noise } from '@libp2p/noise';

// Noise, less one cost: its decoder ends every message by throwing a RangeError for the length that has not come yet, and
// building that error's stack takes longer than decrypting a heartbeat. Here a length that has not come counts as the
// longest there is, which has not come either: the decoder waits, and nothing is thrown.

const LENGTH_BYTES = 2;
const LONGEST = 0xffff;

/** What is used of a Uint8Array or Uint8ArrayList. */
interface Bytes {
  readonly byteLength: number;
  subarray(from: number, to: number): Uint8Array;
}

function lengthOf(bytes: Bytes): number {
  if (bytes.byteLength < LENGTH_BYTES) return LONGEST;
  const [high = 0, low = 0] = bytes.subarray(0, LENGTH_BYTES);
  return (high << 8) | low;
}

/** Where the stream's decoder is not found, or looks different, everything stays as it was. */
function quieten<T extends { readonly connection: unknown }>(secured: T): T {
  const { decoder } = secured.connection as { readonly decoder?: { lengthDecoder?: unknown } };
  if (typeof decoder?.lengthDecoder === 'function') decoder.lengthDecoder = lengthOf;
  return secured;
}

export function encryption(): (components: NoiseComponents) => ConnectionEncrypter<NoiseExtensions> {
  const make = noise();
  return (components) => {
    const encrypter = make(components);
    const inbound = encrypter.secureInbound.bind(encrypter);
    const outbound = encrypter.secureOutbound.bind(encrypter);
    return Object.assign(encrypter, {
      secureInbound: async (...args: Parameters<typeof inbound>) => quieten(await inbound(...args)),
      secureOutbound: async (...args: Parameters<typeof outbound>) => quieten(await outbound(...args)),
    });
  };
}

import { createHmac, hkdfSync, timingSafeEqual } from 'node:crypto';
import { PROBE } from '../../model/boot-protocol.ts';

// The probe of another machine's boot: one datagram each way. It proves that the machine and its supervisor live, when the
// agent does not answer (SWIM's direct probe, Das et al. 2002 section 3.1, taken to a second process of the member).
//
//   request: 'T' 'O' 1 1 | nonce 16 | length 1, prober's id | MAC 16
//   reply:   'T' 'O' 1 2 | nonce 16 | flags 1               | MAC 16          never longer than a request
//
// MAC = first 16 bytes of HMAC-SHA256 over (label, kind, cluster id, prober, target, nonce, flags), so nothing can be
// altered, sent on to another target, or reflected; the nonce is the prober's and counts once.

const REQUEST = 1;
const REPLY = 2;
const HEAD = Uint8Array.of(0x54, 0x4f, 1);
const NONCE_AT = 4;
const BODY_AT = NONCE_AT + PROBE.nonceBytes;

/** Key of the probes, 32 bytes, from the cluster's secret. The secret itself stays with the agent. */
export function deriveProbeKey(secret: Uint8Array, clusterId: string): Buffer {
  return Buffer.from(hkdfSync('sha256', secret, clusterId, PROBE.label, 32));
}

export interface ProbeNames {
  readonly clusterId: string;
  readonly prober: string;
  readonly target: string;
}

function mac(key: Uint8Array, kind: number, names: ProbeNames, nonce: Uint8Array, flags: number): Buffer {
  const hmac = createHmac('sha256', key);
  for (const part of [PROBE.label, names.clusterId, names.prober, names.target]) {
    const bytes = Buffer.from(part);
    // Lengths keep the fields apart.
    hmac.update(Uint8Array.of(bytes.length >> 8, bytes.length & 0xff)).update(bytes);
  }
  return hmac.update(nonce).update(Uint8Array.of(kind, flags)).digest().subarray(0, PROBE.macBytes);
}

const isKind = (packet: Uint8Array, kind: number): boolean =>
  HEAD.every((byte, i) => packet[i] === byte) && packet[3] === kind;

export function encodeRequest(key: Uint8Array, names: ProbeNames, nonce: Uint8Array): Buffer {
  const prober = Buffer.from(names.prober);
  if (prober.length > PROBE.nameBytes) throw new RangeError("prober's id is too long");
  return Buffer.concat([
    HEAD,
    Uint8Array.of(REQUEST),
    nonce,
    Uint8Array.of(prober.length),
    prober,
    mac(key, REQUEST, names, nonce, 0),
  ]);
}

export interface Request {
  readonly nonce: Buffer;
  readonly prober: string;
  readonly mac: Buffer;
}

/** undefined when the bytes are no request. Nothing in it is proven before `verifyRequest`. */
export function decodeRequest(packet: Buffer): Request | undefined {
  const length = packet[BODY_AT] ?? 255;
  if (!isKind(packet, REQUEST) || length > PROBE.nameBytes || packet.length !== BODY_AT + 1 + length + PROBE.macBytes)
    return undefined;
  return {
    nonce: packet.subarray(NONCE_AT, BODY_AT),
    prober: packet.toString('utf8', BODY_AT + 1, BODY_AT + 1 + length),
    mac: packet.subarray(BODY_AT + 1 + length),
  };
}

export function verifyRequest(key: Uint8Array, clusterId: string, target: string, request: Request): boolean {
  return timingSafeEqual(
    request.mac,
    mac(key, REQUEST, { clusterId, prober: request.prober, target }, request.nonce, 0),
  );
}

export function encodeReply(key: Uint8Array, names: ProbeNames, nonce: Uint8Array, flags: number): Buffer {
  return Buffer.concat([HEAD, Uint8Array.of(REPLY), nonce, Uint8Array.of(flags), mac(key, REPLY, names, nonce, flags)]);
}

/** The nonce that a reply answers; undefined when the bytes are no reply. */
export function replyNonce(packet: Buffer): Buffer | undefined {
  return isKind(packet, REPLY) && packet.length === BODY_AT + 1 + PROBE.macBytes
    ? packet.subarray(NONCE_AT, BODY_AT)
    : undefined;
}

/** The flags of a reply whose MAC is right; undefined otherwise. */
export function openReply(key: Uint8Array, names: ProbeNames, packet: Buffer): number | undefined {
  const nonce = replyNonce(packet);
  const flags = packet[BODY_AT];
  if (nonce === undefined || flags === undefined) return undefined;
  return timingSafeEqual(packet.subarray(BODY_AT + 1), mac(key, REPLY, names, nonce, flags)) ? flags : undefined;
}

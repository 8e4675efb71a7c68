import { isDeepStrictEqual } from 'node:util';
import { parseUdpAddress } from '../../adapters/boot-probe/udp-boot-prober.ts';
import { peerIdOf, withoutPeerId } from '../../adapters/libp2p/address-book.ts';
import { formatCopyId, parseCopyId } from '../../core/reconcile/copy-id.ts';
import { parseConstraint, matchesConstraint } from '../../model/constraint.ts';
import { formatGeneration, parseGeneration } from '../../model/generation.ts';
import { formatBytes, formatDuration, parseBytes, parseDurationMs } from '../../model/human-units.ts';
import { clusterId, taskId, wallMs } from '../../model/ids.ts';
import { normalizeImage } from '../../model/image-reference.ts';
import { checker, GenerationSchema } from '../../model/record-schemas.ts';
import { shellWords } from '../../model/shell-words.ts';
import { decodeToken, encodeToken, type JoinToken } from '../../model/token.ts';
import { GENERATION, PROVISIONAL } from '../samples.ts';
import { bytesOf, FuzzFailure, type FuzzTarget, LIMIT_MS, textOf, type Verdict } from '../target.ts';

// Small texts with a form of their own: tokens, generations, copy ids, amounts, command lines, constraints, images, addresses.

const must = (holds: boolean, what: string): void => {
  if (!holds) throw new FuzzFailure(what);
};

function textTarget(
  name: string,
  seeds: readonly string[],
  words: readonly string[],
  decode: (text: string) => Verdict,
  options: Partial<FuzzTarget> = {},
): FuzzTarget {
  return {
    name,
    grammar: 'text',
    seeds: seeds.map(bytesOf),
    words,
    weight: 4,
    maxBytes: 64 * 1024,
    limitMs: LIMIT_MS,
    decode: (bytes) => decode(textOf(bytes)),
    ...options,
  };
}

const TOKEN: JoinToken = {
  clusterId: clusterId('c0ffee'),
  invitationId: 'inv-1',
  key: new Uint8Array(32).fill(7),
  expiresAt: wallMs(1_800_000_000_000),
  addresses: ['/ip4/10.0.0.1/tcp/7420/p2p/12D3Sim000', '/dns4/attic/tcp/7420'],
};
const PREFIX = 'torg1_';

/** The body is mutated, then gets its checksum: only so is what lies behind the checksum ever reached. */
function crc32(bytes: Uint8Array): number {
  let crc = ~0;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ 0xedb88320 : crc >>> 1;
  }
  return ~crc >>> 0;
}
const openToken = (sealed: Uint8Array): Uint8Array =>
  Uint8Array.from(Buffer.from(textOf(sealed).slice(PREFIX.length), 'base64url')).slice(0, -4);

const token: FuzzTarget = {
  name: 'join-token',
  grammar: 'cbor',
  seeds: [openToken(bytesOf(encodeToken(TOKEN))), openToken(bytesOf(encodeToken({ ...TOKEN, addresses: [] })))],
  seal: {
    wrap: (body) => {
      const sum = Buffer.alloc(4);
      sum.writeUInt32BE(crc32(body));
      return bytesOf(PREFIX + Buffer.concat([body, sum]).toString('base64url'));
    },
    open: openToken,
  },
  weight: 6,
  maxBytes: 64 * 1024,
  limitMs: LIMIT_MS,
  decode: (bytes) => {
    const read = decodeToken(textOf(bytes));
    must(isDeepStrictEqual(decodeToken(encodeToken(read)), read), 'a token reads otherwise when it is written again');
    return 'accepted';
  },
};

const generationFits = checker(GenerationSchema);

const generation = textTarget(
  'generation',
  ['1.7', '1.7~2@12D3Sim001', '0.0', '999999999.1'],
  ['~', '@', '.'],
  (text) => {
    const read = parseGeneration(text);
    if (read === undefined) return 'refused';
    must(
      isDeepStrictEqual(parseGeneration(formatGeneration(read)), read),
      'a generation reads otherwise when it is written again',
    );
    must(generationFits(read).ok, 'a generation is read that no message may carry');
    return 'accepted';
  },
);

/** The other way about: what messages may carry can be written as a text and read back. */
const generationValue: FuzzTarget = {
  name: 'generation-value',
  grammar: 'json',
  seeds: [GENERATION, PROVISIONAL, { epoch: 0, g: 0, provisional: { caretaker: '12D3.-_', n: 0 } }].map((g) =>
    bytesOf(JSON.stringify(g)),
  ),
  weight: 4,
  maxBytes: 4096,
  limitMs: LIMIT_MS,
  decode: (bytes) => {
    let value: unknown;
    try {
      value = JSON.parse(textOf(bytes));
    } catch {
      return 'refused';
    }
    const checked = generationFits(value);
    if (!checked.ok) return 'refused';
    const name = { taskId: taskId('t.1.2'), slot: 3, generation: checked.value, specVersion: 4 };
    must(
      isDeepStrictEqual(parseGeneration(formatGeneration(checked.value)), checked.value),
      `generation ${formatGeneration(checked.value)} cannot be read back`,
    );
    must(isDeepStrictEqual(parseCopyId(formatCopyId(name)), name), `copy ${formatCopyId(name)} cannot be read back`);
    return 'accepted';
  },
};

const copyId = textTarget(
  'copy-id',
  ['t-web.0.1.7.1', 'a.b.c.12.1.7~2@12D3Sim001.3', '1.2.3.4.5.6'],
  ['~', '@', '.', '0', '99999'],
  (text) => {
    const read = parseCopyId(text);
    if (read === undefined) return 'refused';
    must(
      isDeepStrictEqual(parseCopyId(formatCopyId(read)), read),
      'a copy id reads otherwise when it is written again',
    );
    return 'accepted';
  },
);

const amounts = textTarget(
  'human-units',
  ['64m', '1.5 GiB', '0', '250ms', '1h30m', '1d2h3m4s5ms6us', '999999999999d'],
  ['k', 'KiB', 'PB', 'us', 'ms', 's', 'h', 'd', '.', '1e3'],
  (text) => {
    const bytes = parseBytes(text);
    const ms = parseDurationMs(text);
    for (const [read, again, unit] of [
      [bytes, bytes === undefined ? undefined : parseBytes(formatBytes(bytes)), 'size'],
      [ms, ms === undefined ? undefined : parseDurationMs(formatDuration(ms)), 'duration'],
    ] as const) {
      if (read === undefined) continue;
      must(Number.isSafeInteger(read) && read >= 0, `a ${unit} of ${read}`);
      must(again !== undefined, `the ${unit} ${read} is shown in a form that cannot be read`);
      // Shown with two decimals, of the largest unit that fits; a minute and more, in whole seconds.
      must(
        Math.abs((again as number) - read) <= Math.max(500, read * 0.006),
        `the ${unit} ${read} is shown as ${again}`,
      );
    }
    return bytes === undefined && ms === undefined ? 'refused' : 'accepted';
  },
);

const words = textTarget(
  'shell-words',
  [`nginx -g 'daemon off;'`, `a "b \\" c" d\\ e`, `sh -c "while :; do date; sleep 1; done"`, ''],
  ["'", '"', '\\', '\\\n', ' ', '\t'],
  (text) => {
    const read = shellWords(text);
    if (!read.ok) return 'refused';
    const quoted = read.words.map((w) => `'${w.replaceAll("'", `'\\''`)}'`).join(' ');
    const again = shellWords(quoted);
    must(
      again.ok && isDeepStrictEqual(again.words, read.words),
      'words read otherwise when they are quoted and read again',
    );
    return 'accepted';
  },
);

const subject = { id: '12D3Sim000', name: 'node1', os: 'linux', arch: 'x64', labels: { zone: 'eu' } };

const constraint = textTarget(
  'constraint',
  ['node.labels.zone==eu', 'node.name!=node3', 'node.platform.arch == arm64', 'node.id==12D3Sim000'],
  ['node.', 'labels.', '==', '!=', 'node.role', '__proto__', 'constructor'],
  (text) => {
    const read = parseConstraint(text);
    if (!read.ok) return 'refused';
    matchesConstraint(read.constraint, subject);
    const again = parseConstraint(read.constraint.text);
    must(
      again.ok && isDeepStrictEqual(again.constraint, read.constraint),
      'a constraint reads otherwise when it is written again',
    );
    return 'accepted';
  },
);

const image = textTarget(
  'image-reference',
  ['nginx', 'docker.io/library/busybox:latest', 'registry:5000/a/b@sha256:abc', 'a/b:c'],
  ['docker.io/', 'index.', 'library/', ':', '@', '/', ' '],
  (text) => {
    must(/[:@]/.test(normalizeImage(text)), 'the full form of an image has neither tag nor digest');
    return 'accepted';
  },
);

const addresses = textTarget(
  'addresses',
  [
    '/ip4/10.0.0.1/tcp/7420',
    '/ip6/fe80::1%eth0/tcp/1/p2p/12D3KooWJGqHdKiUCkCZnGCzMMUUDkyGKFGkWfHVBpSy4A4XGZrL',
    '/dns4/attic/tcp/7420',
    '10.0.0.1:7421',
    '[fe80::1]:7421',
  ],
  ['/ip4/', '/ip6/', '/tcp/', '/udp/', '/p2p/', '/dns/', '::', '%', '/p2p-circuit', '65536', '0.0.0.0'],
  (text) => {
    parseUdpAddress(text);
    peerIdOf(text);
    const address = withoutPeerId(text);
    if (address === null) return 'refused';
    must(withoutPeerId(address) === address, `the address ${address} reads otherwise when it is written again`);
    return 'accepted';
  },
);

export const nameTargets = (): FuzzTarget[] => [
  token,
  generation,
  generationValue,
  copyId,
  amounts,
  words,
  constraint,
  image,
  addresses,
];

import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { TaskOrgError } from '../../src/model/errors.ts';
import { clusterId, wallMs } from '../../src/model/ids.ts';
import { decodeToken, encodeToken, type JoinToken } from '../../src/model/token.ts';

const token: JoinToken = {
  clusterId: clusterId('k3x9'),
  invitationId: 'inv-1',
  key: Uint8Array.from({ length: 32 }, (_, i) => i),
  expiresAt: wallMs(1_790_000_000_000),
  addresses: ['/ip4/192.168.1.5/tcp/4001/p2p/12D3KooWBKrJVnALvKY72PhTEPbacoDGCuenbguufxjzbqaJDgps'],
};
const codeOf = (text: string): string => {
  try {
    decodeToken(text);
    return 'accepted';
  } catch (cause) {
    return cause instanceof TaskOrgError ? cause.code : String(cause);
  }
};

describe('join token', () => {
  test('comes back as it was, through line breaks and blanks of a copy', () => {
    const text = encodeToken(token);
    expect(text).toMatch(/^torg1_[A-Za-z0-9_-]+$/);
    expect(decodeToken(text)).toEqual(token);
    expect(decodeToken(`  ${text.slice(0, 40)}\n${text.slice(40)}\t`)).toEqual(token);
  });

  test('is refused when cut anywhere', () => {
    const text = encodeToken(token);
    for (let length = 0; length < text.length; length++) expect(codeOf(text.slice(0, length))).toBe('token_invalid');
  });

  test('is refused when any character is another', () => {
    const text = encodeToken(token);
    fc.assert(
      fc.property(fc.integer({ min: 0, max: text.length - 1 }), fc.constantFrom(...'abcXYZ019_-=/+ é'), (at, other) => {
        // The last character may hold bits that no byte uses; white space is dropped.
        fc.pre(text[at] !== other && other !== ' ' && at < text.length - 1);
        expect(codeOf(text.slice(0, at) + other + text.slice(at + 1))).toBe('token_invalid');
      }),
    );
  });

  test('is refused when it is anything else', () => {
    for (const text of ['', 'hello', 'torg1_', 'torg2_abcd', `torg1_${'A'.repeat(20_000)}`, 'torg1_AAAAAAAAAAAA'])
      expect(codeOf(text)).toBe('token_invalid');
    fc.assert(fc.property(fc.string(), (text) => codeOf(`torg1_${text}`) === 'token_invalid'));
  });

  test('is refused when a field is missing or of another kind, however right its checksum', () => {
    const wrong: readonly Partial<Record<keyof JoinToken, unknown>>[] = [
      { key: new Uint8Array(31) },
      { clusterId: '' },
      { invitationId: '' },
      { expiresAt: 1.5 },
      { addresses: [1] },
    ];
    for (const fields of wrong) expect(codeOf(encodeToken({ ...token, ...fields } as JoinToken))).toBe('token_invalid');
  });

  test('the error says what to do', () => {
    expect(() => decodeToken('torg1_abc')).toThrow(
      expect.objectContaining({ hint: expect.stringContaining('task-org token create') }),
    );
  });
});

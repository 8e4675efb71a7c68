import { extract } from 'tar-stream';
import { expect, test } from 'vitest';
import { buildImage, buildTar, type TarEntry } from '../../src/scenario/hosts/image.ts';

const entries: readonly TarEntry[] = [
  { kind: 'directory', path: 'bin', mode: 0o755 },
  { kind: 'file', path: 'bin/tool', mode: 0o755, data: Buffer.from('x'.repeat(700)) },
  { kind: 'symlink', path: 'bin/other', target: 'tool' },
  { kind: 'file', path: 'empty', mode: 0o600, data: Buffer.alloc(0) },
];

async function read(tar: Buffer): Promise<
  {
    name: string;
    type: string | null | undefined;
    mode: number | undefined;
    link: string | null | undefined;
    text: string;
  }[]
> {
  const found: Awaited<ReturnType<typeof read>> = [];
  const reader = extract();
  reader.end(tar);
  for await (const entry of reader) {
    const parts: Buffer[] = [];
    for await (const part of entry) parts.push(part as Buffer);
    const { name, type, mode, linkname } = entry.header;
    found.push({ name, type, mode, link: linkname, text: Buffer.concat(parts).toString() });
  }
  return found;
}

test('another reader finds in a tar what was put into it', async () => {
  expect(await read(buildTar(entries))).toEqual([
    { name: 'bin/', type: 'directory', mode: 0o755, link: null, text: '' },
    { name: 'bin/tool', type: 'file', mode: 0o755, link: null, text: 'x'.repeat(700) },
    { name: 'bin/other', type: 'symlink', mode: 0o777, link: 'tool', text: '' },
    { name: 'empty', type: 'file', mode: 0o600, link: null, text: '' },
  ]);
  expect(() => buildTar([{ kind: 'directory', path: 'd'.repeat(101), mode: 0o755 }])).toThrow(/over 100 bytes/);
});

test('equal content gives an equal image, and its manifest names its parts', async () => {
  const image = buildImage('a/b:1', entries, ['sh']);
  expect(image.equals(buildImage('a/b:1', entries, ['sh']))).toBe(true);
  const files = await read(image);
  const [manifest] = JSON.parse(files.find((file) => file.name === 'manifest.json')?.text ?? '[]');
  expect(manifest.RepoTags).toEqual(['a/b:1']);
  expect(files.map((file) => file.name)).toEqual(expect.arrayContaining([manifest.Config, ...manifest.Layers]));
});

import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { requireTool } from './requirements.ts';
import { HostLabError } from './types.ts';

export const BUSYBOX_IMAGE = 'taskorg/busybox:1';

export type TarEntry =
  | { readonly kind: 'file'; readonly path: string; readonly mode: number; readonly data: Buffer }
  | { readonly kind: 'directory'; readonly path: string; readonly mode: number }
  | { readonly kind: 'symlink'; readonly path: string; readonly target: string };

const BLOCK = 512;

/**
 * A POSIX ustar archive, owned by root, times zero, so that equal content gives equal bytes. Paths and link targets up
 * to 100 characters; throws HostLabError('bad_option') beyond.
 */
export function buildTar(entries: readonly TarEntry[]): Buffer {
  const parts: Buffer[] = [];
  for (const entry of entries) {
    const data = entry.kind === 'file' ? entry.data : Buffer.alloc(0);
    parts.push(header(entry, data.length), data, Buffer.alloc((BLOCK - (data.length % BLOCK)) % BLOCK));
  }
  return Buffer.concat([...parts, Buffer.alloc(2 * BLOCK)]);
}

function header(entry: TarEntry, size: number): Buffer {
  const path = entry.kind === 'directory' ? `${entry.path}/` : entry.path;
  const target = entry.kind === 'symlink' ? entry.target : '';
  if (Buffer.byteLength(path) > 100 || Buffer.byteLength(target) > 100)
    throw new HostLabError('bad_option', `tar: a name of over 100 bytes: ${path}`);
  const block = Buffer.alloc(BLOCK);
  const octal = (value: number, offset: number, length: number): void => {
    block.write(`${value.toString(8).padStart(length - 1, '0')}\0`, offset, 'ascii');
  };
  block.write(path, 0, 'utf8');
  octal(entry.kind === 'symlink' ? 0o777 : entry.mode, 100, 8);
  octal(0, 108, 8); // uid
  octal(0, 116, 8); // gid
  octal(size, 124, 12);
  octal(0, 136, 12); // mtime
  block.write(entry.kind === 'file' ? '0' : entry.kind === 'symlink' ? '2' : '5', 156, 'ascii');
  block.write(target, 157, 'utf8');
  block.write('ustar\x0000', 257, 'binary');
  block.fill(0x20, 148, 156); // the checksum counts its own field as blanks
  const sum = block.reduce((total, byte) => total + byte, 0);
  block.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 'ascii');
  return block;
}

/** A `docker load`-able archive of one layer. Made without an engine and without a registry. */
export function buildImage(name: string, files: readonly TarEntry[], command: readonly string[]): Buffer {
  const layer = buildTar(files);
  const architecture = { x64: 'amd64', arm64: 'arm64' }[process.arch as string] ?? process.arch;
  const config = Buffer.from(
    JSON.stringify({
      architecture,
      os: 'linux',
      created: '1970-01-01T00:00:00Z',
      config: { Cmd: command, Env: ['PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'] },
      rootfs: { type: 'layers', diff_ids: [`sha256:${sha256(layer)}`] },
      history: [{ created: '1970-01-01T00:00:00Z', created_by: 'task-org' }],
    }),
  );
  const configName = `${sha256(config)}.json`;
  const layerName = `${sha256(layer)}/layer.tar`;
  const manifest = Buffer.from(JSON.stringify([{ Config: configName, RepoTags: [name], Layers: [layerName] }]));
  const file = (path: string, data: Buffer): TarEntry => ({ kind: 'file', path, mode: 0o644, data });
  return buildTar([file(configName, config), file(layerName, layer), file('manifest.json', manifest)]);
}

/** A small Linux userland (about 2 MB) from this machine's static busybox, named BUSYBOX_IMAGE. */
export function busyboxImage(): Buffer {
  const path = requireTool('busybox', 'busybox-static');
  const binary = readFileSync(path);
  if (!isStatic(binary))
    throw new HostLabError(
      'missing_tool',
      `${path} needs shared libraries, which an image of it alone has not; on Debian: apt-get install busybox-static`,
    );
  const applets = execFileSync(path, ['--list'], { encoding: 'utf8' })
    .trim()
    .split('\n')
    .filter((name) => name !== 'busybox' && name !== '');
  const directory = (name: string): TarEntry => ({
    kind: 'directory',
    path: name,
    mode: name === 'tmp' ? 0o1777 : 0o755,
  });
  return buildImage(
    BUSYBOX_IMAGE,
    [
      ...['bin', 'tmp', 'etc', 'proc', 'sys', 'dev', 'root', 'data'].map(directory),
      { kind: 'file', path: 'bin/busybox', mode: 0o755, data: binary },
      ...applets.map((name): TarEntry => ({ kind: 'symlink', path: `bin/${name}`, target: 'busybox' })),
      { kind: 'file', path: 'etc/passwd', mode: 0o644, data: Buffer.from('root:x:0:0:root:/root:/bin/sh\n') },
    ],
    ['sh'],
  );
}

/** No PT_INTERP among the program headers of a 64-bit little-endian ELF file = nothing is loaded at run time. */
function isStatic(elf: Buffer): boolean {
  if (elf.length < 64 || elf.readUInt32BE(0) !== 0x7f454c46 || elf[4] !== 2 || elf[5] !== 1) return false;
  const offset = Number(elf.readBigUInt64LE(32));
  const size = elf.readUInt16LE(54);
  const count = elf.readUInt16LE(56);
  for (let index = 0; index < count; index += 1) if (elf.readUInt32LE(offset + index * size) === 3) return false;
  return true;
}

function sha256(data: Buffer): string {
  return createHash('sha256').update(data).digest('hex');
}

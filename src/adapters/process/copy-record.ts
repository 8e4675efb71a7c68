import { readdir, readFile, rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type Static, Type } from 'typebox';
import { Compile } from 'typebox/compile';
import { PortSpec } from '../../model/task-spec.ts';

// What stands on disk about a process copy: written before the copy's command runs, so that the next agent finds every copy
// that an earlier one started. Not fsynced: a power cut ends the copy too, and a record lost with it says the same.

const Count = Type.Integer({ minimum: 0 });
const CopyRecord = Type.Object({
  version: Type.Literal(1),
  copyId: Type.String({ minLength: 1, maxLength: 512 }),
  /** Bytes, 0 = no limit. */
  memoryBytes: Count,
  /** The launcher: leader of the copy's process group and session. */
  pid: Count,
  startTicks: Count,
  /** Of the kernel, since pids mean nothing after a reboot. */
  bootId: Type.String(),
  /** Wall-clock ms. */
  startedAt: Type.Number(),
  ports: Type.Array(Type.Object({ container: Count, host: Count, protocol: PortSpec.properties.protocol })),
  env: Type.Record(Type.String(), Type.String()),
  cwd: Type.String(),
  uid: Type.Union([Count, Type.Null()]),
  gid: Type.Union([Count, Type.Null()]),
  cgroupDirs: Type.Array(Type.String()),
  killPaths: Type.Array(Type.String()),
  pins: Type.String(),
});
export type CopyRecord = Static<typeof CopyRecord>;
const validator = Compile(CopyRecord);

const RECORD_FILE = 'record.json';

export async function writeRecord(dir: string, record: CopyRecord): Promise<void> {
  const path = join(dir, RECORD_FILE);
  await writeFile(`${path}.tmp`, JSON.stringify(record), { mode: 0o600 });
  await rename(`${path}.tmp`, path);
}

/** Undefined: no record, or one that is not ours to understand. */
export async function readRecord(dir: string): Promise<CopyRecord | undefined> {
  try {
    return parseRecord(await readFile(join(dir, RECORD_FILE), 'utf8'));
  } catch {
    return undefined;
  }
}

/** Throws SyntaxError. */
export function parseRecord(text: string): CopyRecord | undefined {
  const value: unknown = JSON.parse(text);
  return validator.Check(value) ? value : undefined;
}

export async function recordDirectories(copiesDir: string): Promise<string[]> {
  const entries = await readdir(copiesDir, { withFileTypes: true }).catch(() => []);
  return entries.filter((e) => e.isDirectory()).map((e) => join(copiesDir, e.name));
}

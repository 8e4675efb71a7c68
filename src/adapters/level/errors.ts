import { readFileSync, statSync } from 'node:fs';
import { type ErrorCode, TaskOrgError } from '../../model/errors.ts';

const UNUSABLE = new Set([
  'EACCES',
  'EPERM',
  'EROFS',
  'ENOTDIR',
  'EISDIR',
  'ENAMETOOLONG',
  'ELOOP',
  'EINVAL',
  'ENOENT',
]);

/** Every code and message in a chain of causes: LevelDB hides the system's error inside two of its own. */
function chain(error: unknown): { codes: Set<string>; text: string } {
  const codes = new Set<string>();
  const texts: string[] = [];
  for (let e = error, depth = 0; e instanceof Error && depth < 5; e = e.cause, depth++) {
    if ('code' in e && typeof e.code === 'string') codes.add(e.code);
    texts.push(e.message);
  }
  return { codes, text: texts.join(': ') || String(error) };
}

export function isCorruption(error: unknown): boolean {
  const { codes, text } = chain(error);
  return (
    codes.has('LEVEL_CORRUPTION') ||
    /\.ldb: (invalid argument|no such file)/i.test(text) ||
    /corrupt|missing files|does not exist \(create_if_missing|bad magic|not an sstable/i.test(text)
  );
}

/** Names a failure of opening or writing the store. `when` completes 'the store could not be ...'. */
export function storeError(error: unknown, dataDir: string, when: 'opened' | 'read' | 'written'): TaskOrgError {
  if (error instanceof TaskOrgError) return error;
  const { codes, text } = chain(error);
  const make = (code: ErrorCode, message: string, hint: string): TaskOrgError =>
    new TaskOrgError(code, message, { hint, cause: error });
  if (codes.has('LEVEL_LOCKED')) {
    const pid = lockHolder(`${dataDir}/db/LOCK`);
    return make(
      'data_dir_locked',
      `the data directory ${dataDir} is in use by ${pid === undefined ? 'another process' : `process ${pid}`}`,
      'stop that peer first, or give this one a data directory of its own (--data-dir)',
    );
  }
  if (codes.has('ENOSPC') || codes.has('EDQUOT') || /no space left|quota exceeded/i.test(text)) {
    return make(
      'disk_full',
      `the disk that holds ${dataDir} is full`,
      'free some space there, then start the peer again',
    );
  }
  const refused = /permission denied|read-only file system|not a directory|is a directory|file already exists/i.exec(
    text,
  )?.[0];
  if (when === 'opened' && (refused !== undefined || [...codes].some((code) => UNUSABLE.has(code)))) {
    return make(
      'data_dir_unusable',
      `the data directory ${dataDir} cannot be used: ${refused?.toLowerCase() ?? text}`,
      'it must be a directory that this user may read and write, on a disk that is not mounted read-only',
    );
  }
  return make(
    'store_failed',
    `the store in ${dataDir} could not be ${when}: ${text}`,
    'check the disk (dmesg, smartctl), then start the peer again',
  );
}

/** The process that holds a POSIX lock on the file, by /proc/locks. */
function lockHolder(path: string): number | undefined {
  try {
    const { ino } = statSync(path);
    const line = readFileSync('/proc/locks', 'utf8')
      .split('\n')
      .find((l) => l.includes(`:${ino} `));
    const pid = Number(line?.trim().split(/\s+/)[4]);
    return Number.isInteger(pid) && pid > 0 ? pid : undefined;
  } catch {
    return undefined;
  }
}

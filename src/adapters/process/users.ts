import { readFileSync } from 'node:fs';
import { TaskOrgError } from '../../model/errors.ts';

/**
 * `name`, `uid`, `name:group` or `uid:gid` to numbers, by /etc/passwd and /etc/group. `null` = stay who we are. Throws
 * invalid_input for a user that is not there, or that only root could become.
 */
export function resolveUser(user: string): { readonly uid: number | null; readonly gid: number | null } {
  if (user === '') return { uid: null, gid: null };
  const [name = '', group] = user.split(':');
  const entry = lines('/etc/passwd').find((f) => f[0] === name || f[2] === name);
  const uid = /^\d+$/.test(name) ? Number(name) : Number(entry?.[2] ?? Number.NaN);
  const groupId = group === undefined ? entry?.[3] : (lines('/etc/group').find((f) => f[0] === group)?.[2] ?? group);
  const gid = Number(groupId ?? uid);
  if (!Number.isInteger(uid) || !Number.isInteger(gid))
    throw new TaskOrgError('invalid_input', `there is no user '${user}' on this machine`, {
      hint: 'name a user of /etc/passwd, or give numbers as UID:GID',
    });
  if (process.getuid?.() === uid && process.getgid?.() === gid) return { uid: null, gid: null };
  if (process.getuid?.() !== 0)
    throw new TaskOrgError('invalid_input', `the peer may not run tasks as user '${user}'`, {
      hint: 'run the peer as root, or leave the user out',
    });
  return { uid, gid };
}

function lines(path: string): string[][] {
  try {
    return readFileSync(path, 'utf8')
      .split('\n')
      .map((line) => line.split(':'));
  } catch {
    return [];
  }
}

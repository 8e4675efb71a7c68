import { accessSync, constants, statSync } from 'node:fs';
import { join, resolve } from 'node:path';

/** Absolute path of a program as execvp would find it; undefined when there is none that can be run. */
export function findCommand(command: string, path: string, cwd: string): string | undefined {
  if (command === '') return undefined;
  const candidates = command.includes('/')
    ? [resolve(cwd, command)]
    : path.split(':').map((dir) => join(dir === '' ? cwd : dir, command));
  return candidates.find((file) => {
    try {
      accessSync(file, constants.X_OK);
      return statSync(file).isFile();
    } catch {
      return false;
    }
  });
}

import { writeSync } from 'node:fs';
import type { Log } from '../ports/log.ts';

/** Lines as the agent's logger writes them, without loading it: boot must stay small. Never throws. */
export function createBootLog(): Log {
  const at =
    (level: number) =>
    (fields: Readonly<Record<string, unknown>>, message: string): void => {
      try {
        writeSync(
          2,
          `${JSON.stringify({ level, time: Date.now(), pid: process.pid, name: 'boot', ...fields, msg: message })}\n`,
        );
      } catch {
        // Nobody reads: a supervisor does not die of that.
      }
    };
  return { error: at(50), warn: at(40), info: at(30), debug: () => undefined };
}

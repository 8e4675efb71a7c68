import { pino } from 'pino';
import type { Log } from '../ports/log.ts';

/** The agent's log: JSON lines on standard error, so that standard output stays the program's own. */
export function createAgentLog(level: string, fields: Readonly<Record<string, unknown>>): Log {
  const logger = pino(
    { level, base: { ...fields }, timestamp: pino.stdTimeFunctions.isoTime },
    pino.destination({ fd: 2, sync: false }),
  );
  return {
    error: (f, message) => logger.error(f, message),
    warn: (f, message) => logger.warn(f, message),
    info: (f, message) => logger.info(f, message),
    debug: (f, message) => logger.debug(f, message),
  };
}

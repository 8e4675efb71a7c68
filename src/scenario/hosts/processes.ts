import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { HostLabError } from './types.ts';

/** Every process of this machine, by pid. */
export function allPids(): number[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map(Number);
}

export function commandLine(pid: number): readonly string[] {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0');
  } catch {
    return [];
  }
}

export function commandName(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/comm`, 'utf8').trim();
  } catch {
    return '';
  }
}

/** The one child of a process that has forked once (nsenter, unshare). */
export function onlyChild(pid: number): number | undefined {
  try {
    const first = Number(readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim().split(' ')[0]);
    return first > 0 ? first : undefined;
  } catch {
    return undefined;
  }
}

/** Sends a signal; false when there is no such process any more. */
export function signalPid(pid: number, signal: NodeJS.Signals): boolean {
  try {
    process.kill(pid, signal);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ESRCH') return false;
    throw error;
  }
}

/** Resolves when the process is gone and reaped. Linux has no wait for a stranger's child short of a pidfd, so /proc is asked. */
export async function untilGone(pid: number, timeoutMs = 20_000): Promise<void> {
  const deadline = Date.now() + timeoutMs;
  while (existsSync(`/proc/${pid}`)) {
    if (Date.now() > deadline)
      throw new HostLabError('failed', `process ${pid} (${commandName(pid)}) does not die within ${timeoutMs} ms`);
    await delay(2);
  }
}

/** Proportional and resident set of a process, bytes; zeros when it is gone. */
export function memoryOf(pid: number): { readonly pssBytes: number; readonly rssBytes: number } {
  try {
    const text = readFileSync(`/proc/${pid}/smaps_rollup`, 'utf8');
    const kib = (name: string): number => Number(new RegExp(`^${name}:\\s+(\\d+)`, 'm').exec(text)?.[1] ?? 0);
    return { pssBytes: kib('Pss') * 1024, rssBytes: kib('Rss') * 1024 };
  } catch {
    return { pssBytes: 0, rssBytes: 0 };
  }
}

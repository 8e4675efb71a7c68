import { readdirSync, readFileSync } from 'node:fs';

// Reads /proc (Linux). Everything answers undefined or empty where there is none. No heavy imports: boot loads this.

/** Kernel clock ticks per second as /proc shows them: USER_HZ, 100 on every architecture Node runs on. */
export const TICKS_PER_SECOND = 100;

export interface ProcStat {
  readonly pid: number;
  /** One letter; Z = zombie, X = dead. */
  readonly state: string;
  readonly ppid: number;
  readonly pgrp: number;
  readonly session: number;
  /** User and system time, ticks. */
  readonly cpuTicks: number;
  /** Field 22: ticks from boot to the start of the process. With the pid it names a process for good. */
  readonly startTicks: number;
  readonly rssPages: number;
}

export function readProcStat(pid: number): ProcStat | undefined {
  let text: string;
  try {
    text = readFileSync(`/proc/${pid}/stat`, 'latin1');
  } catch {
    return undefined;
  }
  // The command name may hold blanks and brackets: fields start behind the last bracket (field 3 first).
  const f = text.slice(text.lastIndexOf(')') + 2).split(' ');
  const n = (field: number): number => Number(f[field - 3] ?? 0);
  return {
    pid,
    state: f[0] ?? 'X',
    ppid: n(4),
    pgrp: n(5),
    session: n(6),
    cpuTicks: n(14) + n(15),
    startTicks: n(22),
    rssPages: n(24),
  };
}

/** Runs (not a zombie) and is the very process that started at `startTicks`. */
export function isSameProcess(pid: number, startTicks: number): boolean {
  const stat = readProcStat(pid);
  return stat !== undefined && stat.startTicks === startTicks && stat.state !== 'Z' && stat.state !== 'X';
}

export function listProcesses(): ProcStat[] {
  let names: string[];
  try {
    names = readdirSync('/proc');
  } catch {
    return [];
  }
  const found: ProcStat[] = [];
  for (const name of names) {
    if (name < '1' || name > '9~') continue;
    const stat = readProcStat(Number(name));
    if (stat) found.push(stat);
  }
  return found;
}

/** Changes with every boot of the kernel, so that pids of an earlier boot are not taken for today's. Empty = unknown. */
export function bootId(): string {
  try {
    return readFileSync('/proc/sys/kernel/random/boot_id', 'latin1').trim();
  } catch {
    return '';
  }
}

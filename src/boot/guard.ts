import { type ChildProcess, spawn } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { KillTarget } from '../model/boot-protocol.ts';
import type { Log } from '../ports/log.ts';
import { killNamed, nameProcess, readProcessFile, writeProcessFile } from './process-file.ts';

// The guard: a shell script in a session of its own that kills exclusive copies at their deadline should boot be killed (or
// stopped) itself. While there is nothing to watch it sleeps in a read from boot's pipe and costs nothing; otherwise it
// looks every fifth of the stop allowance, without starting another process but `sleep`.
//
// Its file: first line `COUNT DUE PERIOD`, then one line for each thing to kill: `DUE p PGID STARTTICKS` or `DUE c DIR`.
// DUE is in hundredths of a second since the machine started, as /proc/uptime shows them.

/** The guard comes this share of the stop allowance after boot, so that it acts only when boot does not. */
const GUARD_DELAY = 0.4;
const RESTART_DELAY_MS = 1000;

export const GUARD_SCRIPT = `#!/bin/sh
# Kills exclusive copies of task-org at their deadline when their supervisor cannot. usage: guard.sh FILE BOOTPID BOOTTICKS
file=$1 boot=$2 ticks=$3
trap '' HUP INT TERM QUIT PIPE

# fields PID: state, process group, session and start of a process into $state $group $session $start
fields() {
  stat=
  read -r stat 2>/dev/null <"/proc/$1/stat" || return 1
  set -- \${stat##*) }
  state=$1 group=$3 session=$4 start=\${20}
  [ "$state" != Z ] && [ "$state" != X ]
}
supervised() { fields "$boot" && [ "$start" = "$ticks" ]; }

killgroup() {
  if [ -d "/proc/$1" ] && { fields "$1"; [ "$start" != "$2" ]; }; then return; fi
  kill -9 -- "-$1" 2>/dev/null
  for dir in /proc/[0-9]*; do
    fields "\${dir#/proc/}" || continue
    if [ "$group" = "$1" ] || [ "$session" = "$1" ]; then
      left=1
      kill -9 "\${dir#/proc/}" 2>/dev/null
    fi
  done
}
killprocs() {
  while read -r pid; do
    left=1
    [ "$pid" -gt 1 ] && kill -9 "$pid" 2>/dev/null
  done 2>/dev/null <"$1/cgroup.procs"
  for child in "$1"/*/; do
    [ -d "$child" ] && killprocs "\${child%/}"
  done
}
killcgroup() {
  [ -d "$1" ] || return
  if [ -e "$1/cgroup.kill" ]; then
    echo 1 2>/dev/null >"$1/cgroup.kill"
  elif [ -e "$1/freezer.state" ]; then
    echo FROZEN 2>/dev/null >"$1/freezer.state"
  fi
  killprocs "$1"
  [ -e "$1/freezer.state" ] && echo THAWED 2>/dev/null >"$1/freezer.state"
}
# Kills what is due; $left=1 when something was alive, $waiting=1 when something is not due yet.
enforce() {
  left=0 waiting=0
  {
    read -r _
    while read -r due kind what rest; do
      if [ "$now" -lt "$due" ]; then
        waiting=1
      elif [ "$kind" = p ]; then
        killgroup "$what" "$rest"
      else
        killcgroup "$what\${rest:+ $rest}"
      fi
    done
  } 2>/dev/null <"$file"
}

# As boot's and the agent's (adapters/host/priority.ts): a busy machine must not make it late.
echo -10 2>/dev/null >/proc/self/autogroup
renice -n -10 -p $$ >/dev/null 2>&1
while :; do
  count=0 due=0 period=1
  read -r count due period 2>/dev/null <"$file"
  if [ "\${count:-0}" -eq 0 ]; then
    supervised || exit 0
    # Ends with a line when there is something to watch, or with boot itself.
    if ! read -r _; then
      read -r count due period 2>/dev/null <"$file"
      [ "\${count:-0}" -eq 0 ] && exit 0
    fi
    continue
  fi
  read -r now _ </proc/uptime
  now=\${now%.*}\${now#*.}
  if [ "$now" -ge "$due" ]; then
    enforce
    [ "$left$waiting" = 00 ] && ! supervised && exit 0
  fi
  sleep "$period"
done
`;

/** Text of the guard's file. Times are rounded against the copies. */
export function guardFile(
  copies: readonly { readonly targets: readonly KillTarget[]; readonly killAtMs: number }[],
  stopAllowanceMs: number,
): string {
  const lines: string[] = [];
  let earliest = Number.POSITIVE_INFINITY;
  for (const { targets, killAtMs } of copies) {
    const due = Math.max(0, Math.floor((killAtMs + GUARD_DELAY * stopAllowanceMs) / 10) - 1);
    earliest = Math.min(earliest, due);
    for (const target of targets) {
      if (target.type === 'process-group') lines.push(`${due} p ${target.pgid} ${target.startTicks}`);
      else for (const path of target.paths) lines.push(`${due} c ${path}`);
    }
  }
  const period = Math.max(0.02, stopAllowanceMs / 5000).toFixed(2);
  return `${[`${lines.length} ${lines.length === 0 ? 0 : earliest} ${period}`, ...lines].join('\n')}\n`;
}

export class Guard {
  readonly #dir: string;
  readonly #log: Log;
  #child: ChildProcess | undefined;
  #timer: NodeJS.Timeout | undefined;
  #stopped = false;

  constructor(dir: string, log: Log) {
    this.#dir = dir;
    this.#log = log;
  }

  get running(): boolean {
    return this.#child?.pid !== undefined && this.#child.exitCode === null && this.#child.signalCode === null;
  }

  /** Ends the guard of an earlier boot, whose work this boot has taken over, and starts its own. */
  start(): void {
    const pidFile = join(this.#dir, 'guard.pid');
    if (this.#child === undefined) killNamed(readProcessFile(pidFile));
    const script = join(this.#dir, 'guard.sh');
    try {
      writeFileSync(script, GUARD_SCRIPT, { mode: 0o700 });
      const own = nameProcess(process.pid);
      const args = [script, join(this.#dir, 'guard'), String(own.pid), String(own.startTicks)];
      const child = spawn('/bin/sh', args, {
        detached: true,
        stdio: ['pipe', 'ignore', 'ignore'],
        cwd: '/',
        env: { PATH: process.env.PATH ?? '/usr/bin:/bin' },
      });
      this.#child = child;
      child.stdin?.on('error', () => undefined);
      child.on('error', (error) => this.#log.error({ error: error.message }, 'the guard could not be started'));
      child.on('exit', (code, signal) => this.#ended(code, signal));
      child.unref();
      if (child.pid !== undefined) writeProcessFile(pidFile, nameProcess(child.pid));
    } catch (error) {
      this.#log.error({ error: String(error) }, 'the guard could not be started');
    }
  }

  #ended(code: number | null, signal: string | null): void {
    if (this.#stopped) return;
    this.#log.warn({ code, signal }, 'the guard ended and is started again');
    this.#timer = setTimeout(() => this.start(), RESTART_DELAY_MS);
    this.#timer.unref();
  }

  /** There is something to watch now: to be called after the file says so. */
  wake(): void {
    if (this.running) this.#child?.stdin?.write('\n');
  }

  /** Lets go of the guard: it ends by itself as soon as its file holds nothing to kill, and not before. */
  release(): void {
    this.#stopped = true;
    clearTimeout(this.#timer);
    this.#child?.stdin?.end();
  }
}

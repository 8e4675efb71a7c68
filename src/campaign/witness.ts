import {
  chmodSync,
  closeSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import type { CopyLife, Span } from './overlap.ts';

// Copies that witness themselves. Each appends the machine's boot-time clock to a file of its own, every 20 ms, from its
// first moment until SIGKILL. The files lie outside the hosts' network and disks; what was written outlives host, engine
// and container, and no peer is asked. All hosts of a lab share the kernel, hence one clock (`/proc/uptime`, 10 ms).

export const TICK_MS = 20;
const SEEN_INSIDE = '/witness';
/** A pause this long between two ticks is looked at; shorter ones are the machine's scheduler. */
const PAUSE_MS = 100;
/** A copy on a machine short of CPU was seen to be silent for a minute. */
const QUIET_MS = 180_000;

/**
 * What a copy runs: one shell that starts no process per tick (reading an empty pipe with a time limit is its sleep).
 * File name: TASK,SLOT,GENERATION,STARTED. What no peer starts (a reference) has its container for a generation.
 */
export function tickCommand(where: 'container' | { readonly root: string }, task: string): string[] {
  const dir = where === 'container' ? SEEN_INSIDE : `${where.root}/$(hostname)`;
  const script = [
    'read -r up _ </proc/uptime',
    `exec >>"${dir}/${task},$\{TASKORG_SLOT:-0},$\{TASKORG_GENERATION:-$HOSTNAME},$up"`,
    'echo "$up"',
    '[ -p .never ] || mkfifo .never',
    'exec 3<>.never',
    `while read -r up _ </proc/uptime; do echo "$up"; read -t ${TICK_MS / 1000} -u 3 _; done`,
  ].join('\n');
  return where === 'container' ? ['/bin/sh', '-c', script] : ['busybox', 'sh', '-c', script];
}

/**
 * The files of a lab's copies, and how containers reach them. A task may not ask for a directory of its host, so the
 * engines' runtime adds it: the wrapper mounts ROOT/HOSTNAME at /witness in every container, whoever orders it.
 */
export class TickFiles {
  readonly root: string;
  readonly #hostnames: ReadonlyMap<string, number>;
  readonly #now: () => number;
  readonly #files = new Map<string, Growing>();

  /** Makes the directories; `dir` must be outside of the lab's own. */
  constructor(dir: string, hostnames: ReadonlyMap<string, number>, now: () => number = uptimeMs) {
    this.#now = now;
    this.root = join(dir, 'witness');
    this.#hostnames = hostnames;
    for (const name of hostnames.keys()) mkdirSync(join(this.root, name), { recursive: true });
    const mount = `{"destination":"${SEEN_INSIDE}","type":"bind","source":"'"$dir"'","options":["rbind","rw"]},`;
    const wrapper = `#!/bin/sh
# runc, with the witness's directory mounted in every container it makes.
dir=${this.root}/$(hostname)
bundle= create=
previous=
for word; do
  [ "$previous" = --bundle ] && bundle=$word
  [ "$word" = create ] && create=1
  previous=$word
done
[ -n "$create" ] && [ -n "$bundle" ] && sed -i 's|"mounts":\\[|&${mount}|' "$bundle/config.json"
exec runc "$@"
`;
    writeFileSync(this.#wrapper, wrapper);
    chmodSync(this.#wrapper, 0o755);
  }

  get #wrapper(): string {
    return join(this.root, 'runtime.sh');
  }

  /** More arguments for dockerd. */
  get engineArgs(): readonly string[] {
    return ['--add-runtime', `witness=${this.#wrapper}`, '--default-runtime', 'witness'];
  }

  remove(): void {
    rmSync(this.root, { recursive: true, force: true });
  }

  /**
   * Every copy so far, with what it has written until now. Files that were found quiet for minutes are read again only for
   * `everything`, which a verdict has to rest on.
   */
  lives(options: { readonly everything?: boolean } = {}): readonly CopyLife[] {
    const now = this.#now();
    for (const [hostname, host] of this.#hostnames) {
      for (const name of readdirSync(join(this.root, hostname))) {
        const path = join(this.root, hostname, name);
        const known = this.#files.get(path) ?? new Growing(path, host, name);
        this.#files.set(path, known);
        if (options.everything || !known.quiet) known.read(now);
      }
    }
    return [...this.#files.values()].flatMap((file) => file.life() ?? []);
  }
}

/** Boot-time milliseconds, the copies' own clock. */
export const uptimeMs = (): number => ticksToMs(readFileSync('/proc/uptime', 'utf8'));
const ticksToMs = (text: string): number => Math.round(Number.parseFloat(text) * 1000);

class Growing {
  readonly #path: string;
  readonly #host: number;
  readonly #name: string;
  readonly #spans: { fromMs: number; toMs: number }[] = [];
  #readAtMs = Number.NEGATIVE_INFINITY;
  #offset = 0;
  #rest = '';

  constructor(path: string, host: number, name: string) {
    this.#path = path;
    this.#host = host;
    this.#name = name;
  }

  /** When it was last read, its last tick was old: by that moment, not by now, since nobody may have looked for long. */
  get quiet(): boolean {
    return this.#readAtMs - (this.#spans.at(-1)?.toMs ?? this.#readAtMs) > QUIET_MS;
  }

  read(nowMs: number): void {
    this.#readAtMs = nowMs;
    const fd = openSync(this.#path, 'r');
    try {
      const buffer = Buffer.alloc(64 * 1024);
      for (;;) {
        const length = readSync(fd, buffer, 0, buffer.length, this.#offset);
        if (length === 0) return;
        this.#offset += length;
        const lines = (this.#rest + buffer.toString('latin1', 0, length)).split('\n');
        this.#rest = lines.pop() ?? '';
        for (const line of lines) this.#tick(ticksToMs(line));
      }
    } finally {
      closeSync(fd);
    }
  }

  life(): CopyLife | undefined {
    const [task = '', slot = '', generation = ''] = this.#name.split(',');
    const spans: readonly Span[] = this.#spans.map((span) => ({ ...span }));
    if (spans.length === 0) return undefined;
    return { task, slot: Number(slot), generation, host: this.#host, copy: this.#name, spans };
  }

  #tick(atMs: number): void {
    const last = this.#spans.at(-1);
    if (last && atMs - last.toMs <= PAUSE_MS) last.toMs = atMs;
    else this.#spans.push({ fromMs: atMs, toMs: atMs });
  }
}

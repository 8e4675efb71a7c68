import { type ChildProcess, spawn } from 'node:child_process';
import { EventEmitter, once } from 'node:events';
import { mkdirSync, mkdtempSync, rmdirSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { openBootTime } from '../../src/adapters/clock/boot-time.ts';
import { cgroupMounts } from '../../src/adapters/process/cgroup-fs.ts';
import { listProcesses, readProcStat } from '../../src/adapters/process/proc-fs.ts';
import { GUARD_SCRIPT } from '../../src/boot/guard.ts';
import type { KillTarget } from '../../src/model/boot-protocol.ts';
import type { FakeAgentCommand } from '../fixtures/fake-agent.ts';

const path = (name: string): string => fileURLToPath(new URL(name, import.meta.url));
export type Event = Readonly<Record<string, unknown>>;

/** Events as they come, kept until somebody waits for them. */
class Events extends EventEmitter {
  readonly #seen: Event[] = [];
  add(event: Event): void {
    this.#seen.push(event);
    this.emit('event');
  }
  /** The next event not yet taken that matches; those before it stay. */
  async next(matches: (event: Event) => boolean): Promise<Event> {
    for (;;) {
      const i = this.#seen.findIndex(matches);
      if (i !== -1) return this.#seen.splice(i, 1)[0] as Event;
      await once(this, 'event');
    }
  }
}

/** A data directory, a fake agent's socket, and boots and victims started on them; all are ended by `dispose`. */
export class BootBed {
  readonly dataDir = mkdtempSync(join(tmpdir(), 'task-org-boot-'));
  readonly agent = new Events();
  readonly time = openBootTime();
  readonly #server = createServer((socket) => this.#connected(socket));
  readonly #children: ChildProcess[] = [];
  readonly #cgroups: string[] = [];
  #socket: Socket | undefined;

  async listen(): Promise<this> {
    this.#server.listen(join(this.dataDir, 'agent.sock'));
    await once(this.#server, 'listening');
    return this;
  }

  #connected(socket: Socket): void {
    this.#socket = socket;
    socket.on('error', () => undefined);
    const lines = createInterface(socket);
    lines.on('line', (line) => this.agent.add(JSON.parse(line) as Event));
    // An agent that is killed resets its connection.
    lines.on('error', () => undefined);
  }

  tell(command: FakeAgentCommand): void {
    this.#socket?.write(`${JSON.stringify(command)}\n`);
  }
  event(name: string): Promise<Event> {
    return this.agent.next((e) => e.event === name);
  }

  /** A boot over the fake agent. `lines`: what it logs. */
  boot(agentArgs: readonly string[] = []): {
    process: ChildProcess;
    pid: number;
    lines: Events;
    exit: Promise<number | null>;
    text: () => string;
  } {
    const args = [
      path('../../src/boot.ts'),
      '--data-dir',
      this.dataDir,
      '--agent',
      path('../fixtures/fake-agent.ts'),
      '--probe-host',
      '127.0.0.1',
    ];
    const child = spawn(process.execPath, [...args, '--', join(this.dataDir, 'agent.sock'), ...agentArgs], {
      stdio: ['ignore', 'inherit', 'pipe'],
    });
    this.#children.push(child);
    const lines = new Events();
    let text = '';
    createInterface(child.stderr as NodeJS.ReadableStream).on('line', (line) => {
      text += `${line}\n`;
      if (line.startsWith('{')) lines.add(JSON.parse(line) as Event);
    });
    const exit = new Promise<number | null>((resolve) => child.once('close', resolve));
    return { process: child, pid: child.pid as number, lines, exit, text: () => text };
  }

  /** A process with a child of its own, in its own group. `ended` resolves to the boot time of its end. */
  victim(): { pid: number; target: KillTarget; ended: Promise<number> } {
    const child = spawn('/bin/sh', ['-c', 'sleep 1000 & exec sleep 1000'], { detached: true, stdio: 'ignore' });
    this.#children.push(child);
    const pid = child.pid as number;
    const ended = new Promise<number>((resolve) => child.once('exit', () => resolve(this.time.nowMs())));
    return { pid, target: { type: 'process-group', pgid: pid, startTicks: readProcStat(pid)?.startTicks ?? 0 }, ended };
  }

  /** A process in a cgroup of its own; undefined where this user may make none. */
  cgroupVictim(name: string): { target: KillTarget; ended: Promise<number> } | undefined {
    const mount = cgroupMounts().find((m) => m.v2 || m.controllers.includes('freezer'));
    const dir = join(mount?.dir ?? '/nonexistent', name);
    try {
      mkdirSync(join(dir, 'below'), { recursive: true });
    } catch {
      return undefined;
    }
    this.#cgroups.push(join(dir, 'below'), dir);
    const victim = this.victim();
    writeFileSync(join(dir, 'below', 'cgroup.procs'), String(victim.pid));
    return { target: { type: 'cgroup', paths: [dir, join(dir, 'missing')] }, ended: victim.ended };
  }

  async childOf(pid: number): Promise<number> {
    for (;;) {
      const child = listProcesses().find((p) => p.ppid === pid);
      if (child) return child.pid;
      await new Promise((resolve) => setImmediate(resolve));
    }
  }

  /** Runs the guard's script on a file, without a supervisor. Resolves when it ends. */
  async guard(file: string): Promise<void> {
    const script = join(this.dataDir, 'guard.sh');
    writeFileSync(script, GUARD_SCRIPT);
    const child = spawn('/bin/sh', [script, file, '999999999', '1'], { stdio: ['pipe', 'inherit', 'inherit'] });
    this.#children.push(child);
    await once(child, 'exit');
  }

  /** Registers an exclusive copy and gives it a deadline, milliseconds from now. Resolves to the deadline. */
  async lease(copyId: string, target: KillTarget, inMs: number): Promise<number> {
    this.tell({ do: 'register', copyId, exclusive: true, targets: [target] });
    await this.event('registered');
    const deadlineMs = this.time.nowMs() + inMs;
    this.tell({ do: 'deadline', copyId, deadlineMs });
    return deadlineMs;
  }

  /** Resolves when a process that is not our child has ended. */
  async gone(pid: number): Promise<void> {
    while (!['Z', 'X', undefined].includes(readProcStat(pid)?.state))
      await new Promise((resolve) => setImmediate(resolve));
  }

  async dispose(): Promise<void> {
    for (const child of this.#children) {
      if (child.exitCode !== null || child.signalCode !== null) continue;
      const ended = once(child, 'exit');
      child.kill('SIGCONT');
      child.kill('SIGKILL');
      await ended;
    }
    for (const dir of this.#cgroups) rmdirSync(dir);
    this.#socket?.destroy();
    this.#server.close();
    this.time.close();
    rmSync(this.dataDir, { recursive: true, force: true, maxRetries: 5 });
  }
}

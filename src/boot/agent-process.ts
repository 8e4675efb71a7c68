import { type ChildProcess, spawn } from 'node:child_process';
import { EXIT_CONFIGURATION } from '../model/boot-protocol.ts';
import type { Log } from '../ports/log.ts';
import type { BootOptions } from './options.ts';
import { nameProcess, writeProcessFile } from './process-file.ts';

export const FIRST_RESTART_MS = 100;
export const LONGEST_RESTART_MS = 5_000;
/** An agent that ran this long is healthy: its next death counts as the first. */
export const HEALTHY_AFTER_MS = 30_000;

export interface AgentProcessDependencies {
  readonly options: BootOptions;
  readonly pidFile: string;
  readonly onMessage: (message: unknown) => void;
  /** The agent has ended for good: boot ends with this code. */
  readonly onFinished: (code: number) => void;
  readonly log: Log;
}

/**
 * An agent that had got as far as to speak to boot was killed rather than broken: so many times it is started again after the
 * shortest wait, because its leases (4 s) are running.
 */
export const QUICK_RESTARTS = 5;

/**
 * Starts the agent, and starts it again when it dies: after 100 ms, then twice as long each time, up to 5 s; the first
 * QUICK_RESTARTS deaths of agents that were at work do not count.
 */
export class AgentProcess {
  readonly #deps: AgentProcessDependencies;
  #child: ChildProcess | undefined;
  #delayMs = FIRST_RESTART_MS;
  #startedAt = 0;
  #spoke = false;
  #quick = 0;
  #timer: NodeJS.Timeout | undefined;
  #stopping = false;
  #finished = false;
  starts = 0;

  constructor(deps: AgentProcessDependencies) {
    this.#deps = deps;
  }

  get up(): boolean {
    return this.#child?.pid !== undefined && this.#child.exitCode === null && this.#child.signalCode === null;
  }

  start(): void {
    const { options, log } = this.#deps;
    this.starts++;
    this.#startedAt = performance.now();
    this.#spoke = false;
    // A session of its own: a Ctrl-C reaches it once, through boot.
    const child = spawn(process.execPath, [...options.agentNodeArgs, options.agentPath, ...options.agentArgs], {
      stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
      detached: true,
    });
    this.#child = child;
    let ended = false;
    const end = (code: number | null, signal: NodeJS.Signals | null): void => {
      if (ended) return;
      ended = true;
      this.#ended(child, code, signal);
    };
    child.on('error', (error) => {
      log.error({ error: error.message }, 'the agent could not be started');
      if (child.pid === undefined) end(1, null);
    });
    child.on('exit', end);
    child.on('message', (message) => {
      if (child !== this.#child) return;
      this.#spoke = true;
      this.#deps.onMessage(message);
    });
    if (child.pid === undefined) return;
    try {
      writeProcessFile(this.#deps.pidFile, nameProcess(child.pid));
    } catch (error) {
      log.warn({ error: String(error) }, 'the agent process id could not be written down');
    }
    log.info({ agentPid: child.pid, start: this.starts }, 'agent started');
  }

  send(message: object): void {
    if (this.#child?.connected === true) this.#child.send(message, () => undefined);
  }

  #ended(child: ChildProcess, code: number | null, signal: NodeJS.Signals | null): void {
    if (child !== this.#child || this.#finished) return;
    const { log } = this.#deps;
    const upMs = Math.round(performance.now() - this.#startedAt);
    if (code === 0 || code === EXIT_CONFIGURATION || this.#stopping) {
      this.#finished = true;
      clearTimeout(this.#timer);
      log.info({ code, signal, upMs }, 'agent ended; it is not started again');
      this.#deps.onFinished(this.#stopping && signal !== null ? 0 : (code ?? 1));
      return;
    }
    if (upMs >= HEALTHY_AFTER_MS) {
      this.#delayMs = FIRST_RESTART_MS;
      this.#quick = 0;
    }
    const quick = this.#spoke && this.#quick < QUICK_RESTARTS;
    if (quick) this.#quick += 1;
    const restartInMs = quick ? FIRST_RESTART_MS : this.#delayMs;
    log.warn({ code, signal, upMs, restartInMs }, 'agent died; it is started again');
    this.#timer = setTimeout(() => this.start(), restartInMs);
    if (!quick) this.#delayMs = Math.min(2 * this.#delayMs, LONGEST_RESTART_MS);
  }

  /** Passes the wish to stop on; SIGKILL after the grace, or at once when it is asked a second time. */
  stop(signal: NodeJS.Signals): void {
    const again = this.#stopping;
    this.#stopping = true;
    clearTimeout(this.#timer);
    if (!this.up) {
      if (this.#finished) return;
      this.#finished = true;
      this.#deps.onFinished(0);
      return;
    }
    this.#child?.kill(again ? 'SIGKILL' : signal);
    if (!again) this.#timer = setTimeout(() => this.#child?.kill('SIGKILL'), this.#deps.options.stopGraceMs);
  }
}

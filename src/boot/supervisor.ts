import { accessSync, constants, existsSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { type BootTime, openBootTime } from '../adapters/clock/boot-time.ts';
import { killTarget } from '../adapters/process/kill-target.ts';
import { bootId } from '../adapters/process/proc-fs.ts';
import {
  type AgentToBoot,
  BOOT_PROTOCOL_VERSION,
  type BootToAgent,
  type RegisteredCopy,
  type SelfTestResult,
} from '../model/boot-protocol.ts';
import { TaskOrgError } from '../model/errors.ts';
import { assertNever } from '../model/ids.ts';
import type { Log } from '../ports/log.ts';
import { parseAgentMessage } from './agent-messages.ts';
import { AgentProcess } from './agent-process.ts';
import { Enforcer } from './enforcer.ts';
import { Guard } from './guard.ts';
import type { BootOptions } from './options.ts';
import { ProbeResponder } from './probe-responder.ts';
import { killNamed, lockDataDir, readProcessFile } from './process-file.ts';
import { type Copy, Registry } from './registry.ts';
import { selfTest } from './self-test.ts';

const toWire = ({ copyId, exclusive, targets, deadlineMs, killedAtMs }: Copy): RegisteredCopy => ({
  copyId,
  exclusive,
  targets,
  deadlineMs,
  killedAtMs,
});

/** Why a data directory cannot be taken, in words for a person. */
function cannotUse(dataDir: string, error: unknown): TaskOrgError {
  let cause = error as NodeJS.ErrnoException;
  try {
    // Of a read-only disk mkdir says no more than ENOENT.
    if (existsSync(dataDir)) accessSync(dataDir, constants.R_OK | constants.W_OK);
  } catch (refusal) {
    cause = refusal as NodeJS.ErrnoException;
  }
  if (cause.code === 'ENOSPC' || cause.code === 'EDQUOT')
    return new TaskOrgError('disk_full', `the disk of the data directory ${dataDir} is full`, {
      hint: 'free some space and start again; nothing was lost',
      cause,
    });
  return new TaskOrgError('data_dir_unusable', `the data directory ${dataDir} cannot be used: ${cause.message}`, {
    hint: 'it must be a directory that this user may read and write (--data-dir)',
    cause,
  });
}

/**
 * Boot: keeps the agent running, kills exclusive copies at their deadline, answers other machines' probes. Holds nothing
 * that a new boot could not take over from `DATA-DIR/run`.
 */
export class Supervisor {
  readonly #options: BootOptions;
  readonly #log: Log;
  readonly #bootId = bootId();
  readonly #time: BootTime = openBootTime();
  readonly #registry: Registry;
  readonly #guard: Guard;
  readonly #enforcer: Enforcer;
  readonly #agent: AgentProcess;
  readonly #probes: ProbeResponder;
  readonly #unlock: () => void;
  readonly #runDir: string;
  #testDone: (result: SelfTestResult) => void = () => undefined;
  readonly #tested: Promise<SelfTestResult>;
  #finish: (code: number) => void = () => undefined;
  /** Resolves to the exit code when the agent has ended for good. */
  readonly finished: Promise<number>;

  /** Takes the data directory. Throws TaskOrgError data_dir_locked | data_dir_unusable. */
  constructor(options: BootOptions, log: Log) {
    this.#options = options;
    this.#log = log;
    this.#runDir = join(options.dataDir, 'run');
    try {
      mkdirSync(this.#runDir, { recursive: true, mode: 0o700 });
      this.#unlock = lockDataDir(options.dataDir, join(this.#runDir, 'boot.lock'));
    } catch (error) {
      throw error instanceof TaskOrgError ? error : cannotUse(options.dataDir, error);
    }
    this.#tested = new Promise((resolve) => {
      this.#testDone = resolve;
    });
    this.finished = new Promise((resolve) => {
      this.#finish = resolve;
    });
    this.#registry = new Registry(this.#runDir, this.#bootId);
    this.#guard = new Guard(this.#runDir, log);
    this.#registry.onWatch = () => this.#guard.wake();
    this.#agent = new AgentProcess({
      options,
      pidFile: join(this.#runDir, 'agent.pid'),
      onMessage: (message) => this.#onMessage(message),
      onFinished: (code) => this.#finish(code),
      log,
    });
    this.#enforcer = new Enforcer({
      registry: this.#registry,
      nowMs: () => this.#time.nowMs(),
      kill: (target) => killTarget(target),
      onKilled: (copyId, atMs) => this.#onKilled(copyId, atMs),
      log,
    });
    this.#probes = new ProbeResponder(() => this.#agent.up, log);
  }

  async start(): Promise<void> {
    const { probePort, probeHost } = this.#options;
    // The agent of a boot that was killed: it holds the store, and nobody enforces for it any more.
    const orphan = readProcessFile(join(this.#runDir, 'agent.pid'));
    if (killNamed(orphan)) this.#log.warn({ agentPid: orphan?.pid }, 'killed the agent of an earlier boot');
    this.#enforcer.look();
    await this.#save();
    this.#guard.start();
    await this.#probes.start(probePort, probeHost);
    // The agent takes longer to load than the test to run.
    this.#agent.start();
    const result = await selfTest((target) => killTarget(target));
    if (!result.ok) this.#log.warn({ problems: result.problems }, 'the self-test failed: no exclusive tasks here');
    this.#testDone(result);
  }

  stop(signal: NodeJS.Signals): void {
    this.#log.info({ signal }, 'stopping');
    this.#agent.stop(signal);
  }

  /** After `finished`. Exclusive copies that still run are left to the guard, which kills them at their deadline. */
  async close(): Promise<void> {
    this.#enforcer.stop();
    await this.#save();
    this.#guard.release();
    this.#probes.close();
    this.#time.close();
    this.#unlock();
  }

  #send(message: BootToAgent): void {
    this.#agent.send(message);
  }

  #onKilled(copyId: string, atMs: number): void {
    void this.#save();
    this.#send({ type: 'killed', copyId, atMs });
  }

  /** Writes the registry down. Says why it could not. */
  async #save(): Promise<string | undefined> {
    try {
      await this.#registry.save();
    } catch (error) {
      this.#log.error({ error: String(error) }, 'the registry of copies could not be written');
      return `the registry could not be written (${error instanceof Error ? error.message : String(error)})`;
    }
    return undefined;
  }

  #onMessage(value: unknown): void {
    const message = parseAgentMessage(value);
    if (message === undefined) {
      this.#log.warn(
        { message: JSON.stringify(value)?.slice(0, 200) },
        'the agent said something that is not understood',
      );
      return;
    }
    this.#handle(message);
    this.#enforcer.look();
  }

  #handle(message: AgentToBoot): void {
    const registry = this.#registry;
    switch (message.type) {
      case 'attach':
        registry.stopAllowanceMs = message.stopAllowanceMs;
        void this.#save();
        void this.#hello();
        return;
      case 'identity':
        this.#probes.identity = {
          clusterId: message.clusterId,
          nodeId: message.nodeId,
          keys: message.keys.map((key) => Buffer.from(key, 'base64')),
        };
        return;
      case 'register':
        void this.#register(message);
        return;
      case 'deadline':
        for (const [copyId, deadlineMs] of message.deadlines) {
          registry.update(copyId, deadlineMs === null ? { condemned: true } : { deadlineMs });
        }
        void this.#save();
        return;
      case 'forget':
        for (const copyId of message.copyIds) registry.forget(copyId);
        void this.#save();
        return;
      default:
        assertNever(message, 'message of the agent');
    }
  }

  async #hello(): Promise<void> {
    const selfTest = await this.#tested;
    this.#send({
      type: 'hello',
      version: BOOT_PROTOCOL_VERSION,
      bootId: this.#bootId,
      bootPid: process.pid,
      agentRestarts: this.#agent.starts - 1,
      probePort: this.#probes.port,
      selfTest,
      registry: [...this.#registry.all()].map(toWire),
    });
  }

  async #register(message: Extract<AgentToBoot, { type: 'register' }>): Promise<void> {
    const { seq, copyId, exclusive, targets, deadlineMs } = message;
    let error = exclusive && !this.#guard.running ? 'the guard does not run' : undefined;
    error ??= this.#registry.register({ copyId, exclusive, targets, deadlineMs }, this.#time.nowMs());
    // Killing that had begun under the same name ends before the new copy may come.
    await this.#enforcer.killing(copyId);
    error ??= await this.#save();
    if (error !== undefined) this.#registry.forget(copyId);
    this.#enforcer.look();
    this.#send({ type: 'registered', seq, error: error ?? null });
  }
}

import type { EventEmitter } from 'node:events';
import { Type } from 'typebox';
import { Compile } from 'typebox/compile';
import type { CopyId } from '../../core/reconcile/types.ts';
import {
  type AgentToBoot,
  BOOT_PROTOCOL_VERSION,
  type BootToAgent,
  type KillTarget,
  type RegisteredCopy,
  type SelfTestResult,
} from '../../model/boot-protocol.ts';
import { TaskOrgError } from '../../model/errors.ts';
import type { MonoMs } from '../../model/ids.ts';
import type { BootLink } from '../../ports/boot.ts';

const HELLO_TIMEOUT_MS = 5_000;
const REGISTER_TIMEOUT_MS = 2_000;

/** The part of `process` that a child with an IPC channel has. */
export interface IpcChannel extends EventEmitter {
  send?(message: unknown): boolean;
  readonly connected?: boolean;
}

export interface BootFacts {
  readonly bootId: string;
  readonly bootPid: number;
  readonly agentRestarts: number;
  /** UDP port for other peers' probes; 0 = none. */
  readonly probePort: number;
  readonly selfTest: SelfTestResult;
}

interface Waiting {
  readonly resolve: () => void;
  readonly reject: (error: Error) => void;
  readonly timer: NodeJS.Timeout;
}

const Text = Type.String({ maxLength: 4096 });
const Instant = Type.Union([Type.Number(), Type.Null()]);
const words = Compile(
  Type.Union([
    Type.Object({
      type: Type.Literal('hello'),
      version: Type.Number(),
      bootId: Text,
      bootPid: Type.Number(),
      agentRestarts: Type.Number(),
      probePort: Type.Number(),
      selfTest: Type.Object({
        ok: Type.Boolean(),
        problems: Type.Array(Text),
        processGroup: Type.Boolean(),
        cgroup: Type.Boolean(),
      }),
      registry: Type.Array(Type.Object({ copyId: Text, deadlineMs: Instant, killedAtMs: Instant })),
    }),
    Type.Object({ type: Type.Literal('registered'), seq: Type.Number(), error: Type.Union([Text, Type.Null()]) }),
    Type.Object({ type: Type.Literal('killed'), copyId: Text, atMs: Type.Number() }),
  ]),
);

const hello = Compile(Type.Object({ type: Type.Literal('hello'), version: Type.Number() }));

/** What is none of boot's words is as if it had not been said. Of a hello of another version no more than that is known. */
const isFromBoot = (message: unknown): message is BootToAgent =>
  words.Check(message) || (hello.Check(message) && message.version !== BOOT_PROTOCOL_VERSION);

/** The agent's end of the line to boot, over the IPC channel it was started with. */
export class IpcBootLink implements BootLink {
  readonly #channel: IpcChannel;
  readonly #registered = new Map<CopyId, MonoMs | undefined>();
  readonly #killed = new Set<CopyId>();
  readonly #killedCallbacks: ((copyId: CopyId) => void)[] = [];
  readonly #waiting = new Map<number, Waiting>();
  readonly #deadlines = new Map<CopyId, number | null>();
  #sequence = 0;
  facts: BootFacts;

  private constructor(channel: IpcChannel, hello: Extract<BootToAgent, { type: 'hello' }>) {
    this.#channel = channel;
    this.facts = hello;
    for (const copy of hello.registry) this.#restore(copy);
    channel.on('message', (message: unknown) => {
      if (isFromBoot(message)) this.#receive(message);
    });
    channel.on('disconnect', () => this.#disconnected());
  }

  /**
   * Says hello to boot. Resolves to undefined when this process was not started by a boot. Throws TaskOrgError
   * timeout | wrong_version.
   */
  static async attach(
    options: { readonly stopAllowanceMs: number },
    channel: IpcChannel = process as IpcChannel,
  ): Promise<IpcBootLink | undefined> {
    if (channel.send === undefined || channel.connected !== true) return undefined;
    return await new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        channel.off('message', listen);
        reject(new TaskOrgError('timeout', `boot did not answer within ${HELLO_TIMEOUT_MS} ms`));
      }, HELLO_TIMEOUT_MS);
      const listen = (message: unknown): void => {
        if (!isFromBoot(message) || message.type !== 'hello') return;
        clearTimeout(timer);
        channel.off('message', listen);
        if (message.version === BOOT_PROTOCOL_VERSION) {
          // Made here and now: the next message may follow in the same turn.
          resolve(new IpcBootLink(channel, message));
          return;
        }
        const text = `boot speaks version ${message.version}, this agent ${BOOT_PROTOCOL_VERSION}`;
        reject(new TaskOrgError('wrong_version', text, { hint: 'restart the whole peer after an update' }));
      };
      channel.on('message', listen);
      channel.send?.({ type: 'attach', stopAllowanceMs: options.stopAllowanceMs } satisfies AgentToBoot);
    });
  }

  #restore(copy: RegisteredCopy): void {
    this.#registered.set(copy.copyId, copy.deadlineMs === null ? undefined : (copy.deadlineMs as MonoMs));
    if (copy.killedAtMs !== null) this.#killed.add(copy.copyId);
  }

  /** Tells boot who this peer is, so that it can answer probes. `keys`: `deriveProbeKey` of each secret, newest first. */
  identify(clusterId: string, nodeId: string, keys: readonly Uint8Array[]): void {
    this.#send({ type: 'identity', clusterId, nodeId, keys: keys.map((key) => Buffer.from(key).toString('base64')) });
  }

  register(copyId: CopyId, exclusive: boolean, targets: readonly KillTarget[]): Promise<void> {
    const seq = ++this.#sequence;
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.#waiting.delete(seq);
        reject(
          new TaskOrgError('timeout', `boot did not take ${copyId} within ${REGISTER_TIMEOUT_MS} ms`, {
            retryable: true,
          }),
        );
      }, REGISTER_TIMEOUT_MS);
      this.#waiting.set(seq, { resolve, reject, timer });
      this.#killed.delete(copyId);
      this.#registered.set(copyId, this.#registered.get(copyId));
      this.#send({ type: 'register', seq, copyId, exclusive, targets, deadlineMs: null });
    });
  }

  /** Deadlines of one turn of the event loop go out together. */
  deadline(copyId: CopyId, deadline: MonoMs | undefined): void {
    if (!this.#registered.has(copyId)) return;
    this.#registered.set(copyId, deadline);
    if (this.#deadlines.size === 0) queueMicrotask(() => this.#flush());
    this.#deadlines.set(copyId, deadline ?? null);
  }

  #flush(): void {
    if (this.#deadlines.size === 0) return;
    const deadlines = [...this.#deadlines];
    this.#deadlines.clear();
    this.#send({ type: 'deadline', deadlines });
  }

  forget(copyId: CopyId): void {
    this.#flush();
    this.#registered.delete(copyId);
    this.#killed.delete(copyId);
    this.#send({ type: 'forget', copyIds: [copyId] });
  }

  onKilled(callback: (copyId: CopyId) => void): void {
    this.#killedCallbacks.push(callback);
    for (const copyId of this.#killed) callback(copyId);
  }

  registered(): ReadonlyMap<CopyId, MonoMs | undefined> {
    return this.#registered;
  }

  /** Boot is gone: nobody enforces deadlines but its guard, so the agent must stop and let a new boot start a new one. */
  onLost(callback: () => void): void {
    if (this.#channel.connected === true) this.#channel.on('disconnect', callback);
    else queueMicrotask(callback);
  }

  #send(message: AgentToBoot): void {
    if (this.#channel.connected === true) this.#channel.send?.(message);
  }

  #receive(message: BootToAgent): void {
    if (message.type === 'registered') {
      const waiting = this.#waiting.get(message.seq);
      if (waiting === undefined) return;
      this.#waiting.delete(message.seq);
      clearTimeout(waiting.timer);
      if (message.error === null) waiting.resolve();
      else waiting.reject(new TaskOrgError('runtime_failed', `boot refused the copy: ${message.error}`));
    } else if (message.type === 'killed' && this.#registered.has(message.copyId)) {
      this.#killed.add(message.copyId);
      for (const callback of this.#killedCallbacks) callback(message.copyId);
    }
  }

  #disconnected(): void {
    for (const waiting of this.#waiting.values()) {
      clearTimeout(waiting.timer);
      waiting.reject(new TaskOrgError('unreachable', 'boot is gone'));
    }
    this.#waiting.clear();
  }
}

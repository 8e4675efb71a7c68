import { type FSWatcher, readdirSync, statSync, watch } from 'node:fs';
import { basename, join, sep } from 'node:path';
import { type CopyName, parseCopyId } from '../core/reconcile/copy-id.ts';
import { formatGeneration } from '../model/generation.ts';
import { followFile } from './follow-file.ts';
import { EngineApi, type EngineEvent } from './hosts/engine-api.ts';
import { BUSYBOX_IMAGE } from './hosts/image.ts';
import type { RunBook, RunIdentity } from './run-book.ts';
import type { TaskDocument } from './types.ts';

// Witnesses stand outside the system under test: they never ask a peer whether a copy runs.

const BEAT_SECONDS = 0.1;
/** What the process runtime tells a copy about itself. */
const ENV = { generation: 'TASKORG_GENERATION', slot: 'TASKORG_SLOT' } as const;

/** Which copy a container is: one of its labels holds the copy's whole name. Scenario tasks have their name for an id. */
export function copyOfContainer(labels: Readonly<Record<string, string>>): CopyName | undefined {
  for (const value of Object.values(labels)) {
    const copy = parseCopyId(value);
    if (copy) return copy;
  }
  return undefined;
}
const FILE = /^witness-(.+)\.log$/;

/**
 * Completes a document that names no workload: a container that sleeps, or a process that writes a line
 * `<epochMs> <generation> <pid> <slot>` ten times a second to a file in its work directory.
 */
export function witnessDocument(document: TaskDocument, runtime: 'docker' | 'process'): TaskDocument {
  if (document.image !== undefined || document.command !== undefined) return document;
  if (runtime === 'docker')
    return { runtime, image: BUSYBOX_IMAGE, command: ['sleep', '1000000'], stopSignal: 'SIGKILL', ...document };
  const line = `"$(date +%s%3N) $${ENV.generation} $$ $${ENV.slot}"`;
  const script = `while :; do echo ${line} >>witness-${document.name}.log; sleep ${BEAT_SECONDS}; done`;
  return { runtime, command: ['/bin/sh', '-c', script], ...document };
}

/** Reads the witness files below peers' data directories, as they grow. */
export class FileWitness {
  readonly #book: RunBook;
  readonly #onChange: () => void;
  readonly #files = new Map<string, { readonly inode: number; readonly stop: () => void }>();
  readonly #watchers = new Map<number, FSWatcher>();

  constructor(book: RunBook, onChange: () => void) {
    this.#book = book;
    this.#onChange = onChange;
  }

  /** The directory must exist. Idempotent. */
  follow(node: number, dataDir: string): void {
    if (this.#watchers.has(node)) return;
    const watcher = watch(dataDir, { recursive: true }, (_, name) => {
      if (name !== null && FILE.test(basename(name))) this.#followFile(node, join(dataDir, name));
    });
    watcher.on('error', () => {}); // directories come and go below it
    this.#watchers.set(node, watcher);
    for (const name of readdirSync(dataDir, { recursive: true, encoding: 'utf8' })) {
      if (FILE.test(basename(name))) this.#followFile(node, join(dataDir, name));
    }
  }

  stop(): void {
    for (const watcher of this.#watchers.values()) watcher.close();
    for (const file of this.#files.values()) file.stop();
    this.#watchers.clear();
    this.#files.clear();
  }

  #followFile(node: number, path: string): void {
    const inode = statSync(path, { throwIfNoEntry: false })?.ino;
    const known = this.#files.get(path);
    if (inode === undefined || known?.inode === inode) return;
    known?.stop(); // a new file of the same name: the work directory was emptied between two copies
    const task = FILE.exec(basename(path))?.[1] ?? '';
    const place = path
      .split(sep)
      .map(parseCopyId)
      .find((copy) => copy !== undefined);
    const stop = followFile(path, (line) => {
      const match = /^(\d{13}) (\S*) (\d+) (\d*)$/.exec(line);
      if (!match) return;
      // a rebooted host deals out the same pids again, so the generation belongs to the copy's name
      const [, at, generation = '', pid, slot] = match;
      const copy = `pid:${pid} of ${generation}`;
      this.#book.seen({ task, slot: slot ? Number(slot) : (place?.slot ?? 0), generation, node, copy }, Number(at));
      this.#onChange();
    });
    this.#files.set(path, { inode, stop });
  }
}

/** Listens to one host's engine from outside the host's network. */
export class EngineWitness {
  readonly #book: RunBook;
  readonly #node: number;
  readonly #socketPath: string;
  readonly #onChange: () => void;
  #abort = new AbortController();

  constructor(book: RunBook, node: number, socketPath: string, onChange: () => void) {
    this.#book = book;
    this.#node = node;
    this.#socketPath = socketPath;
    this.#onChange = onChange;
  }

  /** Resolves once the engine's events flow and what ran or ended meanwhile is in the book. */
  async listen(): Promise<void> {
    this.#abort.abort();
    const abort = new AbortController();
    this.#abort = abort;
    const api = new EngineApi(this.#socketPath);
    abort.signal.addEventListener('abort', () => api.close());
    await new Promise<void>((resolve, reject) => {
      api
        .containerEvents((event) => this.#note(event), abort.signal, resolve)
        .then(
          () => api.close(),
          (error: unknown) => {
            api.close();
            reject(error); // after `resolve` this says only that the engine went away
          },
        );
    });
    await this.#compare(api);
  }

  stop(): void {
    this.#abort.abort();
  }

  #note(event: EngineEvent): void {
    const atMs = event.timeNano / 1e6;
    const id = this.#identity(event.Actor.ID, event.Actor.Attributes);
    if (!id) return;
    if (event.Action === 'start') this.#book.started(id, atMs);
    else this.#book.ended(this.#node, id.copy, atMs);
    this.#onChange();
  }

  /** What the engine did while nobody listened. */
  async #compare(api: EngineApi): Promise<void> {
    for (const copy of this.#book.living(this.#node)) {
      const state = await containerState(api, copy);
      if (state && !state.Running) this.#book.ended(this.#node, copy, Date.parse(state.FinishedAt));
      else if (!state) this.#book.ended(this.#node, copy, Date.now());
    }
    const list = (await api.call('GET', '/containers/json')) as { Id: string; Labels: Record<string, string> }[];
    for (const container of list) {
      const id = this.#identity(container.Id, container.Labels);
      const state = id ? await containerState(api, id.copy) : undefined;
      if (id && state?.Running) this.#book.started(id, Date.parse(state.StartedAt));
    }
    this.#onChange();
  }

  #identity(container: string, labels: Readonly<Record<string, string>>): RunIdentity | undefined {
    const copy = copyOfContainer(labels);
    if (!copy) return undefined;
    return {
      task: copy.taskId,
      slot: copy.slot,
      generation: formatGeneration(copy.generation),
      node: this.#node,
      copy: container,
    };
  }
}

interface ContainerState {
  readonly Running: boolean;
  readonly StartedAt: string;
  readonly FinishedAt: string;
}

/** Undefined when the engine has no such container any more. */
async function containerState(api: EngineApi, id: string): Promise<ContainerState | undefined> {
  try {
    return ((await api.call('GET', `/containers/${id}/json`)) as { State: ContainerState }).State;
  } catch (error) {
    if (String(error).includes(': 404 ')) return undefined;
    throw error;
  }
}

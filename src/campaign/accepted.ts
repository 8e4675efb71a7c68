import type { Fleet } from '../scenario/fleet.ts';
import { PeerClientError } from '../scenario/peer-client.ts';
import type { TaskDocument } from '../scenario/types.ts';
import { until } from '../scenario/until.ts';

/** Settings written over and over; each has one write on its way at most. */
const KEYS = 24;
const ANSWER_TIMEOUT_MS = 60_000;
/** Rounds whose tasks are kept before they are removed again, so that tasks do not pile up. */
const KEPT_ROUNDS = 2;

interface Written {
  /** Last value that was acknowledged. */
  acknowledged: string;
  /** Newer ones without an answer: they may or may not be there. */
  open: string[];
}

/** What peers have acknowledged, and what has become of it. */
export class Accepted {
  readonly #fleet: Fleet;
  readonly #peers: number;
  readonly #document: (name: string, exclusive: boolean) => TaskDocument;
  /** Accepted and not removed: name -> round. */
  readonly #tasks = new Map<string, number>();
  readonly #writes = new Map<string, Written>();
  #waiting: Promise<unknown>[] = [];
  #count = 0;
  tasksAccepted = 0;
  /** Without an answer within the client's limit: promised nothing. */
  tasksUnanswered = 0;
  writesAcknowledged = 0;
  readonly lost = new Set<string>();

  constructor(fleet: Fleet, peers: number, document: (name: string, exclusive: boolean) => TaskDocument) {
    this.#fleet = fleet;
    this.#peers = peers;
    this.#document = document;
  }

  get names(): readonly string[] {
    return [...this.#tasks.keys()];
  }

  async submit(document: TaskDocument, round: number): Promise<void> {
    try {
      await this.#fleet.submit(document);
      this.#tasks.set(document.name, round);
      this.tasksAccepted += 1;
    } catch {
      this.tasksUnanswered += 1;
    }
  }

  /** One task, alternately exclusive and available, submitted while the round's fault goes on. */
  begin(round: number): void {
    this.#count += 1;
    const name = `late-${this.#count}`;
    this.#waiting.push(this.submit(this.#document(name, this.#count % 2 === 0), round));
  }

  /** A write to every setting, and two tasks, through every peer in turn. Resolves once they are on their way. */
  burst(round: number): void {
    this.begin(round);
    this.begin(round);
    for (let i = 0; i < KEYS; i += 1)
      this.#waiting.push(this.#write(`user.campaign-${i}`, `${round}`, 1 + (i % this.#peers)));
  }

  async #write(key: string, value: string, peer: number): Promise<void> {
    const known = this.#writes.get(key) ?? { acknowledged: '', open: [] };
    this.#writes.set(key, known);
    known.open.push(value);
    try {
      await this.#fleet.client(peer).setSetting(key, value);
    } catch {
      return; // no answer, or a refusal: nothing was promised
    }
    this.writesAcknowledged += 1;
    known.acknowledged = value;
    known.open = [];
  }

  /** Every submission and write of the round has its answer, or none. */
  async answered(): Promise<void> {
    await Promise.all(this.#waiting);
    this.#waiting = [];
  }

  /** When all peers are well again: what was acknowledged and is not there. */
  async checkWrites(): Promise<void> {
    const entries = [...this.#writes];
    await Promise.all(
      entries.map(async ([key, written], i) => {
        // A new master may just be taking over: then the read is refused, not wrong.
        const { value } = await until(`${key} can be read`, ANSWER_TIMEOUT_MS, async () => ({
          value: await this.#fleet.client(1 + (i % this.#peers)).setting(key),
        }));
        if (value !== written.acknowledged && !written.open.includes(value))
          this.lost.add(`${key}: ${written.acknowledged} was acknowledged, ${value} is there`);
        written.acknowledged = value;
        written.open = [];
      }),
    );
  }

  /** Why not every accepted task is known to every peer and runs; undefined when all is well. */
  async missing(): Promise<string | undefined> {
    for (let peer = 1; peer <= this.#peers; peer += 1) {
      const { items } = await this.#fleet.client(peer).tasks(3_000);
      for (const name of this.#tasks.keys()) {
        const task = items.find((one) => one.name === name);
        if (!task) return `node${peer} does not know ${name}`;
        if (task.state !== 'running') return `node${peer} says that ${name} is ${task.state} ${task.error}`;
      }
    }
    return undefined;
  }

  /** Those of earlier rounds, which have been seen to run. */
  async removeOld(round: number): Promise<void> {
    const old = [...this.#tasks].filter(([, since]) => since > 0 && since <= round - KEPT_ROUNDS);
    for (const [name] of old) {
      this.#tasks.delete(name);
      await until(`${name} is removed`, ANSWER_TIMEOUT_MS, async () => {
        await this.#fleet
          .client(1 + (round % this.#peers))
          .removeTask(name)
          .catch((error: unknown) => {
            if (!(error instanceof PeerClientError && error.status === 404)) throw error;
          });
        return true;
      });
    }
  }
}

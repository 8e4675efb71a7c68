import { voterTarget } from '../core/consensus/voters.ts';
import { TaskOrgError } from '../model/errors.ts';
import { PeerClient, PeerClientError } from './peer-client.ts';
import type { NodeStatus, TaskDocument, TaskStatus, Topology } from './types.ts';
import { until } from './until.ts';

const READY_TIMEOUT_MS = 60_000;
/** Peers of a large cluster that start at once: they share one machine's cores. */
const STARTS_AT_ONCE = 8;
const SUBMIT_TIMEOUT_MS = 60_000;
const ASK_TIMEOUT_MS = 3_000;
const RETRYABLE: ReadonlySet<string> = new Set([
  'unreachable',
  'no_master',
  'no_quorum',
  'not_master',
  'timeout',
  'busy',
]);

export interface FleetPlace {
  /** Where the API socket of a peer appears, as seen from here. */
  readonly socketPath: (node: number) => string;
  /** Starts the peer; `token` undefined for the first one, and for those that have joined before. */
  readonly launch: (node: number, options: { readonly token?: string; readonly witness: boolean }) => Promise<void>;
}

export const nodeName = (node: number): string => `node${node}`;
const nodeNumber = (name: string | null): number | null =>
  name === null ? null : Number(/^node(\d+)$/.exec(name)?.[1] ?? Number.NaN) || null;

/** The peers of one cluster, wherever they run, spoken to by their client API. */
export class Fleet {
  readonly #place: FleetPlace;
  readonly #clients = new Map<number, PeerClient>();
  /** Peers worth asking: up, and not cut off. */
  readonly #reachable = new Set<number>();
  #token = '';
  #asked = 0;

  constructor(place: FleetPlace) {
    this.#place = place;
  }

  /** Founds the cluster with peer 1, lets the others join at once, and waits for all of them and a master. */
  async form(topology: Topology): Promise<void> {
    const witness = (node: number): boolean => node > topology.peers - topology.witnesses;
    await this.#place.launch(1, { witness: witness(1) });
    await this.ready(1);
    const others = Array.from({ length: topology.peers - 1 }, (_, index) => index + 2);
    const uses = others.length + topology.joining;
    if (uses > 0)
      this.#token = await until('the first peer gives a join token', READY_TIMEOUT_MS, () =>
        this.client(1).createToken(uses),
      );
    for (let i = 0; i < others.length; i += STARTS_AT_ONCE) {
      const some = others.slice(i, i + STARTS_AT_ONCE);
      await Promise.all(some.map((node) => this.#place.launch(node, { token: this.#token, witness: witness(node) })));
      await Promise.all(some.map((node) => this.ready(node)));
    }
    await this.untilAlive(topology.peers);
  }

  async join(node: number): Promise<void> {
    await this.#place.launch(node, { token: this.#token, witness: false });
    await this.ready(node);
  }

  async restart(node: number): Promise<void> {
    await this.#place.launch(node, { witness: false });
    await this.ready(node);
  }

  /** Its API answers. */
  async ready(node: number): Promise<void> {
    await until(`${nodeName(node)} answers at ${this.#place.socketPath(node)}`, READY_TIMEOUT_MS, async () => {
      await this.client(node).nodes(ASK_TIMEOUT_MS);
      return true;
    });
    this.#reachable.add(node);
  }

  /** Every reachable peer sees `count` alive, a master, and as many voters as so many peers should have. */
  async untilAlive(count: number): Promise<void> {
    const voters = voterTarget(count);
    for (const node of this.#reachable) {
      await until(
        `${nodeName(node)} sees ${count} peers alive, a master and ${voters} voters`,
        READY_TIMEOUT_MS,
        async () => {
          const nodes = (await this.client(node).nodes(ASK_TIMEOUT_MS)).items;
          return (
            nodes.filter((one) => one.status === 'alive').length >= count &&
            nodes.filter((one) => one.role !== 'learner').length >= voters &&
            nodes.some((one) => one.role === 'master')
          );
        },
      );
    }
  }

  setReachable(nodes: readonly number[], reachable: boolean): void {
    for (const node of nodes) {
      if (reachable && this.#clients.has(node)) this.#reachable.add(node);
      else this.#reachable.delete(node);
    }
  }

  socketPath(node: number): string {
    return this.#place.socketPath(node);
  }

  client(node: number): PeerClient {
    const known = this.#clients.get(node);
    if (known) return known;
    const client = new PeerClient(this.#place.socketPath(node));
    this.#clients.set(node, client);
    return client;
  }

  /** Tries peers in turn with one id until one accepts; throws when one refuses. */
  async submit(document: TaskDocument): Promise<void> {
    const deadline = Date.now() + SUBMIT_TIMEOUT_MS;
    const id = document.name; // so that witnesses know a copy's task by its name
    await until(
      `the task ${document.name} is accepted`,
      SUBMIT_TIMEOUT_MS,
      async () => {
        try {
          await this.#next().submit(document, {
            id,
            timeoutMs: Math.max(1_000, Math.min(10_000, deadline - Date.now())),
          });
          return true;
        } catch (error) {
          if (error instanceof PeerClientError && !RETRYABLE.has(error.code)) {
            if (error.code === 'already_exists') return true; // an earlier try of ours was accepted after all
            throw new SubmissionRefused(error.message);
          }
          throw error;
        }
      },
      20,
      (error) => error instanceof SubmissionRefused,
    );
  }

  async tasks(): Promise<readonly TaskStatus[]> {
    const answer = await this.#anyone((client) => client.tasks(ASK_TIMEOUT_MS));
    return answer.items.map((task) => ({
      name: task.name,
      state: task.state,
      slots: task.slots.map((slot) => ({
        slot: slot.slot,
        node: nodeNumber(slot.node),
        state: slot.state,
        generation: slot.generation,
        startedAtMs: slot.startedAt,
      })),
    }));
  }

  async nodes(): Promise<readonly NodeStatus[]> {
    const answer = await this.#anyone((client) => client.nodes(ASK_TIMEOUT_MS));
    return answer.items.map((node) => ({ node: nodeNumber(node.name) ?? 0, status: node.status, role: node.role }));
  }

  async master(): Promise<number | undefined> {
    return (await this.nodes()).find((node) => node.role === 'master')?.node;
  }

  close(): void {
    for (const client of this.#clients.values()) client.close();
    this.#clients.clear();
    this.#reachable.clear();
  }

  #next(): PeerClient {
    const list = [...this.#reachable];
    const node = list[this.#asked++ % list.length];
    if (node === undefined) throw new TaskOrgError('unreachable', 'no peer is up');
    return this.client(node);
  }

  /** The first reachable peer that answers. */
  async #anyone<T>(ask: (client: PeerClient) => Promise<T>): Promise<T> {
    let last: unknown = new TaskOrgError('unreachable', 'no peer is up');
    for (let tries = Math.max(1, this.#reachable.size); tries > 0; tries -= 1) {
      try {
        return await ask(this.#next());
      } catch (error) {
        last = error;
      }
    }
    throw last;
  }
}

export class SubmissionRefused extends Error {}

import { createPeer, type Peer, type PeerOptions } from '../core/peer/peer.ts';
import type {
  ClientProposal,
  ClientResult,
  GossipMessage,
  PeerEffect,
  PeerEvent,
  PeerNotice,
} from '../core/peer/types.ts';
import type { ReconcileEvent } from '../core/reconcile/types.ts';
import type { Command } from '../model/commands.ts';
import { TaskOrgError } from '../model/errors.ts';
import { formatGeneration } from '../model/generation.ts';
import type { MonoMs, NodeId } from '../model/ids.ts';
import { decodeGossip, decodeMessage, encodeGossip, encodeMessage } from '../model/message-schemas.ts';
import type { Submission } from '../model/records.ts';
import type { BootLink, BootProber } from '../ports/boot.ts';
import type { Clock } from '../ports/clock.ts';
import type { Log } from '../ports/log.ts';
import type { Store } from '../ports/store.ts';
import type { Channel, Topic, Transport } from '../ports/transport.ts';
import { type CatchUp, createCatchUp } from './catch-up.ts';
import { createGather } from './gather.ts';
import { createPersistence, type Persistence } from './persistence.ts';
import type { RuntimeDriver } from './runtime-driver.ts';

// Runs one peer: events in, effects out, in the order persist, send, notify. The only place where time enters.

export interface PeerDriverDependencies {
  readonly clock: Clock;
  readonly transport: Transport;
  readonly store: Store;
  readonly boot: BootLink;
  readonly prober: BootProber;
  readonly log: Log;
  /** Built after the driver, since each needs the other. */
  readonly runtimes: (post: (event: ReconcileEvent) => void) => RuntimeDriver;
  readonly onNotice: (notice: PeerNotice) => void;
  /** The store failed; nothing may be acknowledged any more. */
  readonly onFatal: (error: unknown) => void;
  readonly onCredentialsChanged: () => void;
  /** This peer's epoch was superseded: it is to start again in that one. */
  readonly onRejoin: (epochId: string) => void;
}

export interface PeerDriver {
  readonly peer: Peer;
  /** This life's incarnation is durable: a later one will be higher. Nothing may be said to others before. */
  readonly ready: Promise<void>;
  post(event: PeerEvent): void;
  submit(submission: Submission): Promise<ClientResult>;
  propose(command: Command): Promise<ClientResult>;
  /** Resolves when what this peer has applied is at least as new as every commit before the call. */
  readCurrent(): Promise<ClientResult>;
  /** Handlers for the transport. */
  onMessage(from: NodeId, channel: Channel, payload: Uint8Array): void;
  onGossip(from: NodeId, topic: Topic, payload: Uint8Array): void;
  readonly catchUp: CatchUp;
  readonly persistence: Persistence;
  /** Rejected peer input by reason. */
  readonly rejects: ReadonlyMap<string, number>;
  stop(): Promise<void>;
}

/** A peer that lags more than this answers before it has applied the change itself. */
const APPLY_PATIENCE_MS = 1000;
/** An election or a transfer is over sooner than this; what was certainly not proposed is tried again until then. */
const NO_MASTER_PATIENCE_MS = 3000;
const NO_MASTER_RETRY_MS = 50;

export function createPeerDriver(options: PeerOptions, deps: PeerDriverDependencies): PeerDriver {
  const { clock, transport, log } = deps;
  const peer = createPeer(options, clock.mono());
  const rejects = new Map<string, number>();
  const replies = new Map<number, (result: ClientResult) => void>();
  const queue: PeerEvent[] = [];
  const appliedWaiters = new Set<{ readonly index: number; readonly resolve: () => void }>();
  let requestIds = 1;
  let running = false;
  let stopped = false;
  let cancelTimer: (() => void) | undefined;
  let timerAt: MonoMs | undefined;

  const persistence = createPersistence(deps.store, {
    onPersisted: (persistId) => post({ type: 'persisted', persistId }),
    onStateWritten: (index) => post({ type: 'state-written', index }),
    onFailure: (error) => {
      stopped = true;
      deps.onFatal(error);
    },
  });
  const catchUp = createCatchUp({ peer, transport, store: deps.store, persistence, log, post: (e) => post(e) });
  const runtimes = deps.runtimes((event) => post({ type: 'runtime', event }));

  function post(event: PeerEvent): void {
    if (stopped) return;
    queue.push(event);
    if (running) return;
    running = true;
    try {
      for (let next = queue.shift(); next !== undefined; next = queue.shift()) {
        for (const effect of peer.step(next, clock.mono(), clock.wall())) run(effect);
      }
    } finally {
      running = false;
    }
    const { applied } = peer.state();
    for (const waiter of appliedWaiters) if (waiter.index <= applied) waiter.resolve();
    arm();
  }

  function arm(): void {
    const at = peer.nextWake();
    if (at === timerAt) return;
    cancelTimer?.();
    timerAt = at;
    cancelTimer = at === undefined ? undefined : clock.at(at, onTimer);
  }

  // A late timer may mean that this process stalled while answers wait in its sockets: two turns of the event loop let them
  // in before anybody is accused (Lifeguard section IV; protocol rule 'drain the socket first').
  function onTimer(lateMs: number): void {
    timerAt = undefined;
    cancelTimer = undefined;
    const tick = (): void => post({ type: 'tick', lateMs });
    if (lateMs < options.config.membership.lateTickMs) tick();
    else setImmediate(() => setImmediate(tick));
  }

  function run(effect: PeerEffect): void {
    switch (effect.type) {
      case 'persist':
        return persistence.persist(effect.persistId, effect.ops);
      case 'write-state':
        return persistence.writeState(effect.puts, effect.applied);
      case 'keep-submission':
        return persistence.keepSubmission(effect.submission, () =>
          post({ type: 'submission-kept', id: effect.submission.id }),
        );
      case 'drop-submissions':
        return persistence.dropSubmissions(effect.ids);
      case 'send': {
        const send = (): void =>
          transport.send(effect.to, effect.channel, encodeMessage(effect.channel, effect.message));
        return effect.afterPersist ? persistence.afterPersist(send) : send();
      }
      case 'publish':
        transport
          .publish(effect.topic, encodeGossip(effect))
          .catch((error: unknown) => log.debug({ topic: effect.topic, error: String(error) }, 'gossip not published'));
        return;
      case 'probe-boot':
        return deps.prober.probe(effect.peer, effect.attempt, effect.addresses);
      case 'dial':
        transport.dial(effect.peer, AbortSignal.timeout(2000)).catch(() => {});
        return;
      case 'hang-up':
        return transport.hangUp(effect.peer);
      case 'peers':
        transport.setPeers(effect.peers);
        transport.setWanted(effect.wanted);
        return persistence.local('peers', new TextEncoder().encode(JSON.stringify(effect.peers)));
      case 'credentials-changed':
        return deps.onCredentialsChanged();
      case 'incarnation':
        return persistence.local('incarnation', new TextEncoder().encode(String(effect.incarnation)));
      case 'runtime':
        return runtimes.run(effect.effect);
      case 'lease-deadline': {
        const prefix = `${effect.key.taskId}.${effect.key.slot}.${formatGeneration(effect.key.generation)}.`;
        return runtimes.deadline(prefix, effect.deadline);
      }
      case 'fetch-entries':
        return catchUp.fetchEntries(effect.from, effect.to, effect.peers);
      case 'fetch-snapshot':
        return catchUp.fetchSnapshot(effect);
      case 'rejoin':
        return deps.onRejoin(effect.epochId);
      case 'client-reply':
        replies.get(effect.requestId)?.(effect.result);
        replies.delete(effect.requestId);
        return;
      case 'notify':
        return deps.onNotice(effect.notice);
    }
  }

  const reject = (reason: string, from: NodeId): void => {
    rejects.set(reason, (rejects.get(reason) ?? 0) + 1);
    log.debug({ from, reason }, 'peer input rejected');
  };

  const ready = new Promise<void>((resolve) => {
    persistence.local('incarnation', new TextEncoder().encode(String(options.incarnation)), resolve);
  });

  /** Whoever changed something through this peer reads it back here: the answer waits until this peer has applied it too. */
  const appliedHere = async (result: ClientResult): Promise<ClientResult> => {
    if (!result.ok || result.index <= peer.state().applied) return result;
    await new Promise<void>((resolve) => {
      const done = (): void => {
        cancel();
        appliedWaiters.delete(waiter);
        resolve();
      };
      const waiter = { index: result.index, resolve: done };
      const cancel = clock.at((clock.mono() + APPLY_PATIENCE_MS) as MonoMs, done);
      appliedWaiters.add(waiter);
    });
    return result;
  };

  const ask = (event: (requestId: number) => PeerEvent): Promise<ClientResult> => {
    if (stopped) return Promise.reject(new TaskOrgError('aborted', 'this peer is stopping'));
    const requestId = requestIds++;
    return new Promise((resolve) => {
      replies.set(requestId, resolve);
      post(event(requestId));
    });
  };

  const asked = createGather<ClientProposal>(clock, (proposals) => post({ type: 'client-proposals', proposals }));

  const proposeOnce = (command: Command): Promise<ClientResult> => {
    if (stopped) return Promise.reject(new TaskOrgError('aborted', 'this peer is stopping'));
    const requestId = requestIds++;
    return new Promise((resolve) => {
      replies.set(requestId, (result) => {
        resolve(result);
        asked.answered();
      });
      asked.add({ requestId, command });
    });
  };
  const pause = (ms: number): Promise<void> =>
    new Promise((resolve) => void clock.at((clock.mono() + ms) as MonoMs, () => resolve()));

  deps.prober.onAck((from, attempt) => post({ type: 'boot-ack', peer: from, attempt }));

  return {
    peer,
    ready,
    post,
    catchUp,
    persistence,
    rejects,
    submit: (submission) => ask((requestId) => ({ type: 'client-submit', requestId, submission })),
    propose: async (command) => {
      const until = clock.mono() + NO_MASTER_PATIENCE_MS;
      let result = await proposeOnce(command);
      while (!result.ok && result.reason === 'no-master' && !stopped && clock.mono() < until) {
        await pause(NO_MASTER_RETRY_MS);
        result = await proposeOnce(command);
      }
      return await appliedHere(result);
    },
    readCurrent: () => ask((requestId) => ({ type: 'client-read', requestId })),
    onMessage: (from, channel, payload) => {
      const decoded = decodeMessage(channel, payload);
      if (!decoded.ok) return reject(`${channel}: ${decoded.error}`, from);
      post({ type: 'message', from, ...decoded.value });
    },
    onGossip: (from, topic, payload) => {
      const decoded = decodeGossip(topic, payload);
      if (!decoded.ok) return reject(`${topic} topic: ${decoded.error}`, from);
      post({ type: 'gossip', from, ...(decoded.value as GossipMessage) });
    },
    stop: async () => {
      stopped = true;
      cancelTimer?.();
      await runtimes.stop();
      for (const resolve of replies.values())
        resolve({ ok: false, reason: 'timeout', message: 'this peer is stopping' });
      replies.clear();
      await persistence.idle();
    },
  };
}

import { createPeer, type Peer, type PeerOptions } from '../core/peer/peer.ts';
import type { PeerConfig, PeerEffect, PeerEvent } from '../core/peer/types.ts';
import { formatCopyId } from '../core/reconcile/copy-id.ts';
import type { DesiredCopy, ObservedCopy } from '../core/reconcile/types.ts';
import { dumpState } from '../core/state/state.ts';
import type { StatePut } from '../core/state/types.ts';
import { formatGeneration } from '../model/generation.ts';
import { incarnation, logIndex, monoMs, wallMs, type MonoMs, type NodeId } from '../model/ids.ts';
import type { LeaseKey } from '../core/lease/types.ts';
import type { Rng } from '../model/random.ts';
import { Disk, DiskWriter } from './disk.ts';
import type { RunInterval } from './invariants.ts';
import type { World } from './world.ts';

// One simulated machine: power, disk, boot, agent (the real peer core), and the copies its runtime runs. The driver's rules
// (persist, then send, then notify; boot's deadlines) are kept here as they are in the real agent.

interface RunningCopy {
  readonly desired: DesiredCopy;
  readonly interval: RunInterval | undefined;
  readonly startedAt: number;
}

export class Machine {
  readonly id: NodeId;
  readonly index: number;
  readonly world: World;
  readonly rng: Rng;
  readonly disk: Disk;
  powered = false;
  /** Boot answers probes and enforces deadlines; dies only with the machine (or by a fault of its own). */
  boot = false;
  peer: Peer | undefined;
  #writer: DiskWriter | undefined;
  #life = 0;
  #wakeAt: number | undefined;
  #incarnation = 0;
  #seeds: PeerOptions['seeds'];
  /** Survive the agent, not the machine. */
  readonly copies = new Map<string, RunningCopy>();
  /** Boot's registry: deadlines of exclusive slots' copies. */
  readonly #deadlines = new Map<string, { key: LeaseKey; deadline: number }>();
  /** Wall clock of this machine relative to the world's, ms. */
  wallOffset = 0;

  constructor(world: World, index: number, id: NodeId, voters: readonly NodeId[], seeds: PeerOptions['seeds']) {
    this.world = world;
    this.index = index;
    this.id = id;
    this.rng = world.rngFor(`machine/${index}`);
    this.disk = new Disk(voters);
    this.#seeds = seeds;
  }

  get up(): boolean {
    return this.peer !== undefined;
  }

  now(): MonoMs {
    return monoMs(this.world.now);
  }

  powerOn(): void {
    this.powered = true;
    this.boot = true;
    this.startAgent();
  }

  powerOff(): void {
    this.powered = false;
    this.boot = false;
    this.#stopAgent();
    for (const copyId of [...this.copies.keys()]) this.#copyGone(copyId);
    this.#deadlines.clear();
    this.world.machineSilent(this);
  }

  /** The agent alone dies; boot restarts it. The copies go on. */
  killAgent(restartAfterMs: number): void {
    if (!this.up) return;
    this.#stopAgent();
    this.world.agentGone(this);
    const life = this.#life;
    this.world.after(restartAfterMs, () => {
      if (this.powered && this.#life === life && !this.up) this.startAgent();
    });
  }

  #stopAgent(): void {
    this.#life += 1;
    this.#writer?.lose();
    this.#writer = undefined;
    this.peer = undefined;
  }

  startAgent(): void {
    const life = ++this.#life;
    const { consensus, state, pending } = this.disk.restore();
    this.#incarnation = Math.max(this.#incarnation + 1, Number(this.disk.local.get('incarnation') ?? '0') + 1);
    this.world.invariants.restarted(this.id);
    this.#writer = new DiskWriter(
      this.disk,
      (done) => this.world.after(this.world.fsyncMs(this), () => { if (this.#life === life) done(); }),
      (persistId) => this.post({ type: 'persisted', persistId }),
      (index) => this.post({ type: 'state-written', index }),
    );
    this.#writer.local('incarnation', String(this.#incarnation));
    this.peer = createPeer({
      self: this.id, config: this.world.config, seed: `${this.world.seed}/${this.index}/${life}`, incarnation: incarnation(this.#incarnation),
      consensus, state, pending, seeds: this.#seeds, rank: this.index / 100,
      adoptedLeases: [...this.#deadlines.values()].map((d) => ({ key: d.key, deadline: monoMs(d.deadline) })),
    }, this.now());
    this.post({ type: 'host-facts', head: this.world.hostFacts(this) });
    this.post({ type: 'runtime', event: { type: 'listing', runtime: 'process', copies: [...this.copies.values()].map((c) => this.#observed(c)) } });
    this.world.agentUp(this);
    this.#loadLoop(life);
  }

  #loadLoop(life: number): void {
    this.world.after(this.world.config.factsHeadMs, () => {
      if (this.#life !== life || !this.up) return;
      this.post({ type: 'host-facts', head: this.world.hostFacts(this) });
      this.#loadLoop(life);
    });
  }

  post(event: PeerEvent): void {
    const peer = this.peer;
    if (peer === undefined) return;
    const life = this.#life;
    const effects = peer.step(event, this.now(), wallMs(this.world.wallNow() + this.wallOffset));
    for (const effect of effects) {
      if (this.#life !== life) return;
      if (this.world.crashBetweenEffects(this)) {
        this.powerOff();
        return;
      }
      this.#run(effect);
    }
    this.world.checked(this);
    this.#arm();
  }

  #arm(): void {
    const at = this.peer?.nextWake();
    if (at === undefined || (this.#wakeAt !== undefined && this.#wakeAt <= at && this.#wakeAt > this.world.now)) return;
    this.#wakeAt = at;
    const life = this.#life;
    this.world.at(Math.max(at, this.world.now), () => {
      if (this.#life !== life || !this.up) return;
      if (this.#wakeAt !== at) return;
      this.#wakeAt = undefined;
      const late = this.world.stallOf(this);
      if (late > 0) {
        this.world.after(late, () => { if (this.#life === life) this.post({ type: 'tick', lateMs: late }); });
        return;
      }
      this.post({ type: 'tick', lateMs: 0 });
    });
  }

  #run(effect: PeerEffect): void {
    const writer = this.#writer;
    if (writer === undefined) return;
    switch (effect.type) {
      case 'persist':
        return writer.persist(effect.persistId, effect.ops);
      case 'write-state':
        return writer.writeState(effect.puts, effect.applied);
      case 'keep-submission':
        return writer.keep(effect.submission, () => this.post({ type: 'submission-kept', id: effect.submission.id }));
      case 'drop-submissions':
        return writer.drop(effect.ids);
      case 'send': {
        const send = (): void => {
          if (effect.channel === 'raft' && effect.message.type === 'vote-reply' && effect.message.granted && !effect.message.preVote) {
            this.world.invariants.voteSent(this.id, effect.message.term, effect.to, this.disk.hardState);
          }
          this.world.send(this, effect.to, { ...effect, type: 'message', from: this.id });
        };
        return effect.afterPersist ? writer.after(send) : send();
      }
      case 'publish':
        return this.world.publish(this, effect);
      case 'probe-boot':
        return this.world.probeBoot(this, effect.peer, effect.attempt);
      case 'dial':
        return this.world.dial(this, effect.peer);
      case 'peers':
        return this.world.wanted(this, effect.wanted);
      case 'credentials-changed':
        return;
      case 'incarnation':
        this.#incarnation = effect.incarnation;
        return writer.local('incarnation', String(effect.incarnation));
      case 'runtime':
        return this.#runtime(effect.effect);
      case 'lease-deadline':
        return this.#deadline(effect.key, effect.deadline);
      case 'fetch-entries':
        return this.world.fetchEntries(this, effect.from, effect.to, effect.peers);
      case 'fetch-snapshot':
        return this.world.fetchSnapshot(this, effect);
      case 'client-reply':
        return this.world.replied(this, effect.requestId, effect.result);
      case 'notify':
        return this.world.noticed(this, effect.notice);
    }
  }

  // ---- runtime and boot ------------------------------------------------------------------------------------------------

  #observed(c: RunningCopy): ObservedCopy {
    const { taskId, slot, generation, specVersion } = c.desired;
    return { copyId: formatCopyId(c.desired), taskId, slot, generation, specVersion, runtime: 'process', handle: `sim:${this.index}`, running: true, startedAt: wallMs(c.startedAt), exitCode: null, ports: [] };
  }

  #runtime(effect: Extract<PeerEffect, { type: 'runtime' }>['effect']): void {
    const life = this.#life;
    const answer = (delay: number, run: () => void): void => this.world.after(delay, () => { if (this.powered) run(); });
    if (effect.type === 'start') {
      answer(this.world.startMs(this), () => {
        // The agent that asked is gone: its start died with it.
        if (this.#life !== life || this.copies.has(effect.copyId)) return;
        const key: LeaseKey = { taskId: effect.copy.taskId, slot: effect.copy.slot, generation: effect.copy.generation };
        if (effect.copy.exclusive && !this.#deadlines.has(slotText(key))) {
          this.post({ type: 'runtime', event: { type: 'start-failed', copyId: effect.copyId, error: 'its lease ran out', retryable: true } });
          return;
        }
        const interval = effect.copy.exclusive ? { slot: `${key.taskId}/${key.slot}`, node: this.id, generation: key.generation, from: this.world.now, to: undefined } : undefined;
        const copy: RunningCopy = { desired: effect.copy, interval, startedAt: this.world.wallNow() };
        this.copies.set(effect.copyId, copy);
        if (interval) this.world.invariants.copyStarted(interval);
        this.world.copyRuns(this, effect.copy);
        this.post({ type: 'runtime', event: { type: 'started', copy: this.#observed(copy) } });
      });
    } else if (effect.type === 'stop') {
      answer(effect.graceful ? 20 : 5, () => {
        this.#copyGone(effect.copyId);
        if (this.#life === life) this.post({ type: 'runtime', event: { type: 'stopped', copyId: effect.copyId } });
      });
    } else answer(5, () => { if (this.#life === life) this.post({ type: 'runtime', event: { type: 'health', copyId: effect.copyId, ok: true, output: '' } }); });
  }

  /** The runtime dies: its copies are gone when it returns, and nothing starts meanwhile. */
  engineDown(): void {
    this.post({ type: 'runtime', event: { type: 'runtime-down', runtime: 'process', reason: 'engine killed' } });
  }
  engineUp(): void {
    for (const copyId of [...this.copies.keys()]) this.#copyGone(copyId);
    this.post({ type: 'runtime', event: { type: 'listing', runtime: 'process', copies: [] } });
  }

  #copyGone(copyId: string): void {
    const copy = this.copies.get(copyId);
    if (!copy) return;
    this.copies.delete(copyId);
    if (copy.interval) this.world.invariants.copyEnded(copy.interval, this.world.now);
    this.world.copyGone(this, copy.desired);
  }

  #deadline(key: LeaseKey, deadline: MonoMs | undefined): void {
    const text = slotText(key);
    if (deadline === undefined) {
      this.#deadlines.delete(text);
      this.world.after(5, () => this.#bootKills(key));
      return;
    }
    this.#deadlines.set(text, { key, deadline });
    const killAt = deadline - this.world.config.lease.stopAllowanceMs;
    this.world.at(Math.max(this.world.now, killAt), () => {
      const held = this.#deadlines.get(text);
      if (!this.boot || held === undefined || held.deadline > deadline) return;
      this.#deadlines.delete(text);
      this.#bootKills(key);
    });
  }

  #bootKills(key: LeaseKey): void {
    const prefix = `${slotText(key)}.`;
    const killed = [...this.copies.keys()].filter((id) => id.startsWith(prefix));
    for (const copyId of killed) this.#copyGone(copyId);
    if (killed.length > 0) this.post({ type: 'proven-dead', keys: [key] });
  }

  /** Serves a neighbour's range request. */
  entries(from: number, to: number): Extract<PeerEvent, { type: 'range-reply' }>['entries'] | undefined {
    const peer = this.peer;
    if (!peer) return undefined;
    const commit = peer.consensus().commit;
    const prevTerm = peer.termAt(logIndex(from - 1));
    if (prevTerm === undefined) return undefined;
    const entries = peer.logEntries(logIndex(from), logIndex(Math.min(to, from + 256, commit + 1)));
    return { prevIndex: logIndex(from - 1), prevTerm, entries, commit };
  }

  snapshot(): { readonly index: number; readonly pairs: StatePut[] } | undefined {
    if (!this.peer) return undefined;
    return { index: this.peer.state().applied, pairs: [...dumpState(this.peer.state())] };
  }
}

const slotText = (key: LeaseKey): string => `${key.taskId}.${key.slot}.${formatGeneration(key.generation)}`;

import type { LeaseKey, RenewAckMessage } from '../core/lease/types.ts';
import { createPeer, type Peer, type PeerOptions } from '../core/peer/peer.ts';
import type { PeerEffect, PeerEvent } from '../core/peer/types.ts';
import { dumpState } from '../core/state/state.ts';
import { incarnation, logIndex, type MonoMs, monoMs, type NodeId, wallMs } from '../model/ids.ts';
import type { Rng } from '../model/random.ts';
import { type RunningCopy, SimBoot } from './boot.ts';
import { Disk, DiskWriter, type Snapshot } from './disk.ts';
import { SimEngine } from './engine.ts';
import { flawedPairs, flawedRestore, flawedSnapshot, inOneStep } from './flawed-disk.ts';
import { InvariantBroken } from './invariants.ts';
import { sleepGuard, TIMER_MS } from './sleep-guard.ts';
import type { World } from './world.ts';

// One simulated machine: power, clock, disk, boot, agent (the real peer core), and the copies its runtime runs. The driver's
// rules (persist, then send, then notify; boot's deadlines) are kept here as they are in the real agent.

/** Send times remembered of lease renewals, to check what is counted from them. */
const RENEWALS_KEPT = 64;

export class Machine {
  readonly id: NodeId;
  readonly index: number;
  readonly witness: boolean;
  readonly world: World;
  readonly rng: Rng;
  readonly disk: Disk;
  readonly boot: SimBoot;
  powered = false;
  /** Nothing of it runs, boot and its copies neither; its clock goes on, and what comes for it waits. */
  frozen = false;
  #frozenFrom = 0;
  thawedAt: number | undefined;
  readonly #asleep: (() => void)[] = [];
  /** What happens to it at the worst moment: with a batch on its way to the disk, with a copy about to start. */
  atNextWrite: (() => void) | undefined;
  atNextStart: (() => void) | undefined;
  peer: Peer | undefined;
  /** Number of times it was powered on. */
  boots = 0;
  readonly engine: SimEngine;
  /** Wall clock of this machine relative to the world's, ms. */
  wallOffset = 0;
  /** Its own clock: counts from power-on, at a rate of its own. */
  readonly #rate: number;
  #clockFrom = 0;
  #writer: DiskWriter | undefined;
  #life = 0;
  readonly #queue: { readonly event: PeerEvent; readonly life: number }[] = [];
  #posting = false;
  #wakeAt: number | undefined;
  readonly #sleeps: (now: number) => void;
  readonly #seeds: PeerOptions['seeds'];
  readonly #renewals = new Map<number, number>();
  #event: PeerEvent | undefined;

  constructor(
    world: World,
    index: number,
    id: NodeId,
    options: {
      readonly voters: readonly NodeId[];
      readonly seeds: PeerOptions['seeds'];
      readonly rate: number;
      readonly witness: boolean;
    },
  ) {
    this.world = world;
    this.index = index;
    this.id = id;
    this.witness = options.witness;
    this.rng = world.rngFor(`machine/${index}`);
    this.disk = new Disk(options.voters, { lies: world.has('fsync-lies'), full: world.has('disk-full') });
    this.boot = new SimBoot(this);
    this.engine = new SimEngine(this);
    this.#sleeps = sleepGuard(id);
    this.#seeds = options.seeds;
    this.#rate = options.rate;
  }

  get up(): boolean {
    return this.peer !== undefined;
  }

  // ---- clock -------------------------------------------------------------------------------------------------------------

  now(): MonoMs {
    return monoMs((this.world.now - this.#clockFrom) * this.#rate);
  }
  /** The first instant of the world at which this machine's clock shows `at`. */
  worldTimeOf(at: number): number {
    let t = this.#clockFrom + at / this.#rate;
    while ((t - this.#clockFrom) * this.#rate < at) t += 1e-6;
    return t;
  }

  // ---- standing still ----------------------------------------------------------------------------------------------------

  /** Runs at world time `at`, or when the machine thaws, if that is later. */
  at(at: number, run: () => void): void {
    this.world.at(at, () => (this.frozen ? void this.#asleep.push(run) : run()));
  }
  after(ms: number, run: () => void): void {
    this.at(this.world.now + ms, run);
  }
  freeze(): void {
    if (!this.powered || this.frozen) return;
    this.frozen = true;
    this.#frozenFrom = this.world.now;
    for (const copy of this.copies.values()) if (copy.interval) copy.interval.frozen = true;
  }
  thaw(): void {
    if (!this.frozen) return;
    this.frozen = false;
    this.thawedAt = this.world.now;
    this.world.disturbed();
    if (this.world.has('clock-without-suspend')) this.#clockFrom += this.world.now - this.#frozenFrom;
    for (const copy of this.copies.values()) if (copy.interval) this.world.invariants.runThaws(copy.interval);
    for (const run of this.#asleep.splice(0)) run();
  }

  // ---- power -------------------------------------------------------------------------------------------------------------

  powerOn(): void {
    if (this.powered) return;
    this.powered = true;
    this.world.disturbed();
    this.engine.up = true;
    this.boots += 1;
    this.#clockFrom = this.world.now - this.rng.int(1, 60_000);
    this.startAgent();
  }

  powerOff(): void {
    if (!this.powered) return;
    this.powered = false;
    this.frozen = false;
    this.#asleep.length = 0;
    this.world.disturbed();
    const last = this.#stopAgent();
    this.disk.cut(this.rng, last, { half: this.world.has('half-a-batch'), tears: this.world.has('torn-entry') });
    this.boots += 1;
    for (const copy of [...this.copies.values()]) this.copyGone(copy);
    if (!this.world.has('leases-outlive-power')) this.boot.powerOff();
    this.world.network.closeAll(this, true);
  }

  /** The agent alone dies; boot restarts it. The copies go on. */
  killAgent(restartAfterMs: number): void {
    if (!this.up || this.frozen) return;
    this.#stopAgent();
    if (this.world.has('boot-forgets')) this.boot.powerOff();
    this.world.disturbed();
    this.world.tally.agentCrashes += 1;
    this.world.network.closeAll(this, false);
    const life = this.#life;
    this.after(restartAfterMs, () => {
      if (this.powered && this.#life === life && !this.up) this.startAgent();
    });
  }

  #stopAgent(): ReturnType<DiskWriter['lose']> {
    this.#life += 1;
    const last = this.#writer?.lose();
    this.#writer = undefined;
    this.peer = undefined;
    this.#wakeAt = undefined;
    this.#renewals.clear();
    return last;
  }

  startAgent(): void {
    const { world } = this;
    const life = ++this.#life;
    const { consensus, state, pending } = flawedRestore(world, this, this.disk.restore());
    world.disturbed();
    const lived = world.has('forgets-life') ? 1 : Number(this.disk.local.get('incarnation') ?? '0') + 1;
    world.invariants.restarted(this.id);
    const { hardState, entries, snapshot, mayVote } = consensus;
    const lastIndex = entries.at(-1)?.index ?? snapshot.index;
    world.invariants.restored(this.id, { hardState, lastIndex }, entries, mayVote);
    this.#writer = new DiskWriter(
      this.disk,
      (sync, done) =>
        this.#write(sync, () => {
          if (this.#life === life) done();
        }),
      (persistId) => this.post({ type: 'persisted', persistId }),
      (index) => this.post({ type: 'state-written', index }),
      {
        skipWait: world.has('vote-before-fsync'),
        skipState: world.has('applied-without-state'),
        skipApplied: world.has('state-without-applied'),
        skipTruncate: world.has('skips-truncate'),
        skipFsync: world.has('durable-too-soon'),
        skipWritten: world.has('never-written'),
      },
    );
    this.#writer.local('incarnation', String(lived));
    this.peer = createPeer(
      {
        self: this.id,
        config: world.configOf(this),
        seed: `${world.seed}/${this.index}/${life}`,
        incarnation: incarnation(lived),
        consensus,
        state,
        pending: world.has('forget-submissions') ? [] : pending,
        seeds: this.#seeds,
        rank: this.index / 100,
        adoptedLeases: this.boot.kept(),
      },
      this.now(),
    );
    world.network.wanted(
      this,
      this.#seeds.map((s) => s.id),
    );
    this.post({ type: 'host-facts', head: world.hostFacts(this) });
    if (this.engine.up) this.engine.list(world.has('blind-listing'));
    this.#loadLoop(life);
  }

  #write(sync: boolean, done: () => void): void {
    this.after(sync ? this.world.fsyncMs(this) : 0.05, done);
    const happens = sync ? this.atNextWrite : undefined;
    if (happens === undefined) return;
    this.atNextWrite = undefined;
    this.world.after(0.1, happens);
  }

  #loadLoop(life: number): void {
    this.after(this.world.config.factsHeadMs, () => {
      if (this.#life !== life || !this.up) return;
      this.post({ type: 'host-facts', head: this.world.hostFacts(this) });
      this.#loadLoop(life);
    });
  }

  // ---- the agent ---------------------------------------------------------------------------------------------------------

  /** One after another, as the driver does: an event that an effect brings about waits until the effects before it are done. */
  post(event: PeerEvent): void {
    if (this.peer === undefined) return;
    if (this.frozen) {
      const life = this.#life;
      this.#asleep.push(() => {
        if (life === this.#life) this.post(event);
      });
      return;
    }
    this.#queue.push({ event, life: this.#life });
    if (this.#posting) return;
    this.#posting = true;
    for (let next = this.#queue.shift(); next !== undefined; next = this.#queue.shift()) {
      if (next.life === this.#life) this.#step(next.event);
    }
    this.#posting = false;
  }

  #step(event: PeerEvent): void {
    const { peer, world } = this;
    if (peer === undefined) return;
    const life = this.#life;
    const { trace } = world;
    trace.event(world.now, this.index, event);
    const effects = this.#stepped(peer, event);
    for (const effect of effects) {
      if (this.#life !== life) return;
      if (world.crashesNow(this)) return this.powerOff();
      trace.effect(effect);
      this.#event = event;
      this.#run(effect);
    }
    if (this.#life !== life) return;
    world.checked(this);
    this.#arm();
  }

  #stepped(peer: Peer, event: PeerEvent): PeerEffect[] {
    try {
      return peer.step(event, this.now(), wallMs(this.world.wallNow() + this.wallOffset));
    } catch (error) {
      const why = error instanceof Error ? (error.stack ?? error.message) : String(error);
      throw new InvariantBroken('a core never throws', `${this.id}, on ${event.type}: ${why}`);
    }
  }

  #arm(): void {
    const at = this.peer?.nextWake();
    if (at === undefined || (this.#wakeAt !== undefined && this.#wakeAt <= at)) return;
    this.#wakeAt = at;
    const life = this.#life;
    const { world } = this;
    const due = Math.max(this.worldTimeOf(at), world.now + TIMER_MS);
    this.at(due, () => {
      if (this.#life !== life || this.#wakeAt !== at) return;
      this.#wakeAt = undefined;
      this.#sleeps(world.now);
      const stall = world.stallOf(this);
      if (stall === 0) return this.post({ type: 'tick', lateMs: world.now - due });
      this.#wakeAt = Number.NEGATIVE_INFINITY;
      this.after(stall, () => {
        if (this.#life !== life) return;
        this.#wakeAt = undefined;
        this.post({ type: 'tick', lateMs: world.now - due });
      });
    });
  }

  #run(effect: PeerEffect): void {
    const writer = this.#writer;
    const { world } = this;
    if (writer === undefined) return;
    switch (effect.type) {
      case 'persist':
        if (world.has('one-step-voters')) inOneStep(effect.ops);
        world.invariants.appended(this.id, effect.ops, (index) => this.peer?.termAt(index));
        return writer.persist(effect.persistId, effect.ops);
      case 'write-state':
        if (world.has('start-without-lease')) this.engine.flaws.startAtOnce(effect.puts);
        if (world.has('loses-adopted')) this.engine.flaws.loseAdopted(effect.puts);
        return writer.writeState(effect.puts, effect.applied);
      case 'keep-submission':
        return writer.keep(effect.submission, () => {
          world.invariants.kept(effect.submission.id);
          if (world.has('early-acceptance'))
            world.invariants.acknowledged(effect.submission.id, effect.submission.spec.name);
          this.post({ type: 'submission-kept', id: effect.submission.id });
        });
      case 'drop-submissions':
        return writer.drop(effect.ids);
      case 'send': {
        if (effect.channel === 'lease' && effect.message.type === 'lease-renew') this.#noteRenewal(effect.message.seq);
        const send = (): void => {
          if (effect.channel === 'raft') {
            world.invariants.sent(this.id, effect.to, effect.message, this.disk);
            world.watch.sent(this, effect.to, effect.message);
          }
          world.network.send(this, effect.to, effect);
        };
        return effect.afterPersist ? writer.after(send) : send();
      }
      case 'publish':
        return world.network.publish(this, effect);
      case 'probe-boot':
        return world.network.probeBoot(this, effect.peer, effect.attempt);
      case 'dial':
        return world.network.dial(this, effect.peer);
      case 'hang-up':
        return world.network.hangUp(this, effect.peer);
      case 'peers':
        return world.network.wanted(this, effect.wanted);
      case 'credentials-changed':
        return;
      case 'incarnation':
        return writer.local('incarnation', String(effect.incarnation));
      case 'runtime':
        return this.engine.run(effect.effect);
      case 'lease-deadline':
        return effect.deadline === undefined ? this.boot.drop(effect.key) : this.#lease(effect.key, effect.deadline);
      case 'fetch-entries':
        return world.network.fetchEntries(this, effect.from, effect.to, effect.peers);
      case 'fetch-snapshot':
        return world.network.fetchSnapshot(this, effect);
      case 'client-reply':
        return world.replied(effect.requestId, effect.result);
      case 'notify':
        this.engine.flaws.noticed(effect.notice);
        return world.noticed(this, effect.notice);
    }
  }

  // ---- leases ------------------------------------------------------------------------------------------------------------

  #noteRenewal(seq: number): void {
    this.#renewals.set(seq, this.now());
    if (this.#renewals.size > RENEWALS_KEPT) this.#renewals.delete(this.#renewals.keys().next().value as number);
  }

  /** The holder counts from the send time of what was acknowledged, never from the answer (Gray & Cheriton, 'effective term'). */
  #lease(key: LeaseKey, deadline: number): void {
    const { world } = this;
    const { leaseMs, clockRateError } = world.config.lease;
    const event = this.#event;
    let counted = deadline;
    if (event?.type === 'message' && event.channel === 'lease' && event.message.type === 'lease-ack') {
      const sentAt = this.#renewals.get(event.message.seq);
      if (world.has('lease-from-receipt')) counted = this.now() + leaseMs * (1 - clockRateError);
      if (
        sentAt !== undefined &&
        counted > sentAt + leaseMs * (1 - Math.abs(clockRateError)) + 1e-6 &&
        !world.has('wrong-lease-arithmetic')
      )
        throw new InvariantBroken(
          'lease counts from sending',
          `${this.id} counts ${counted} for a renewal sent at ${sentAt}`,
        );
    }
    this.boot.set(key, counted);
  }

  // ---- its engine --------------------------------------------------------------------------------------------------------

  get copies(): SimEngine['copies'] {
    return this.engine.copies;
  }
  get life(): number {
    return this.#life;
  }
  engineKill(): void {
    this.engine.kill();
  }
  engineStart(): void {
    this.engine.start();
  }
  copyGone(copy: RunningCopy): void {
    this.engine.copyGone(copy);
  }

  // ---- serving neighbours ------------------------------------------------------------------------------------------------

  entries(from: number, to: number): Extract<PeerEvent, { type: 'range-reply' }>['entries'] | undefined {
    const peer = this.peer;
    if (!peer) return undefined;
    const view = peer.consensus();
    const all = this.world.has('uncommitted-neighbours');
    const commit = all ? view.lastIndex : view.commit;
    const prevTerm = peer.termAt(logIndex(from - 1));
    if (prevTerm === undefined) return undefined;
    const entries = peer.logEntries(logIndex(from), logIndex(Math.min(all ? commit + 1 : to, from + 256, commit + 1)));
    return { prevIndex: logIndex(from - 1), prevTerm, entries, commit };
  }

  /** The voters as this machine last knew them, by its disk. */
  lastVoters(): { readonly voters: readonly NodeId[] } | undefined {
    const entry = this.disk.entries.findLast((one) => one.payload.kind === 'membership');
    return entry?.payload.kind === 'membership' ? entry.payload.membership : undefined;
  }

  /** The planted defect: every lease that was asked for. */
  remembered(ack: RenewAckMessage): readonly LeaseKey[] {
    return [...ack.acked, ...ack.refused];
  }

  snapshot(): Snapshot | undefined {
    const peer = this.peer;
    const index = peer?.state().applied;
    const term = index === undefined ? undefined : peer?.termAt(index);
    if (!peer || index === undefined || term === undefined) return undefined;
    const pairs = structuredClone([...dumpState(peer.state())]);
    const membership = peer.membershipAt(index);
    return flawedSnapshot(this.world, { index, term, membership, pairs: flawedPairs(this.world, this, pairs) });
  }
  installSnapshot(snapshot: Snapshot): void {
    this.world.invariants.snapshot(this.id, snapshot);
    this.#writer?.install(snapshot, () => {
      this.world.invariants.takenBack(this.id, snapshot.index + 1);
      this.world.tally.snapshots += 1;
      // The records of the core are its own, not the disk's.
      this.post({ type: 'snapshot-installed', ...snapshot, pairs: structuredClone(snapshot.pairs) });
      if (this.peer) this.world.jumped(this, this.peer.state().applied);
    });
  }
}

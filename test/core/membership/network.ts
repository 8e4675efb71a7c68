import { createMembership, type Membership } from '../../../src/core/membership/membership.ts';
import {
  DEFAULT_MEMBERSHIP_CONFIG,
  type MemberChange,
  type MemberStatus,
  type MembershipConfig,
  type MembershipEffect,
  type MembershipEvent,
} from '../../../src/core/membership/types.ts';
import { durationMs, type Incarnation, incarnation, monoMs, type NodeId, nodeId } from '../../../src/model/ids.ts';
import { createRng, type Rng } from '../../../src/model/random.ts';

// N membership cores in virtual time: streams with 0.2-2 ms, boot probes that may be lost, and faults of machines,
// agents and cables. Same seed, same run.

export interface NetworkOptions {
  readonly peers: number;
  readonly seed: string | number;
  /** Share of stream messages and of boot datagrams lost. */
  readonly loss?: number;
  readonly bootLoss?: number;
  readonly config?: MembershipConfig;
  /** Connect everybody before the start (default). */
  readonly connect?: boolean;
}

export interface Observed {
  readonly at: number;
  readonly observer: NodeId;
  readonly change: MemberChange;
}

interface Machine {
  readonly id: NodeId;
  readonly index: number;
  core: Membership;
  agentUp: boolean;
  bootUp: boolean;
  powered: boolean;
  incarnation: Incarnation;
  stalledUntil: number;
  inbox: MembershipEvent[];
  timer: number;
  timerAt: number;
  runs: number;
}

/** Closures by time, first in first out at equal times. */
class Queue {
  readonly #items: { at: number; order: number; run: () => void }[] = [];
  #order = 0;
  push(at: number, run: () => void): void {
    const items = this.#items;
    const item = { at, order: this.#order++, run };
    let i = items.push(item) - 1;
    while (i > 0) {
      const parent = (i - 1) >> 1;
      if (!this.#less(item, items[parent] as typeof item)) break;
      items[i] = items[parent] as typeof item;
      i = parent;
    }
    items[i] = item;
  }
  get nextAt(): number {
    return this.#items[0]?.at ?? Number.POSITIVE_INFINITY;
  }
  pop(): (() => void) | undefined {
    const items = this.#items;
    const top = items[0];
    const last = items.pop();
    if (top === undefined || last === undefined) return undefined;
    if (items.length > 0) {
      let i = 0;
      for (;;) {
        let child = 2 * i + 1;
        if (child >= items.length) break;
        const right = items[child + 1];
        if (right !== undefined && this.#less(right, items[child] as typeof last)) child++;
        if (!this.#less(items[child] as typeof last, last)) break;
        items[i] = items[child] as typeof last;
        i = child;
      }
      items[i] = last;
    }
    return top.run;
  }
  #less(a: { at: number; order: number }, b: { at: number; order: number }): boolean {
    return a.at < b.at || (a.at === b.at && a.order < b.order);
  }
}

export class Network {
  now = 0;
  readonly machines: Machine[] = [];
  readonly ids: NodeId[];
  readonly observed: Observed[] = [];
  readonly sent = {
    ping: 0,
    ack: 0,
    'ping-req': 0,
    'ping-req-ack': 0,
    updates: 0,
    'push-pull': 0,
    boot: 0,
    gossip: 0,
    dial: 0,
  };
  readonly trace: string[] = [];
  tracing = false;
  readonly #options: NetworkOptions;
  readonly #rng: Rng;
  readonly #queue = new Queue();
  readonly #links = new Set<string>();
  /** `a>b`: nothing sent by a reaches b. */
  readonly #blocked = new Set<string>();
  readonly #lastDelivery = new Map<string, number>();

  constructor(options: NetworkOptions) {
    this.#options = options;
    this.#rng = createRng(`network/${options.seed}`);
    this.ids = Array.from({ length: options.peers }, (_, i) => nodeId(`n${i}`));
    for (const [index, id] of this.ids.entries()) {
      this.machines.push({
        id,
        index,
        core: this.#newCore(id, incarnation(1)),
        agentUp: true,
        bootUp: true,
        powered: true,
        incarnation: incarnation(1),
        stalledUntil: 0,
        inbox: [],
        timer: 0,
        timerAt: -1,
        runs: 1,
      });
    }
    for (const m of this.machines) this.#step(m, { type: 'peers', peers: this.ids, voters: this.ids.slice(0, 5) });
    if (options.connect !== false)
      for (const a of this.machines)
        for (const b of this.machines) if (a.index < b.index && this.#wanted(a, b)) this.#connect(a, b);
  }

  #newCore(id: NodeId, own: Incarnation): Membership {
    const config = this.#options.config ?? DEFAULT_MEMBERSHIP_CONFIG;
    return createMembership({ self: id, incarnation: own, config, seed: `${this.#options.seed}` });
  }

  machine(id: NodeId): Machine {
    return this.machines.find((m) => m.id === id) as Machine;
  }
  at(i: number): Machine {
    return this.machines[i] as Machine;
  }
  status(observer: NodeId, subject: NodeId): MemberStatus | undefined {
    return this.machine(observer).core.view(subject)?.status;
  }

  run(ms: number): void {
    const end = this.now + ms;
    while (this.#queue.nextAt <= end) {
      this.now = this.#queue.nextAt;
      this.#queue.pop()?.();
    }
    this.now = end;
  }
  /** Runs until `done` holds (looked at after every event) or `ms` have passed; the time it took, or undefined. */
  until(done: () => boolean, ms: number): number | undefined {
    const start = this.now;
    while (this.#queue.nextAt <= start + ms) {
      this.now = this.#queue.nextAt;
      this.#queue.pop()?.();
      if (done()) return this.now - start;
    }
    this.now = start + ms;
    return undefined;
  }
  later(ms: number, run: () => void): void {
    this.#queue.push(this.now + ms, run);
  }

  // ---- faults ----

  /** Agent and boot killed; the machine's kernel closes and refuses. */
  kill(id: NodeId): void {
    const m = this.machine(id);
    m.bootUp = false;
    this.killAgent(id);
  }
  killAgent(id: NodeId): void {
    const m = this.machine(id);
    m.agentUp = false;
    m.timer++;
    m.inbox = [];
    for (const other of this.machines) {
      if (!this.#links.delete(this.#link(m, other))) continue;
      if (this.#reaches(m, other)) this.later(0.2 + this.#rng.next() * 8, () => this.#lost(other, m));
    }
  }
  killBoot(id: NodeId): void {
    this.machine(id).bootUp = false;
  }
  powerOff(id: NodeId): void {
    const m = this.machine(id);
    m.powered = m.agentUp = m.bootUp = false;
    m.timer++;
  }
  restart(id: NodeId): void {
    const m = this.machine(id);
    for (const other of this.machines) if (this.#links.delete(this.#link(m, other))) this.#lost(other, m);
    m.powered = m.bootUp = m.agentUp = true;
    m.runs++;
    m.incarnation = incarnation(m.incarnation + 1);
    m.core = this.#newCore(id, m.incarnation);
    m.stalledUntil = 0;
    m.inbox = [];
    this.#step(m, { type: 'peers', peers: this.ids, voters: this.ids.slice(0, 5) });
    for (const other of this.machines)
      if (other !== m && this.#wanted(m, other)) this.later(20 + this.#rng.next() * 50, () => this.#dial(m, other));
  }
  /** Groups cannot reach each other; connections stay open on both sides. */
  partition(...groups: readonly (readonly number[])[]): void {
    for (const g of groups) for (const h of groups) if (g !== h) for (const a of g) for (const b of h) this.block(a, b);
  }
  block(from: number, to: number): void {
    this.#blocked.add(`n${from}>n${to}`);
  }
  /** Cables back; what the redial loop of the transport does follows. */
  heal(): void {
    this.#blocked.clear();
    for (const a of this.machines)
      for (const b of this.machines)
        if (a.index < b.index && !this.#links.has(this.#link(a, b)))
          this.later(this.#rng.next() * 500, () => this.#dial(a, b));
  }
  /** TCP of both sides gives up what was cut. */
  dropCutLinks(): void {
    for (const a of this.machines)
      for (const b of this.machines) {
        if (a.index >= b.index || this.#reaches(a, b) || !this.#links.delete(this.#link(a, b))) continue;
        this.#lost(a, b);
        this.#lost(b, a);
      }
  }
  /** The agent does not run; what is sent to it waits in its sockets, its timers fire late. Boot answers on. */
  stall(id: NodeId, ms: number): void {
    const m = this.machine(id);
    if (!m.agentUp || m.stalledUntil > this.now) return;
    m.stalledUntil = this.now + ms;
    this.later(ms, () => {
      if (!m.agentUp) return;
      const inbox = m.inbox;
      m.inbox = [];
      for (const event of inbox) this.#step(m, event);
      const lateMs = Math.max(0, this.now - m.timerAt);
      if (m.timerAt >= 0 && m.timerAt <= this.now) this.#step(m, { type: 'tick', lateMs: durationMs(lateMs) });
    });
  }
  leave(id: NodeId): void {
    this.#deliver(this.machine(id), { type: 'leave' });
    this.later(50, () => this.kill(id));
  }
  tell(id: NodeId, event: MembershipEvent): void {
    this.#deliver(this.machine(id), event);
  }

  // ---- the world ----

  #link(a: Machine, b: Machine): string {
    return a.index < b.index ? `${a.index}-${b.index}` : `${b.index}-${a.index}`;
  }
  #wanted(a: Machine, b: Machine): boolean {
    if (this.ids.length <= (this.#options.config ?? DEFAULT_MEMBERSHIP_CONFIG).fullMeshPeers) return true;
    return a.core.monitored().includes(b.id) || b.core.monitored().includes(a.id);
  }
  #delay(): number {
    return 0.2 + this.#rng.next() * 1.8;
  }
  #reaches(a: Machine, b: Machine): boolean {
    return b.powered && a.powered && !this.#blocked.has(`${a.id}>${b.id}`);
  }
  #connect(a: Machine, b: Machine): void {
    this.#links.add(this.#link(a, b));
    this.#deliver(a, { type: 'connected', peer: b.id });
    this.#deliver(b, { type: 'connected', peer: a.id });
  }
  #lost(observer: Machine, peer: Machine): void {
    if (!this.#links.has(this.#link(observer, peer))) this.#deliver(observer, { type: 'disconnected', peer: peer.id });
  }
  #dial(a: Machine, b: Machine): void {
    if (this.#links.has(this.#link(a, b)) || !a.agentUp || !b.powered) return;
    if (!this.#reaches(a, b) || !this.#reaches(b, a)) return;
    if (!b.agentUp) {
      this.later(this.#delay() * 2, () => this.#deliver(a, { type: 'dial-failed', peer: b.id, refused: true }));
    } else if (b.stalledUntil > this.now) this.#queue.push(b.stalledUntil + 5, () => this.#dial(a, b));
    else {
      this.later(this.#delay() * 4, () => {
        if (a.agentUp && b.agentUp && !this.#links.has(this.#link(a, b))) this.#connect(a, b);
      });
    }
  }
  #hangUp(m: Machine, other: Machine): void {
    if (!this.#links.delete(this.#link(m, other))) return;
    this.later(0, () => this.#lost(m, other));
    if (this.#reaches(m, other)) this.later(this.#delay(), () => this.#lost(other, m));
    this.later(200 + this.#rng.next() * 300, () => this.#dial(m, other));
  }
  #deliver(m: Machine, event: MembershipEvent): void {
    if (!m.agentUp) return;
    if (m.stalledUntil > this.now) m.inbox.push(event);
    else this.#step(m, event);
  }
  #step(m: Machine, event: MembershipEvent): void {
    const effects = m.core.step(event, monoMs(this.now));
    if (this.tracing)
      this.trace.push(`${this.now.toFixed(3)} ${m.id} ${JSON.stringify(event)} -> ${JSON.stringify(effects)}`);
    for (const effect of effects) this.#perform(m, effect);
    const wake = m.core.nextWake();
    if (wake === m.timerAt) return;
    const timer = ++m.timer;
    m.timerAt = wake ?? -1;
    if (wake !== undefined) this.#arm(m, timer, wake);
  }
  #arm(m: Machine, timer: number, wake: number): void {
    const at = Math.max(this.now, wake) + this.#rng.next();
    this.#queue.push(at, () => {
      // A stalled agent's timer fires when it runs again (stall()).
      if (timer !== m.timer || !m.agentUp || m.stalledUntil > this.now) return;
      m.timerAt = -1;
      this.#step(m, { type: 'tick', lateMs: durationMs(this.now - wake) });
    });
  }
  #perform(m: Machine, effect: MembershipEffect): void {
    switch (effect.type) {
      case 'send': {
        this.sent[effect.message.type]++;
        const to = this.machine(effect.to);
        if (!this.#links.has(this.#link(m, to)) || this.#rng.next() < (this.#options.loss ?? 0)) return;
        if (!this.#reaches(m, to)) return;
        const key = `${m.id}>${to.id}`;
        const at = Math.max(this.now + this.#delay(), this.#lastDelivery.get(key) ?? 0);
        this.#lastDelivery.set(key, at);
        const runs = to.runs;
        this.#queue.push(at, () => {
          if (to.runs === runs && this.#links.has(this.#link(m, to)))
            this.#deliver(to, { type: 'message', from: m.id, message: effect.message });
        });
        return;
      }
      case 'gossip':
        this.sent.gossip++;
        for (const to of this.machines) {
          if (to === m || !this.#reaches(m, to)) continue;
          this.later(2 + this.#rng.next() * 8, () =>
            this.#deliver(to, { type: 'message', from: m.id, message: { type: 'updates', updates: effect.updates } }),
          );
        }
        return;
      case 'probe-boot': {
        this.sent.boot++;
        const to = this.machine(effect.peer);
        const lossy = this.#options.bootLoss ?? 0;
        if (!this.#reaches(m, to) || !this.#reaches(to, m) || this.#rng.next() < lossy || this.#rng.next() < lossy)
          return;
        this.later(this.#delay() + this.#delay(), () => {
          if (to.bootUp) this.#deliver(m, { type: 'boot-ack', peer: to.id, attempt: effect.attempt });
        });
        return;
      }
      case 'dial':
        this.sent.dial++;
        this.#dial(m, this.machine(effect.peer));
        return;
      case 'hang-up':
        this.#hangUp(m, this.machine(effect.peer));
        return;
      case 'changed':
        this.observed.push({ at: this.now, observer: m.id, change: effect.change });
        return;
      case 'incarnation':
        m.incarnation = effect.incarnation;
        return;
      case 'local-health':
        return;
    }
  }
}

import type { CopyFact } from '../../model/facts.ts';
import type { Generation } from '../../model/generation.ts';
import type { Incarnation, MonoMs, NodeId, TaskId, WallMs } from '../../model/ids.ts';
import { isExclusive } from '../../model/task-spec.ts';
import type { Orders } from '../caretaker/types.ts';
import { createLeaseHolder, type HolderEffect } from '../lease/holder.ts';
import { leaseText } from '../lease/keys.ts';
import type { LeaseKey, RenewAckMessage, RenewMessage } from '../lease/types.ts';
import { createReconcile } from '../reconcile/reconcile.ts';
import type { DesiredCopy, ReconcileEffect, ReconcileEvent } from '../reconcile/types.ts';
import type { ClusterState } from '../state/types.ts';
import { createProvisional, isSuperseded } from './provisional.ts';
import type { PeerConfig } from './types.ts';

// What this machine runs: its assignments out of the records, reconciled with what its runtimes report, and the leases that
// let its exclusive copies live.

export type WorkshopEffect =
  | { readonly type: 'runtime'; readonly effect: Extract<ReconcileEffect, { type: 'start' | 'stop' | 'check-health' }> }
  | { readonly type: 'renew'; readonly message: RenewMessage }
  | { readonly type: 'deadline'; readonly key: LeaseKey; readonly deadline: MonoMs | undefined }
  | { readonly type: 'facts' }
  | {
      readonly type: 'end';
      readonly key: LeaseKey;
      readonly outcome: 'finished' | 'failed';
      readonly exitCode: number | null;
      readonly error: string;
    };

export interface Workshop {
  recordsChanged(state: ClusterState, tasks: ReadonlySet<TaskId> | 'all', now: MonoMs, wall: WallMs): WorkshopEffect[];
  /** The records are known to be as new as every commit before the call. */
  setCurrent(state: ClusterState, now: MonoMs, wall: WallMs): WorkshopEffect[];
  current(): boolean;
  setLeader(leader: NodeId | null, now: MonoMs, wall: WallMs): WorkshopEffect[];
  runtimeEvent(event: ReconcileEvent, now: MonoMs, wall: WallMs): WorkshopEffect[];
  onAck(from: NodeId, message: RenewAckMessage, now: MonoMs, wall: WallMs): WorkshopEffect[];
  /** Boot reaped every process of these copies. */
  provenDead(keys: readonly LeaseKey[], now: MonoMs, wall: WallMs): WorkshopEffect[];
  /** The caretaker of a side without a majority wants these copies here, and those no longer. */
  orders(state: ClusterState, orders: Orders, now: MonoMs, wall: WallMs): WorkshopEffect[];
  /** No majority is in reach: what runs meanwhile may have lost when there is one again, and what it wrote is kept then. */
  setAlone(): void;
  endCommitted(task: TaskId, slot: number, generation: Generation, now: MonoMs, wall: WallMs): WorkshopEffect[];
  tick(now: MonoMs, wall: WallMs): WorkshopEffect[];
  nextWake(): MonoMs | undefined;
  facts(): CopyFact[];
}

/** Room between the renewal numbers of two lives of a peer (an answer to an earlier life must not fit this one). */
const SEQS_PER_INCARNATION = 2 ** 30;

export interface WorkshopOptions {
  readonly self: NodeId;
  readonly config: PeerConfig;
  readonly seed: string;
  readonly incarnation: Incarnation;
  /** Deadlines boot kept over a restart of the agent. */
  readonly adopted: readonly { readonly key: LeaseKey; readonly deadline: MonoMs }[];
}

export function createWorkshop(options: WorkshopOptions): Workshop {
  const { self } = options;
  const reconcile = createReconcile({}, options.seed);
  const holder = createLeaseHolder(options.config.lease, { firstSeq: options.incarnation * SEQS_PER_INCARNATION });
  let mine: ReadonlySet<TaskId> = new Set();
  let current = false;
  let wasCurrent = false;
  let adopted = options.adopted;
  /** Provisional copies this machine is to run, by slot: ordered, or found running after a restart of the agent. */
  const provisional = createProvisional(self);
  let ranAlone = false;
  let leaseKeys = '|';
  /** Reconciliation took a step whose lease keys were not looked at yet. */
  let stepped = false;
  let now = 0 as MonoMs;
  let wall = 0 as WallMs;
  let out: WorkshopEffect[] = [];

  function hold(effects: readonly HolderEffect[]): void {
    for (const effect of effects) {
      if (effect.type === 'send') out.push({ type: 'renew', message: effect.message });
      else {
        out.push({ type: 'deadline', key: effect.key, deadline: effect.deadline });
        run({ type: 'lease', key: effect.key, deadline: effect.deadline });
      }
    }
  }

  function run(event: ReconcileEvent): void {
    for (const effect of reconcile.step(event, now, wall)) {
      switch (effect.type) {
        case 'start':
        case 'stop':
        case 'check-health':
          out.push({ type: 'runtime', effect });
          break;
        case 'facts':
          out.push({ type: 'facts' });
          break;
        case 'end':
          out.push({
            type: 'end',
            key: effect.key,
            outcome: effect.outcome,
            exitCode: effect.exitCode,
            error: effect.error,
          });
          break;
        case 'released':
          hold(holder.released(effect.key, now));
          break;
      }
    }
    stepped = true;
  }

  /** What is to be renewed follows from all that a turn did, so it is asked once a turn, however many leases were answered. */
  function follow(): void {
    stepped = false;
    const keys = reconcile.leaseKeys();
    const ending = reconcile.endingKeys();
    if (keys.length === 0 && ending.length === 0 && leaseKeys === '|') return;
    const text = `${keys.map(leaseText).sort().join(' ')}|${ending.map(leaseText).sort().join(' ')}`;
    if (text === leaseKeys) return;
    leaseKeys = text;
    hold(holder.desired(keys, now, ending));
  }

  function desired(state: ClusterState): DesiredCopy[] {
    const copies: DesiredCopy[] = [];
    for (const { taskId, slot } of state.assignments.get(self)?.values() ?? []) {
      const task = state.tasks.get(taskId);
      const record = task?.slots.find((s) => s.slot === slot);
      if (!task || !record) continue;
      if (task.desired !== 'running' || record.state.kind !== 'assigned' || record.state.node !== self) continue;
      // What the records of an earlier life say may have moved on: until they were current once, an available copy is not
      // started from them (one that runs is left alone). Exclusive copies cannot start without a lease anyway.
      if (!wasCurrent && !isExclusive(task.spec)) continue;
      copies.push({
        taskId,
        slot,
        generation: record.generation,
        specVersion: task.specVersion,
        spec: task.spec,
        exclusive: isExclusive(task.spec),
        ...(record.state.adopted === undefined ? {} : { runsAs: record.state.adopted }),
      });
    }
    return copies;
  }

  /** Everything this machine is to run, and the copies on it that lost against another of their slot. */
  function wish(state: ClusterState): void {
    const committed = desired(state);
    const present = reconcile.present();
    const { copies, lost } = provisional.wish(state, present);
    mine = new Set([...(state.assignments.get(self)?.values() ?? []), ...copies].map((c) => c.taskId));
    if (ranAlone && current) {
      const kept = new Set([...committed, ...copies].map(leaseText));
      lost.push(...present.filter((c) => !kept.has(leaseText(c)) && isSuperseded(state, c)).map((c) => c.copyId));
      ranAlone = false;
    }
    run({ type: 'desired', copies: [...committed, ...copies], current, lost });
  }

  /** Every entry point: sets the time, does its work, returns what came of it. */
  const turn = (at: MonoMs, wallNow: WallMs, work: () => void): WorkshopEffect[] => {
    now = at;
    wall = wallNow;
    for (const a of adopted) hold(holder.adopt(a.key, a.deadline, now));
    adopted = [];
    work();
    while (stepped) follow();
    const effects = out;
    out = [];
    return effects;
  };

  return {
    recordsChanged: (state, tasks, at, w) =>
      turn(at, w, () => {
        const assigned = new Set([...(state.assignments.get(self)?.values() ?? [])].map((a) => a.taskId));
        const touched = tasks === 'all' || [...tasks].some((t) => mine.has(t) || assigned.has(t));
        if (touched) wish(state);
      }),
    setCurrent: (state, at, w) =>
      turn(at, w, () => {
        current = true;
        wasCurrent = true;
        wish(state);
      }),
    current: () => current,
    setLeader: (leader, at, w) =>
      turn(at, w, () => {
        if (leader === null) current = false;
        hold(holder.master(leader, now));
      }),
    runtimeEvent: (event, at, w) => turn(at, w, () => run(event)),
    onAck: (from, message, at, w) => turn(at, w, () => hold(holder.onAck(from, message, now))),
    provenDead: (keys, at, w) =>
      turn(at, w, () => {
        for (const key of keys) {
          const ids = reconcile.copyIds(key);
          for (const copyId of ids) run({ type: 'exited', copyId, exitCode: 137, error: 'killed: its lease ran out' });
          if (ids.length === 0) hold(holder.released(key, now));
        }
      }),
    orders: (state, orders, at, w) =>
      turn(at, w, () => {
        if (provisional.take(state, orders)) wish(state);
      }),
    setAlone: () => {
      ranAlone = true;
    },
    endCommitted: (taskId, slot, generation, at, w) =>
      turn(at, w, () => {
        for (const copyId of reconcile.copyIds({ taskId, slot, generation })) run({ type: 'end-committed', copyId });
      }),
    tick: (at, w) =>
      turn(at, w, () => {
        hold(holder.tick(now));
        run({ type: 'tick' });
      }),
    nextWake: () => {
      const wakes = [holder.nextWake(), reconcile.nextWake()].filter((at) => at !== undefined);
      return wakes.length === 0 ? undefined : (Math.min(...wakes) as MonoMs);
    },
    facts: () => reconcile.facts(),
  };
}

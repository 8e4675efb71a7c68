import type { CopyFact } from '../../model/facts.ts';
import { compareGeneration, type Generation } from '../../model/generation.ts';
import { type MonoMs, monoMs, type NodeId, type TaskId } from '../../model/ids.ts';
import type { SlotRecord, TaskRecord } from '../../model/records.ts';
import { createWakeQueue } from '../lease/wake-queue.ts';
import { hasLost } from '../state/state.ts';
import type { Candidate, Placement, PlacementRequest, Rejection } from '../scheduling/types.ts';
import { createAvoidance } from './avoidance.ts';
import type { MasterConfig } from './config.ts';
import { type Condition, conditionOf, createFleet } from './fleet.ts';
import type { MasterContext } from './types.ts';

/** Machines named in one waiting reason. */
const MAX_REJECTIONS = 32;

export type Place = (requests: readonly PlacementRequest[], candidates: readonly Candidate[]) => readonly Placement[];

/** A decision about a slot that was proposed and not seen applied. */
export interface Flight {
  readonly taskId: TaskId;
  readonly until: number;
  /** assign: done once the slot's generation reached this. close: done once it is no longer assigned. */
  readonly expect: Generation | undefined;
  /** Where it goes, for the reservations. */
  readonly node: NodeId | undefined;
  /** drop: done once the records say that this provisional copy has lost. */
  readonly dropped?: Generation;
}

/** What the master remembers within one term. Everything here can be lost: it is rebuilt from the records. */
export class Memory {
  readonly self: NodeId;
  readonly config: MasterConfig;
  readonly place: Place;
  readonly fleet = createFleet();
  readonly avoidance;
  /** `n` + node id, `t` + task id, `w`: anything. */
  readonly wakes = createWakeQueue();
  readonly dirtyTasks = new Set<TaskId>();
  readonly dirtyNodes = new Set<NodeId>();
  readonly dirtyFacts = new Set<NodeId>();
  readonly inFlight = new Map<string, Flight>();
  /** Slots of each task known to `fleet`, to let go of those that vanish. */
  readonly known = new Map<TaskId, readonly string[]>();
  /** Provisional copies by machine, from its facts. */
  readonly provisionals = new Map<NodeId, readonly CopyFact[]>();
  readonly nodeStates = new Map<NodeId, string>();
  /** Draining machine -> the one slot that is on its way elsewhere. */
  readonly drains = new Map<
    NodeId,
    { readonly text: string; readonly taskId: TaskId; readonly slot: number; readonly until: number }
  >();
  readonly waiting = new Map<TaskId, { reason: string; rejections: readonly Rejection[]; slots: Set<number> }>();
  masterSince: MonoMs = monoMs(0);
  /** After a recovery: when the last lease that the epoch before may have granted has run out. */
  barredUntil: MonoMs = monoMs(0);
  wasBarred = false;
  accounted = 0;
  /** Room was freed, or a machine changed for the better: what waits may be tried again. */
  roomFreed = false;
  retriedAt = Number.NEGATIVE_INFINITY;
  leadershipDirty = false;
  unfinished = false;

  constructor(config: MasterConfig, self: NodeId, place: Place) {
    this.config = config;
    this.self = self;
    this.place = place;
    this.avoidance = createAvoidance(config);
  }

  clear(): void {
    const {
      fleet,
      avoidance,
      wakes,
      dirtyTasks,
      dirtyNodes,
      dirtyFacts,
      inFlight,
      known,
      nodeStates,
      drains,
      waiting,
      provisionals,
    } = this;
    const all = [
      provisionals,
      fleet,
      avoidance,
      wakes,
      dirtyTasks,
      dirtyNodes,
      dirtyFacts,
      inFlight,
      known,
      nodeStates,
      drains,
    ];
    for (const part of [...all, waiting]) part.clear();
    this.roomFreed = false;
    this.unfinished = false;
    this.wasBarred = false;
    this.accounted = 0;
    this.barredUntil = monoMs(0);
  }

  condition(ctx: MasterContext, node: NodeId, now: MonoMs): Condition {
    return conditionOf(node, this.self, ctx, this.masterSince, now, this.config.agentDownMs);
  }

  /** The slot stands on `node` (undefined: nowhere) from now on. */
  hold(text: string, node: NodeId | undefined, task: TaskRecord | undefined, placed: boolean): void {
    if (this.fleet.hold(text, node, task, placed)) this.roomFreed = true;
  }

  /** All tasks with a slot on this machine are to be decided upon. */
  touchSlotsOn(node: NodeId): void {
    for (const text of this.fleet.slotsOn(node)) this.dirtyTasks.add(text.slice(0, text.lastIndexOf('.')) as TaskId);
  }

  takeOff(
    task: TaskRecord,
    text: string,
    expect: Generation | undefined,
    node: NodeId | undefined,
    now: MonoMs,
    dropped?: Generation,
  ): void {
    const until = now + this.config.proposalTimeoutMs;
    const drop = dropped === undefined ? {} : { dropped };
    this.inFlight.set(text, { taskId: task.id, until, expect, node, ...drop });
    this.wakes.setEarlier(`t${task.id}`, until);
  }

  /** Keeps, for whoever asks, why a slot has no machine. */
  wait(task: TaskRecord, slot: SlotRecord, reason: string, rejections: readonly Rejection[]): void {
    const entry = this.waiting.get(task.id) ?? { reason, rejections, slots: new Set<number>() };
    entry.reason = reason;
    if (rejections.length > 0) entry.rejections = rejections.slice(0, MAX_REJECTIONS);
    entry.slots.add(slot.slot);
    this.waiting.set(task.id, entry);
  }
}

export const nameOf = (ctx: MasterContext, id: NodeId): string => ctx.state.peers.get(id)?.name || id;

export function landed(flight: Flight, slot: SlotRecord): boolean {
  if (flight.dropped !== undefined) return hasLost(slot, flight.dropped);
  if (flight.expect !== undefined) return compareGeneration(slot.generation, flight.expect) >= 0;
  return slot.state.kind !== 'assigned';
}

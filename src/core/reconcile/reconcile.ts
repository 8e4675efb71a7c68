import type { CopyFact } from '../../model/facts.ts';
import { sameGeneration } from '../../model/generation.ts';
import { assertNever, type MonoMs, monoMs, type WallMs } from '../../model/ids.ts';
import { leaseText, slotText } from '../lease/keys.ts';
import type { LeaseKey } from '../lease/types.ts';
import { DEFAULT_RECONCILE_CONFIG, type ReconcileConfig } from './config.ts';
import { asNamed, type Copy, createCopy, factOf, mayRun } from './copy.ts';
import { formatCopyId } from './copy-id.ts';
import {
  adopt,
  checked,
  clearKept,
  ended,
  healthTimer,
  reportEnd,
  sendStop,
  settle,
  started,
  stopDone,
  stopRetryAt,
  waitFor,
  waitsFor,
} from './decide.ts';
import { Room, type RuntimeKind } from './room.ts';
import type { CopyId, DesiredCopy, ObservedCopy, PresentCopy, ReconcileEffect, ReconcileEvent } from './types.ts';

// Level-triggered reconciliation of one machine, after Kubernetes' kubelet and swarmkit's agent: desired and observed state
// apart, one small state machine per copy (copy.ts), every decision from the state as it is (decide.ts). What is ours:
// generations, leases and the rule that no slot ever has two copies on one machine. See README.md beside this file.

export interface Reconcile {
  /** One event in, effects out in order. `now`: the clock that counts suspend; `wall`: for facts people read. */
  step(event: ReconcileEvent, now: MonoMs, wall: WallMs): ReconcileEffect[];
  /** When a `tick` is due. */
  nextWake(): MonoMs | undefined;
  /** One fact per (task, slot, generation). */
  facts(): CopyFact[];
  /** What the lease holder is to renew: exclusive copies wanted or still there, and not given up. */
  leaseKeys(): LeaseKey[];
  /** Those of them that are only being stopped: a refused renewal need not cut their grace short (holder.desired). */
  endingKeys(): LeaseKey[];
  copyIds(key: LeaseKey): CopyId[];
  present(): PresentCopy[];
}

export function createReconcile(config: Partial<ReconcileConfig>, seed: string): Reconcile {
  const room = new Room({ ...DEFAULT_RECONCILE_CONFIG, ...config }, seed);
  let desiredOnce = false;

  const step = (event: ReconcileEvent, now: MonoMs, wall: WallMs): ReconcileEffect[] => {
    room.now = now;
    room.wall = wall;
    // What ran out before this event did so first, however late the driver's timer is.
    for (const name of room.timers.due(now)) onTimer(room, name);
    if (event.type === 'desired') {
      onDesired(room, event, !desiredOnce);
      desiredOnce = true;
    } else onEvent(room, event);
    settle(room);
    if (room.factsDirty) room.effects.push({ type: 'facts', copies: facts(room) });
    room.factsDirty = false;
    const { effects } = room;
    room.effects = [];
    return effects;
  };

  return {
    step,
    nextWake: () => {
      const at = room.timers.next();
      return at === undefined ? undefined : monoMs(at);
    },
    facts: () => facts(room),
    leaseKeys: () => leaseKeys(room, false),
    endingKeys: () => leaseKeys(room, true),
    copyIds: (key) =>
      [...(room.bySlot.get(slotText(key)) ?? [])].filter((c) => c.keyText === leaseText(key)).map((c) => c.id),
    present: () =>
      [...room.copies.values()]
        .filter((c) => c.present)
        .map((c) => ({ copyId: c.id, ...c.key, wanted: c.desired !== undefined, lost: c.lost })),
  };
}

function onEvent(room: Room, event: Exclude<ReconcileEvent, { type: 'desired' }>): void {
  switch (event.type) {
    case 'tick':
      return;
    case 'listing':
      onListing(room, event.runtime, event.copies);
      return;
    case 'runtime-down':
      onRuntimeDown(room, event.runtime, event.reason);
      return;
    case 'started':
      onStarted(room, event.copy);
      return;
    case 'lease':
      onLease(room, event.key, event.deadline);
      return;
    case 'start-failed':
    case 'exited':
    case 'stopped':
    case 'stop-failed':
    case 'health':
    case 'end-committed': {
      const c = room.copies.get(event.copyId);
      if (c !== undefined) onCopyEvent(room, c, event);
      return;
    }
    default:
      assertNever(event, 'event');
  }
}

type CopyEvent = Extract<
  ReconcileEvent,
  { type: 'start-failed' | 'exited' | 'stopped' | 'stop-failed' | 'health' | 'end-committed' }
>;

function onCopyEvent(room: Room, c: Copy, event: CopyEvent): void {
  switch (event.type) {
    case 'start-failed':
      onStartFailed(room, c, event.error, event.retryable);
      return;
    case 'exited': {
      const exit = { exitCode: event.exitCode, error: event.error };
      // A copy may end before its start is answered: remembered until then.
      if (c.phase === 'starting') c.exit = exit;
      else if (c.phase === 'running' || c.phase === 'lost') ended(room, c, exit);
      return;
    }
    case 'stopped':
    case 'stop-failed':
      onStopAnswered(room, c, event.type === 'stopped' ? '' : event.error);
      return;
    case 'health':
      if (c.healthOut) checked(room, c, event.ok, event.output);
      return;
    case 'end-committed':
      if (c.phase !== 'ended' || c.endCommitted) return;
      c.endCommitted = true;
      room.timers.delete(`e${c.id}`);
      room.timers.set(`k${c.id}`, room.now + room.config.keepEndedMs);
      room.kept.add(c);
      room.touch(c);
      for (const old of room.kept) {
        if (room.kept.size <= room.config.keepEnded) break;
        clearKept(room, old);
      }
      return;
    default:
      assertNever(event, 'event');
  }
}

/** `error` empty: stopped. The copy counts as stopped once every stop and the start are answered. */
function onStopAnswered(room: Room, c: Copy, error: string): void {
  c.stopsOut = Math.max(0, c.stopsOut - 1);
  if (c.phase !== 'stopping') return;
  if (error === '') c.stopSeen = true;
  else {
    c.error = `cannot be stopped: ${error}`;
    c.stopTries++;
    room.factsDirty = true;
  }
  if (c.stopsOut > 0) {
    // A driver may answer two stops at once; the second answer is not waited for longer than this.
    if (c.stopSeen) room.timers.set(`p${c.id}`, room.now + room.config.stopAnswerMs);
  } else stopsAnswered(room, c);
}

function stopsAnswered(room: Room, c: Copy): void {
  if (!c.stopSeen) room.timers.set(`p${c.id}`, stopRetryAt(room, c));
  else if (!c.startOut) stopDone(room, c);
}

function onDesired(room: Room, event: Extract<ReconcileEvent, { type: 'desired' }>, first: boolean): void {
  const { copies, current } = event;
  const wanted = new Set<CopyId>();
  for (const d of copies) {
    const id = formatCopyId(asNamed(d));
    wanted.add(id);
    const c = room.copies.get(id) ?? room.add(createCopy(asNamed(d), d.spec.runtime, room.nextOrder()));
    if (c.desired === undefined) room.touchSlot(c);
    c.desired = d;
    c.lost = false;
    if (!sameGeneration(c.key.generation, d.generation)) promote(room, c, d);
    c.spec = d.spec;
    c.exclusive = d.exclusive;
    if (first && d.exclusive && !room.leases.has(c.keyText)) room.inherited.add(c.keyText);
  }
  for (const c of room.copies.values()) {
    if (c.desired === undefined || wanted.has(c.id)) continue;
    c.desired = undefined;
    room.touchSlot(c);
  }
  for (const id of event.lost ?? []) {
    const c = room.copies.get(id);
    if (c === undefined || c.lost || c.desired !== undefined) continue;
    c.lost = true;
    room.touchSlot(c);
  }
  if (current && !room.current) for (const c of room.copies.values()) room.touch(c);
  room.current = current;
  if (first) for (const kind of room.runtimes.keys()) if (room.runtimeUp(kind)) disinherit(room, kind);
}

/** A provisional copy was adopted: it goes on as it is, under the generation that was committed for it. */
function promote(room: Room, c: Copy, d: DesiredCopy): void {
  c.key = { taskId: d.taskId, slot: d.slot, generation: d.generation };
  c.keyText = leaseText(c.key);
  c.endCommitted = false;
  room.touchSlot(c);
  if (c.phase === 'ended') reportEnd(room, c);
}

/**
 * An exclusive generation that an earlier life of this agent held and of which nothing is left may have been released by
 * that life. It is released for good, so that the word of a life always holds: the master assigns the slot anew.
 */
function disinherit(room: Room, kind: RuntimeKind): void {
  if (room.inherited.size === 0) return;
  const here = [...room.copies.values()].filter((c) => c.runtime === kind);
  // Any spec version of the generation counts as something left of it.
  for (const c of here) if (c.present) room.inherited.delete(c.keyText);
  for (const c of here) {
    if (!room.inherited.delete(c.keyText)) continue;
    room.release(c.key, c.keyText);
    room.touch(c);
  }
}

function onListing(room: Room, kind: RuntimeKind, copies: readonly ObservedCopy[]): void {
  room.runtimes.set(kind, { state: 'up', reason: '' });
  room.listed.add(kind);
  const seen = new Set<CopyId>();
  for (const o of copies) {
    const id = formatCopyId(o);
    seen.add(id);
    const known = room.copies.get(id);
    const c = known ?? room.add(createCopy(o, kind, room.nextOrder()));
    const news = !c.present;
    c.present = true;
    note(c, o);
    if (o.running) {
      if (c.phase !== 'ended') adopt(room, c);
    } else if (c.phase === 'running' || c.phase === 'lost' || (news && c.phase === 'waiting' && o.startedAt !== null)) {
      ended(room, c, { exitCode: o.exitCode, error: '' });
    }
  }
  for (const c of room.copies.values()) {
    if (c.runtime !== kind) continue;
    room.touch(c);
    if (seen.has(c.id)) continue;
    if (c.phase === 'running' || c.phase === 'lost') {
      c.present = false;
      ended(room, c, { exitCode: null, error: `it is gone from the ${kind} runtime` });
    } else if (c.phase === 'stopping') {
      if (c.stopsOut === 0 && !c.startOut) stopDone(room, c);
    } else if (c.phase !== 'starting') c.present = false;
  }
  disinherit(room, kind);
}

function note(c: Copy, o: ObservedCopy): void {
  c.handle = o.handle;
  c.ports = o.ports;
  c.startedAt = o.startedAt ?? c.startedAt;
}

function onRuntimeDown(room: Room, kind: RuntimeKind, reason: string): void {
  room.runtimes.set(kind, { state: 'down', reason });
  for (const c of room.copies.values()) {
    if (c.runtime !== kind) continue;
    if (c.phase === 'running') {
      c.phase = 'lost';
      c.error = `the ${kind} runtime does not answer: ${reason}`;
      c.health = 'none';
      c.healthOut = false;
      room.timers.delete(`h${c.id}`);
    }
    room.touch(c);
  }
}

function startAnswered(room: Room, c: Copy): void {
  if (!c.startOut) return;
  c.startOut = false;
  room.startsOut--;
}

function onStarted(room: Room, o: ObservedCopy): void {
  const c = room.copies.get(formatCopyId(o)) ?? room.add(createCopy(o, o.runtime, room.nextOrder()));
  startAnswered(room, c);
  c.present = true;
  note(c, o);
  c.startedAt ??= room.wall;
  if (c.phase === 'stopping') {
    // The stop that is out may have come before there was anything to stop.
    sendStop(room, c, false, 'its start was answered after the stop');
  } else if (c.phase === 'starting') {
    const early = c.exit;
    started(room, c);
    if (early !== undefined || !o.running) ended(room, c, early ?? { exitCode: o.exitCode, error: '' });
  } else if (o.running && c.phase !== 'ended') adopt(room, c);
}

function onStartFailed(room: Room, c: Copy, error: string, retryable: boolean): void {
  startAnswered(room, c);
  if (c.phase === 'stopping') {
    if (c.stopsOut === 0) stopDone(room, c);
    return;
  }
  if (c.phase !== 'starting') return;
  c.error = error;
  c.exit = undefined;
  if (retryable) {
    const { startRetryMs, startRetryCapMs } = room.config;
    waitFor(room, c, 'backoff', Math.min(startRetryCapMs, startRetryMs * 2 ** Math.min(c.startTries, 20)));
    c.startTries++;
  } else {
    // Told apart from a run that failed by having no start time: the master tries another machine.
    c.startedAt = null;
    waitFor(room, c, 'blocked', room.config.blockedRetryMs);
  }
  room.touchSlot(c);
}

function onLease(room: Room, key: LeaseKey, deadline: MonoMs | undefined): void {
  const keyText = leaseText(key);
  if (deadline === undefined || room.released.has(keyText)) {
    room.leases.delete(keyText);
    room.timers.delete(`l${keyText}`);
  } else {
    room.leases.set(keyText, { deadline, slotText: slotText(key) });
    room.timers.set(`l${keyText}`, deadline - room.config.stopAllowanceMs);
  }
  for (const c of room.bySlot.get(slotText(key)) ?? []) if (c.keyText === keyText) room.dirty.add(c);
}

function onTimer(room: Room, name: string): void {
  const rest = name.slice(1);
  if (name.startsWith('l')) {
    const lease = room.leases.get(rest);
    room.leases.delete(rest);
    for (const c of room.bySlot.get(lease?.slotText ?? '') ?? []) room.dirty.add(c);
    return;
  }
  if (name.startsWith('r')) {
    const key = room.released.get(rest);
    for (const c of room.bySlot.get(key === undefined ? '' : slotText(key)) ?? []) room.dirty.add(c);
    return;
  }
  const c = room.copies.get(rest);
  if (c === undefined) return;
  if (name.startsWith('h')) healthTimer(room, c);
  else if (name.startsWith('e')) reportEnd(room, c);
  else if (name.startsWith('k')) clearKept(room, c);
  else if (c.phase === 'stopping') {
    if (c.stopsOut === 0) sendStop(room, c, false, 'again, after a failed stop');
    else {
      c.stopsOut = 0;
      stopsAnswered(room, c);
    }
  } else if (c.phase === 'backoff' || c.phase === 'blocked') {
    c.phase = 'waiting';
    room.touch(c);
  }
}

/** Of two copies under one key (an old spec version stopping, the new one waiting) the one that may run is the fact. */
function facts(room: Room): CopyFact[] {
  const best = new Map<string, Copy>();
  const weight = (c: Copy): number => (mayRun(c) ? 2 : 0) + (c.desired !== undefined ? 1 : 0);
  for (const c of room.copies.values()) {
    const other = best.get(c.keyText);
    if (other === undefined || weight(c) > weight(other)) best.set(c.keyText, c);
  }
  return [...best.values()].map((c) => factOf(c, c.desired === undefined ? '' : waitsFor(room, c)));
}

function leaseKeys(room: Room, endingOnly: boolean): LeaseKey[] {
  const keys = new Map<string, LeaseKey>();
  const wanted = new Set<string>();
  for (const c of room.copies.values()) {
    if (c.exclusive !== true || room.released.has(c.keyText) || room.inherited.has(c.keyText)) continue;
    if (c.desired !== undefined && c.phase !== 'ended') wanted.add(c.keyText);
    if (mayRun(c) || wanted.has(c.keyText)) keys.set(c.keyText, c.key);
  }
  return [...keys].filter(([text]) => !endingOnly || !wanted.has(text)).map(([, key]) => key);
}

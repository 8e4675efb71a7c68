import { assertNever, monoMs } from '../../model/ids.ts';
import { afterExit, asNamed, backoffMs, type Copy, type Exit, mayRun } from './copy.ts';
import type { Room } from './room.ts';

// What to do about one copy, from what is wanted and what is known of it. Level-triggered: deciding twice does nothing
// more the second time.

/** How copies are stopped of which only the labels are known. */
const UNKNOWN_STOP = { signal: 'SIGTERM', graceMs: 10_000 };

/** Decides upon every touched copy, then starts what may start. */
export function settle(room: Room): void {
  for (const c of room.dirty) {
    room.dirty.delete(c);
    decide(room, c);
    if (c.phase === 'waiting' && c.desired !== undefined && room.copies.get(c.id) === c) room.waiting.add(c);
    else room.waiting.delete(c);
  }
  startWaiting(room);
}

function decide(room: Room, c: Copy): void {
  const unwanted = c.desired === undefined && (room.current || c.lost || room.superseded(c));
  const fenceless = c.exclusive === true && !room.leaseValid(c);
  switch (c.phase) {
    case 'starting':
    case 'running':
    case 'lost':
      if (fenceless) stop(room, c, false, 'no valid lease');
      else if (unwanted)
        stop(
          room,
          c,
          c.exclusive !== undefined,
          c.lost
            ? 'another copy of its slot is the one to run'
            : c.exclusive === undefined
              ? 'unknown to the record'
              : 'no longer assigned here',
        );
      else if (c.phase === 'running') watchHealth(room, c);
      return;
    case 'stopping':
      if (fenceless && c.graceful) sendStop(room, c, false, 'no valid lease');
      return;
    case 'exited':
      if (c.desired !== undefined && fenceless && c.exit?.exitCode !== 0) killedForLease(room, c);
      else if (c.desired !== undefined) onExit(room, c, c.exit ?? { exitCode: null, error: '' });
      else if (unwanted) clear(room, c);
      return;
    case 'ended':
      if (c.desired === undefined && c.exclusive === true && room.current) room.release(c.key, c.keyText);
      if (unwanted && (!c.endCommitted || room.superseded(c))) clear(room, c);
      return;
    case 'waiting':
    case 'backoff':
    case 'blocked':
      if (c.desired === undefined && (unwanted || !c.present)) clear(room, c);
      else if (c.desired !== undefined && room.released.has(c.keyText)) repeatRelease(room, c);
      return;
    default:
      assertNever(c.phase, 'phase');
  }
}

/** Boot (or the guard) killed it when its lease ran out: no end of the run, so the restart policy is not asked. */
function killedForLease(room: Room, c: Copy): void {
  c.phase = 'waiting';
  c.startedMono = undefined;
  c.health = 'none';
  c.error = '';
  room.touchSlot(c);
}

/** The record still names a copy that was released here (it lags, or an earlier life of this agent lost it). */
function repeatRelease(room: Room, c: Copy): void {
  const name = `r${c.keyText}`;
  if (room.timers.get(name) !== undefined) return;
  room.timers.set(name, room.now + room.config.releaseRepeatMs);
  room.effects.push({ type: 'released', key: c.key });
}

/** Removes what is left of a copy that does not run. */
function clear(room: Room, c: Copy): void {
  // Before the first listing nobody knows what is there.
  if (!room.listed.has(c.runtime)) return;
  if (c.present || c.startOut) stop(room, c, false, 'left over');
  else gone(room, c);
}

function gone(room: Room, c: Copy): void {
  room.remove(c);
  if (c.exclusive === false) return;
  for (const s of room.bySlot.get(c.slotText) ?? []) if (s.keyText === c.keyText) return;
  room.release(c.key, c.keyText);
}

export function stop(room: Room, c: Copy, graceful: boolean, reason: string): void {
  c.phase = 'stopping';
  c.stopTries = 0;
  room.timers.delete(`h${c.id}`);
  sendStop(room, c, graceful, reason);
}

export function sendStop(room: Room, c: Copy, graceful: boolean, reason: string): void {
  c.stopsOut++;
  c.stopSeen = false;
  c.graceful = graceful;
  room.timers.delete(`p${c.id}`);
  room.factsDirty = true;
  const stopSignal = c.spec?.stopSignal ?? UNKNOWN_STOP.signal;
  const graceMs = c.spec?.stopGraceMs ?? UNKNOWN_STOP.graceMs;
  room.effects.push({
    type: 'stop',
    copyId: c.id,
    runtime: c.runtime,
    graceful,
    stopSignal,
    graceMs,
    reason,
    keep: c.lost,
  });
}

/** No process of the copy is left, and no start is out. */
export function stopDone(room: Room, c: Copy): void {
  const exit = c.exitOnceStopped;
  c.exitOnceStopped = undefined;
  c.stopsOut = 0;
  c.stopSeen = false;
  room.timers.delete(`p${c.id}`);
  c.present = false;
  c.handle = '';
  c.ports = [];
  c.health = 'none';
  c.error = '';
  c.startedMono = undefined;
  if (c.desired === undefined && exit === undefined) {
    c.phase = 'waiting';
    gone(room, c);
    return;
  }
  c.phase = exit === undefined ? 'waiting' : 'exited';
  if (exit !== undefined) c.exit = exit;
  room.touchSlot(c);
}

/** The run is over: the restart policy says what follows. */
function onExit(room: Room, c: Copy, exit: Exit): void {
  const spec = c.desired?.spec ?? c.spec;
  if (spec === undefined) return;
  c.exit = exit;
  c.health = 'none';
  room.timers.delete(`h${c.id}`);
  room.factsDirty = true;
  const next = afterExit(spec, c.restarts, exit);
  if (!next.restart) {
    c.phase = 'ended';
    c.outcome = next.outcome;
    c.error = next.error;
    c.startedAt ??= room.wall;
    reportEnd(room, c);
    room.touchSlot(c);
    return;
  }
  if (c.startedMono !== undefined && room.now - c.startedMono >= room.config.steadyAfterMs) c.streak = 0;
  const pause = backoffMs(spec.restart.backoffMs, spec.restart.backoffCapMs, c.streak);
  c.streak++;
  c.restarts++;
  c.error = exit.error || (exit.exitCode === 0 ? '' : `exited with code ${exit.exitCode ?? 'unknown'}; restarts`);
  waitFor(room, c, 'backoff', pause);
  room.touchSlot(c);
}

export function waitFor(room: Room, c: Copy, phase: 'backoff' | 'blocked', pauseMs: number): void {
  c.phase = phase;
  c.startedMono = undefined;
  // Up to a tenth more, so that copies that fell together do not rise together.
  room.timers.set(`p${c.id}`, Math.ceil(room.now + pauseMs * (1 + room.rng.next() / 10)));
  room.factsDirty = true;
}

export function reportEnd(room: Room, c: Copy): void {
  if (c.phase !== 'ended' || c.endCommitted) return;
  const exitCode = c.exit?.exitCode ?? null;
  room.effects.push({ type: 'end', copyId: c.id, key: c.key, outcome: c.outcome, exitCode, error: c.error });
  room.timers.set(`e${c.id}`, room.now + backoffMs(room.config.endRetryMs, room.config.endRetryCapMs, c.endTries));
  c.endTries++;
}

/** Why a wanted copy does not start yet; '' when it may. */
export function waitsFor(room: Room, c: Copy): string {
  const runtime = room.runtimes.get(c.runtime);
  if (runtime === undefined) return `waits for the first listing of the ${c.runtime} runtime`;
  if (runtime.state === 'down') return `the ${c.runtime} runtime does not answer: ${runtime.reason}`;
  if (room.released.has(c.keyText))
    return 'given up here under this generation; waits for the master to assign it anew';
  if (room.slotBusy(c)) return 'waits until an older copy of this slot has stopped';
  if (c.exclusive === true && !room.leaseValid(c)) return 'waits for its lease from the master';
  return '';
}

function startWaiting(room: Room): void {
  if (room.startsOut >= room.config.startsAtOnce) return;
  const ready: Copy[] = [];
  for (const c of room.waiting) if (waitsFor(room, c) === '') ready.push(c);
  ready.sort((a, b) => (b.desired?.spec.priority ?? 0) - (a.desired?.spec.priority ?? 0) || a.order - b.order);
  for (const c of ready) {
    if (room.startsOut >= room.config.startsAtOnce) return;
    if (c.desired === undefined || room.slotBusy(c)) continue;
    c.phase = 'starting';
    c.startOut = true;
    c.exit = undefined;
    room.waiting.delete(c);
    c.present = true;
    room.startsOut++;
    room.factsDirty = true;
    room.effects.push({ type: 'start', copyId: c.id, copy: asNamed(c.desired) });
  }
}

export function started(room: Room, c: Copy): void {
  c.phase = 'running';
  c.present = true;
  c.exit = undefined;
  c.startTries = 0;
  c.error = '';
  c.startedMono = room.now;
  c.healthFailures = 0;
  c.healthOut = false;
  c.health = 'none';
  room.timers.delete(`p${c.id}`);
  room.touch(c);
}

function watchHealth(room: Room, c: Copy): void {
  const health = c.desired?.spec.healthCheck;
  if (health === undefined || c.health !== 'none') return;
  c.health = 'starting';
  room.timers.set(`h${c.id}`, room.now + health.intervalMs);
}

/** The answer of a health check, or `ok: false` for one that never answered. */
export function checked(room: Room, c: Copy, ok: boolean, output: string): void {
  const health = c.desired?.spec.healthCheck;
  c.healthOut = false;
  if (health === undefined || c.phase !== 'running') return;
  room.timers.set(`h${c.id}`, room.now + health.intervalMs);
  const before = c.health;
  if (ok) {
    c.healthFailures = 0;
    c.health = 'healthy';
  } else {
    const starting =
      c.health === 'starting' && c.startedMono !== undefined && room.now - c.startedMono < health.startPeriodMs;
    if (!starting) c.healthFailures++;
    if (c.healthFailures >= health.retries) {
      const error = `unhealthy: ${c.healthFailures} checks in a row failed${output ? ` (${output.slice(0, 200)})` : ''}`;
      c.health = 'unhealthy';
      c.exitOnceStopped = { exitCode: null, error };
      stop(room, c, true, error);
      return;
    }
  }
  if (before !== c.health) room.factsDirty = true;
}

/** A health check is due, or the one that is out is overdue. */
export function healthTimer(room: Room, c: Copy): void {
  const health = c.desired?.spec.healthCheck;
  if (health === undefined || c.phase !== 'running' || c.desired === undefined) return;
  if (c.healthOut) {
    checked(room, c, false, `no answer in ${health.timeoutMs} ms`);
    return;
  }
  c.healthOut = true;
  room.timers.set(`h${c.id}`, room.now + health.timeoutMs + 1000);
  room.effects.push({ type: 'check-health', copyId: c.id, copy: c.desired });
}

/** A listing or a late answer shows the copy running. */
export function adopt(room: Room, c: Copy): void {
  if (mayRun(c) && c.phase !== 'lost') return;
  const since = c.phase === 'lost' ? c.startedMono : undefined;
  started(room, c);
  if (since !== undefined) c.startedMono = since;
}

/** The copy was seen not to run any more. */
export function ended(room: Room, c: Copy, exit: Exit): void {
  c.exit = exit;
  c.phase = 'exited';
  room.timers.delete(`h${c.id}`);
  room.touchSlot(c);
}

export function clearKept(room: Room, c: Copy): void {
  room.kept.delete(c);
  if (c.phase === 'ended') clear(room, c);
}

export const stopRetryAt = (room: Room, c: Copy) =>
  monoMs(room.now + backoffMs(room.config.stopRetryMs, room.config.stopRetryCapMs, c.stopTries));

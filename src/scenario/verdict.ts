import { durationMs, type ExpectationDocument } from './schema.ts';
import { percentile } from './statistics.ts';
import type { CopyRun, FaultAction, TaskStatus } from './types.ts';

/** A fault as it was carried out. */
export interface DoneFault {
  readonly atMs: number;
  readonly do: FaultAction;
  readonly nodes: readonly number[];
}

/** Everything the verdict rests on. */
export interface Evidence {
  /** Slots that must run: accepted tasks with their replicas. */
  readonly accepted: ReadonlyMap<string, number>;
  readonly refused: readonly string[];
  readonly runs: readonly CopyRun[];
  readonly faults: readonly DoneFault[];
  /** From the last fault; null = not within the time allowed. */
  readonly settledMs: number | null;
  readonly before: readonly TaskStatus[];
  readonly after: readonly TaskStatus[];
  readonly peersAlive: number;
}

export interface Recovery {
  readonly task: string;
  readonly slot: number;
  readonly from: number;
  readonly to: number;
  readonly elapsedMs: number;
}

export interface Finding {
  readonly what: string;
  readonly expected: string;
  readonly happened: string;
  readonly held: boolean;
  /** True: shown, and the verdict does not depend on it. */
  readonly shownOnly?: boolean;
}

/** Limits of time can be judged, or only shown: a machine short of CPU is slower, and not less safe. */
export type TimesMode = 'judged' | 'shown';

export interface Verdict {
  readonly findings: readonly Finding[];
  readonly recoveries: readonly Recovery[];
  readonly lost: readonly string[];
  readonly doubled: readonly string[];
  readonly moved: readonly string[];
  readonly held: boolean;
}

const slotKey = (task: string, slot: number): string => `${task}[${slot}]`;
const startOf = (run: CopyRun): number => run.spans[0]?.fromMs ?? 0;
const lastOf = (run: CopyRun): number => run.spans.at(-1)?.toMs ?? 0;

/** Faults that may end a copy or take it out of reach. */
const DISRUPTIVE: ReadonlySet<FaultAction> = new Set([
  'kill',
  'kill-agent',
  'cut',
  'partition',
  'engine-kill',
  'engine-start',
  'freeze',
]);
/**
 * Time without a witnessed copy, for every copy that a fault ended or that was replaced after it. From the fault itself
 * for machines lost or out of reach; from the copy's own end where the fault hit only the agent or the engine.
 */
export function recoveriesOf(runs: readonly CopyRun[], faults: readonly DoneFault[]): readonly Recovery[] {
  const found = new Map<string, Recovery>();
  for (const fault of faults.filter((one) => DISRUPTIVE.has(one.do) && one.do !== 'engine-start')) {
    const hit = runs.filter(
      (run) =>
        fault.nodes.includes(run.node) &&
        startOf(run) <= fault.atMs &&
        (run.endedAtMs === null || run.endedAtMs >= fault.atMs - GRACE_MS),
    );
    for (const old of hit) {
      const next = runs
        .filter((run) => run.task === old.task && run.slot === old.slot && run !== old && startOf(run) > fault.atMs)
        .sort((a, b) => startOf(a) - startOf(b))[0];
      if (!next) continue;
      const own = fault.do === 'engine-kill' || fault.do === 'kill-agent';
      const gone = own ? Math.max(fault.atMs, old.endedAtMs ?? startOf(next)) : fault.atMs;
      const key = `${old.node} ${old.copy} ${next.node} ${next.copy}`;
      const recovery = {
        task: old.task,
        slot: old.slot,
        from: old.node,
        to: next.node,
        elapsedMs: Math.max(0, startOf(next) - gone),
      };
      if (!found.has(key)) found.set(key, recovery);
    }
  }
  return [...found.values()];
}

/** A heartbeat lies up to this far behind the end of a copy that beats ten times a second. */
const GRACE_MS = 1_000;

/** Slots of accepted tasks without a living copy. */
export function lostSlots(accepted: ReadonlyMap<string, number>, runs: readonly CopyRun[]): readonly string[] {
  const living = new Set(runs.filter((run) => run.endedAtMs === null).map((run) => slotKey(run.task, run.slot)));
  return [...accepted].flatMap(([task, replicas]) =>
    Array.from({ length: replicas }, (_, slot) => slotKey(task, slot)).filter((key) => !living.has(key)),
  );
}

/** Slots of which two copies were witnessed alive at the same instant. */
export function doubledSlots(runs: readonly CopyRun[]): readonly string[] {
  const bySlot = new Map<string, CopyRun[]>();
  for (const run of runs) {
    const key = slotKey(run.task, run.slot);
    bySlot.set(key, [...(bySlot.get(key) ?? []), run]);
  }
  const overlaps = (a: CopyRun, b: CopyRun): boolean =>
    a.spans.some((one) => b.spans.some((other) => Math.max(one.fromMs, other.fromMs) < Math.min(one.toMs, other.toMs)));
  return [...bySlot]
    .filter(([, copies]) => copies.some((a, index) => copies.slice(index + 1).some((b) => overlaps(a, b))))
    .map(([key]) => key);
}

/** Everything accepted runs, each slot once. */
export function isSettled(accepted: ReadonlyMap<string, number>, runs: readonly CopyRun[]): boolean {
  const living = runs.filter((run) => run.endedAtMs === null);
  const slots = living.map((run) => slotKey(run.task, run.slot));
  return lostSlots(accepted, runs).length === 0 && new Set(slots).size === slots.length;
}

/** Copies that ended though nothing had been done to their machine since they started. */
export function movedHealthy(runs: readonly CopyRun[], faults: readonly DoneFault[]): readonly string[] {
  return runs
    .filter((run) => run.endedAtMs !== null)
    .filter(
      (run) =>
        !faults.some(
          (fault) =>
            DISRUPTIVE.has(fault.do) &&
            fault.nodes.includes(run.node) &&
            fault.atMs >= startOf(run) - GRACE_MS &&
            fault.atMs <= (run.endedAtMs ?? 0) + GRACE_MS,
        ),
    )
    .map((run) => `${slotKey(run.task, run.slot)} on node ${run.node} at ${Math.round(lastOf(run))}`);
}

/** Slots whose node, generation or start differ from before. */
export function changedSlots(before: readonly TaskStatus[], after: readonly TaskStatus[]): readonly string[] {
  return before.flatMap((task) => {
    const now = after.find((one) => one.name === task.name);
    return task.slots
      .filter((slot) => {
        const same = now?.slots.find((one) => one.slot === slot.slot);
        return same?.node !== slot.node || same.generation !== slot.generation || same.startedAtMs !== slot.startedAtMs;
      })
      .map((slot) => slotKey(task.name, slot.slot));
  });
}

/** Compares what was expected with what happened. */
export function judge(expected: ExpectationDocument, evidence: Evidence, times: TimesMode = 'judged'): Verdict {
  const recoveries = recoveriesOf(evidence.runs, evidence.faults);
  const lost = lostSlots(evidence.accepted, evidence.runs);
  const doubled = doubledSlots(evidence.runs);
  const moved = movedHealthy(evidence.runs, evidence.faults);
  const changed = changedSlots(evidence.before, evidence.after);
  const elapsed = recoveries.map((one) => one.elapsedMs);
  const findings: Finding[] = [];
  const names = (list: readonly string[]): string =>
    list.length === 0 ? '0' : `${list.length}: ${list.slice(0, 5).join(', ')}${list.length > 5 ? ', ...' : ''}`;
  const count = (what: string, limit: number | undefined, list: readonly string[]): void => {
    if (limit !== undefined)
      findings.push({
        what,
        expected: limit === 0 ? '0' : `<= ${limit}`,
        happened: names(list),
        held: list.length <= limit,
      });
  };
  const time = (what: string, limit: string | number | undefined, value: number): void => {
    if (limit === undefined) return;
    const limitMs = durationMs(limit);
    findings.push({
      what,
      expected: `<= ${limitMs} ms`,
      happened: Number.isNaN(value) ? 'nothing recovered' : `${Math.round(value)} ms`,
      held: value <= limitMs,
      // What never happened is not slow: it is judged in any case.
      shownOnly: times === 'shown' && Number.isFinite(value),
    });
  };
  count('tasks lost', expected.tasksLost, lost);
  count('tasks doubled', expected.tasksDoubled, doubled);
  count('tasks refused', expected.tasksRefused, evidence.refused);
  if (expected.recoveries !== undefined)
    findings.push({
      what: 'recoveries seen',
      expected: `>= ${expected.recoveries}`,
      happened: String(elapsed.length),
      held: elapsed.length >= expected.recoveries,
    });
  time('recovery p50', expected.recoveryP50Ms, percentile(elapsed, 50));
  time('recovery p99', expected.recoveryP99Ms, percentile(elapsed, 99));
  time('recovery max', expected.recoveryMaxMs, percentile(elapsed, 100));
  time('settled after the last fault', expected.settledWithinMs, evidence.settledMs ?? Number.POSITIVE_INFINITY);
  if (expected.noHealthyMoved) count('copies moved off healthy machines', 0, moved);
  if (expected.unchanged) count('slots changed (node, generation or start)', 0, changed);
  if (expected.peersAlive !== undefined)
    findings.push({
      what: 'peers alive at the end',
      expected: String(expected.peersAlive),
      happened: String(evidence.peersAlive),
      held: evidence.peersAlive === expected.peersAlive,
    });
  return {
    findings,
    recoveries,
    lost,
    doubled,
    moved,
    held: findings.every((one) => one.held || one.shownOnly === true),
  };
}

import { FILTERS, type Filter, hostPortKey, type Machine, type Prepared, prepare, prepareMachine } from './filters.ts';
import type { Candidate, Placement, PlacementRequest, Rejection } from './types.ts';

// Which machine runs a slot: filters, then scores, as in swarmkit's scheduler (moby/swarmkit, manager/scheduler), with its
// Explain: a slot that waits says why, machine by machine. README.md beside this file has the order of the scores.

export { parseConstraint } from '../../model/constraint.ts';
export { hostPortKey } from './filters.ts';

export interface PlaceOptions {
  /** `present` (default): only machines that list the image. `prefer`: the others too, after them (they can fetch it). */
  readonly image?: 'present' | 'prefer';
}

/**
 * Places each slot on one of the machines, highest priority first and otherwise in the order given; the answers are in the
 * order of decision. Changes only `used` and `copiesOf` of the candidates, so that each slot sees those before it. Pure.
 */
export function place(
  requests: readonly PlacementRequest[],
  candidates: readonly Candidate[],
  options: PlaceOptions = {},
): Placement[] {
  const filters = options.image === 'prefer' ? FILTERS.filter((f) => f.name !== 'image') : FILTERS;
  const machines = candidates.map(prepareMachine);
  const byPriority = [...requests].sort((a, b) => b.spec.priority - a.spec.priority);
  return byPriority.map((request) => placeOne(prepare(request), machines, filters));
}

function placeOne(prepared: Prepared, machines: readonly Machine[], filters: readonly Filter[]): Placement {
  let best: { readonly machine: Machine; readonly score: Score } | undefined;
  let fits = 0;
  for (const machine of machines) {
    if (!filters.every((f) => f.passes(prepared, machine))) continue;
    fits += 1;
    const score = scoreOf(prepared, machine);
    if (best === undefined || compareScore(score, best.score) < 0) best = { machine, score };
  }
  const { request } = prepared;
  if (best === undefined) return explain(prepared, machines, filters);
  const { candidate } = best.machine;
  const evidence = [`${fits} of ${machines.length} machines fit`, `${candidate.name}: ${describeScore(best.score)}`];
  reserve(candidate, request);
  return { ok: true, request, node: candidate.id, reason: reasonFor(fits, best.score), evidence };
}

function reserve(candidate: Candidate, { spec, taskId }: PlacementRequest): void {
  const { used } = candidate;
  used.cpus += spec.cpus;
  used.memoryBytes += spec.memoryBytes;
  used.gpus += spec.gpus;
  used.copies += 1;
  for (const port of spec.ports) if (port.host !== 0) used.hostPorts.add(hostPortKey(port));
  candidate.copiesOf.set(taskId, (candidate.copiesOf.get(taskId) ?? 0) + 1);
}

// ---- scores ----------------------------------------------------------------------------------------------------------

interface Score {
  readonly ofTask: number;
  readonly imageMissing: number;
  readonly share: number;
  readonly load: number;
  readonly copies: number;
  readonly id: string;
}

/** Cores a copy without a reservation counts for, so that a batch of them does not all go to one idle machine. */
const NOMINAL_CORES = 0.1;
/** Shares nearer than 5 % and loads nearer than 25 % count as equal: load is a moment's noise. */
const SHARE_STEP = 0.05;
const LOAD_STEP = 0.25;

function scoreOf({ request, spec, image }: Prepared, { candidate: c, images }: Machine): Score {
  const share = Math.max(
    ratio(c.used.cpus, c.cpus),
    ratio(c.used.memoryBytes, c.memoryBytes),
    ratio(c.used.copies * NOMINAL_CORES, c.cpus),
  );
  return {
    ofTask: c.copiesOf.get(request.taskId) ?? 0,
    imageMissing: spec.runtime === 'docker' && !images.has(image) ? 1 : 0,
    share: Math.floor(share / SHARE_STEP + 1e-9),
    load: Math.floor(c.load / LOAD_STEP),
    copies: c.used.copies,
    id: c.id,
  };
}

const ratio = (used: number, total: number): number =>
  total > 0 ? used / total : used > 0 ? Number.MAX_SAFE_INTEGER : 0;

function compareScore(a: Score, b: Score): number {
  return (
    a.ofTask - b.ofTask ||
    a.imageMissing - b.imageMissing ||
    a.share - b.share ||
    a.load - b.load ||
    a.copies - b.copies ||
    (a.id < b.id ? -1 : a.id > b.id ? 1 : 0)
  );
}

const percent = (steps: number, step: number): string => `${Math.round(steps * step * 100)} %`;

function describeScore(s: Score): string {
  const image = s.imageMissing === 0 ? 'image present' : 'image missing';
  return `${s.ofTask} copies of this task, ${image}, about ${percent(s.share, SHARE_STEP)} reserved, about ${percent(s.load, LOAD_STEP)} load, ${s.copies} copies`;
}

function reasonFor(fits: number, score: Score): string {
  if (fits === 1) return 'the only machine that fits';
  return score.ofTask > 0 ? `least crowded of ${fits} machines that fit` : `best of ${fits} machines that fit`;
}

// ---- explanation -----------------------------------------------------------------------------------------------------

function explain(prepared: Prepared, machines: readonly Machine[], filters: readonly Filter[]): Placement {
  const rejections: Rejection[] = [];
  const counts = new Map<Filter, number>();
  for (const machine of machines) {
    const filter = filters.find((f) => !f.passes(prepared, machine));
    if (filter === undefined) continue;
    counts.set(filter, (counts.get(filter) ?? 0) + 1);
    rejections.push({
      node: machine.candidate.id,
      filter: filter.name,
      reason: `${machine.candidate.name}: ${filter.reason(prepared, machine)}`,
    });
  }
  return { ok: false, request: prepared.request, reason: summarize(prepared, counts, machines.length), rejections };
}

/** '3 of 5 machines lack memory (2 GiB wanted), 2 do not match node.labels.zone==eu'. */
function summarize(prepared: Prepared, counts: ReadonlyMap<Filter, number>, machines: number): string {
  if (machines === 0) return 'no machine is available';
  const parts = [...counts].sort(([, a], [, b]) => b - a);
  return parts
    .map(([filter, n], i) => {
      const who =
        n === machines
          ? n === 1
            ? 'the only machine'
            : `all ${n} machines`
          : i === 0
            ? `${n} of ${machines} machines`
            : String(n);
      return `${who} ${filter.summary(prepared, n === 1)}`;
    })
    .join(', ');
}

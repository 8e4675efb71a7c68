import type { CopyFact } from '../../model/facts.ts';
import { type Generation, sameBase } from '../../model/generation.ts';
import type { MonoMs, NodeId } from '../../model/ids.ts';
import type { ProvisionalKey } from '../../model/peer-messages.ts';
import type { SlotRecord, TaskRecord } from '../../model/records.ts';
import { isExclusive } from '../../model/task-spec.ts';
import { slotText } from '../lease/keys.ts';
import { type Condition, conditionOf, createFleet } from '../master/fleet.ts';
import { hasEnded, isLive, longestRunning } from '../master/provisional.ts';
import { place } from '../scheduling/scheduling.ts';
import type { Candidate, PlacementRequest } from '../scheduling/types.ts';
import { hasLost } from '../state/state.ts';
import {
  type CaretakerConfig,
  type CaretakerContext,
  ORDERS_PER_MACHINE,
  type Orders,
  type ProvisionalOrder,
} from './types.ts';

// What this side lacks: every available slot of the records is to have one copy among the machines in reach. Level-triggered and
// rebuilt whole, since a side without a majority is rare and short-lived; the facts of its machines are its only memory.

/** A reason travels with every order. */
const REASON_CHARS = 256;

interface Ordered {
  readonly order: ProvisionalOrder;
  readonly node: NodeId;
  readonly at: MonoMs;
}

interface Lacking {
  readonly task: TaskRecord;
  readonly slot: SlotRecord;
  readonly text: string;
  readonly why: string;
  readonly about: NodeId | null;
  readonly avoid: ReadonlyMap<NodeId, string>;
  readonly n: number;
}

/** A copy of a slot on a machine in reach. */
export interface SideCopy {
  readonly node: NodeId;
  readonly fact: CopyFact;
}

export interface Plan {
  /** `since`: when this side began to choose a caretaker; a machine not heard of by then may still report. */
  make(
    ctx: CaretakerContext,
    since: MonoMs,
    now: MonoMs,
  ): {
    readonly changed: ReadonlySet<NodeId>;
    readonly decided: readonly {
      readonly order: ProvisionalOrder;
      readonly node: NodeId;
      readonly evidence: readonly string[];
    }[];
    /** When time alone makes it worth looking again. */
    readonly wakeAt: number | undefined;
  };
  orders(): ReadonlyMap<NodeId, Orders>;
  waiting(): ReadonlyMap<string, string>;
  clear(): void;
}

/** Its machine cannot run it at all. */
const cannot = (c: CopyFact): boolean => c.state === 'failed' && c.startedAt === null;

export function createPlan(self: NodeId, config: CaretakerConfig): Plan {
  const ordered = new Map<string, Ordered>();
  let drops = new Map<NodeId, ProvisionalKey[]>();
  let waiting = new Map<string, string>();
  let sent = new Map<NodeId, string>();

  /** Copies of available slots by slot, on machines in reach; and, of any machine, the highest number given so far. */
  function survey(ctx: CaretakerContext, condition: (id: NodeId) => Condition) {
    const copies = new Map<string, SideCopy[]>();
    const numbers = new Map<string, number>();
    for (const [node, facts] of ctx.facts) {
      const inReach = condition(node).kind === 'ok';
      for (const fact of facts.copies) {
        const text = slotText(fact);
        const slot = ctx.state.tasks.get(fact.taskId)?.slots[fact.slot];
        if (slot === undefined || !sameBase(slot.generation, fact.generation)) continue;
        const n = fact.generation.provisional?.n ?? 0;
        numbers.set(text, Math.max(numbers.get(text) ?? 0, n));
        if (inReach) copies.set(text, [...(copies.get(text) ?? []), { node, fact }]);
      }
    }
    return { copies, numbers };
  }

  const nameOf = (ctx: CaretakerContext, id: NodeId): string => ctx.state.peers.get(id)?.name ?? id;

  const drop = (copy: SideCopy): void => {
    const { taskId, slot, generation } = copy.fact;
    const list = drops.get(copy.node) ?? [];
    if (list.length < ORDERS_PER_MACHINE) list.push({ taskId, slot, generation });
    drops.set(copy.node, list);
  };

  /** Keeps one copy of the slot; the others that are provisional stop. */
  function keepOne(slot: SlotRecord, text: string, live: readonly SideCopy[]): SideCopy {
    const committed = live.find((c) => c.fact.generation.provisional === undefined);
    const best = longestRunning(live) as SideCopy;
    const kept = committed !== undefined && committed.fact.state === 'running' ? committed : best;
    const serves = kept.fact.state === 'running';
    for (const copy of live) {
      if (copy === kept || copy.fact.generation.provisional === undefined) continue;
      // Until the one that stays is at work, nothing that may be is taken away.
      if (serves) drop(copy);
    }
    const order = ordered.get(text);
    if (kept.fact.generation.provisional === undefined) ordered.delete(text);
    else if (order === undefined || order.node !== kept.node || !sameText(order.order.generation, kept.fact.generation))
      ordered.set(text, {
        order: {
          taskId: kept.fact.taskId,
          slot: slot.slot,
          generation: kept.fact.generation,
          reason: order?.order.reason ?? 'it runs here already',
        },
        node: kept.node,
        at: 0 as MonoMs,
      });
    return kept;
  }

  function lackOf(
    ctx: CaretakerContext,
    task: TaskRecord,
    slot: SlotRecord,
    condition: (id: NodeId) => Condition,
    until: (at: number) => void,
  ): { readonly why: string; readonly about: NodeId | null } | { readonly waits: string } {
    const { state } = slot;
    if (state.kind !== 'assigned') return { why: 'it has no machine on this side', about: null };
    const there = condition(state.node);
    const name = nameOf(ctx, state.node);
    if (there.kind === 'unsure') {
      if (there.until !== undefined) until(there.until);
      return { waits: `${name} may still have it` };
    }
    if (there.kind === 'ok') return { why: `${name} does not run it, and no master can tell it to`, about: state.node };
    if (task.spec.onNodeLoss === 'wait') return { waits: `waits for ${name} (onNodeLoss: wait)` };
    return { why: `${name} ${there.why}`, about: state.node };
  }

  function make(ctx: CaretakerContext, since: MonoMs, now: MonoMs): ReturnType<Plan['make']> {
    let wakeAt: number | undefined;
    const until = (at: number): void => {
      if (at > now && (wakeAt === undefined || at < wakeAt)) wakeAt = at;
    };
    const known = new Map<NodeId, Condition>();
    const condition = (id: NodeId): Condition => {
      const c = known.get(id) ?? conditionOf(id, self, ctx, since, now, config.agentDownMs);
      known.set(id, c);
      return c;
    };
    drops = new Map();
    waiting = new Map();
    const { copies, numbers } = survey(ctx, condition);
    const fleet = createFleet();
    const lacking: Lacking[] = [];
    const seen = new Set<string>();
    for (const task of ctx.state.tasks.values()) {
      if (task.desired !== 'running') continue;
      for (const slot of task.slots) {
        const text = slotText({ taskId: task.id, slot: slot.slot });
        if (isExclusive(task.spec)) {
          if (slot.state.kind === 'assigned') fleet.hold(text, slot.state.node, task, false);
          continue;
        }
        if (slot.state.kind === 'finished' || slot.state.kind === 'failed') continue;
        seen.add(text);
        const here = (copies.get(text) ?? []).filter(
          (c) => c.fact.generation.provisional === undefined || !hasLost(slot, c.fact.generation),
        );
        const live = here.filter((c) => isLive(c.fact));
        if (live.length > 0) {
          fleet.hold(text, keepOne(slot, text, live).node, task, false);
          continue;
        }
        // Its run ended on this side: whether that is the end of it, the records will say.
        if (here.some((c) => hasEnded(c.fact))) continue;
        const order = ordered.get(text);
        const refusedBy = new Map(
          here.filter((c) => cannot(c.fact)).map((c) => [c.node, `could not run it: ${c.fact.error}`] as const),
        );
        if (
          order !== undefined &&
          sameBase(order.order.generation, slot.generation) &&
          condition(order.node).kind === 'ok' &&
          !refusedBy.has(order.node) &&
          now - order.at < config.orderTimeoutMs
        ) {
          until(order.at + config.orderTimeoutMs);
          fleet.hold(text, order.node, task, false);
          continue;
        }
        const lack = lackOf(ctx, task, slot, condition, until);
        if ('waits' in lack) {
          waiting.set(text, lack.waits);
          continue;
        }
        const before = Math.max(
          numbers.get(text) ?? 0,
          slot.dropped?.provisional?.n ?? 0,
          order?.order.generation.provisional?.n ?? 0,
        );
        lacking.push({ task, slot, text, ...lack, avoid: refusedBy, n: before + 1 });
      }
    }
    for (const text of ordered.keys()) if (!seen.has(text)) ordered.delete(text);
    const decided = placeLacking(ctx, lacking, condition, fleet, now);
    if (waiting.size > 0) until(now + config.ordersEveryMs);
    return { changed: changedMachines(), decided, wakeAt };
  }

  function placeLacking(
    ctx: CaretakerContext,
    lacking: readonly Lacking[],
    condition: (id: NodeId) => Condition,
    fleet: ReturnType<typeof createFleet>,
    now: MonoMs,
  ) {
    const decided: { order: ProvisionalOrder; node: NodeId; evidence: readonly string[] }[] = [];
    if (lacking.length === 0) return decided;
    const candidates: Candidate[] = [];
    for (const id of ctx.state.peers.keys()) {
      const candidate = condition(id).kind === 'ok' ? fleet.candidate(ctx, id) : undefined;
      if (candidate !== undefined) candidates.push(candidate);
    }
    const requests = lacking.map(
      (l): PlacementRequest => ({ taskId: l.task.id, slot: l.slot.slot, spec: l.task.spec, avoid: l.avoid }),
    );
    const found = new Map(place(requests, candidates).map((p) => [slotText(p.request as never), p]));
    for (const l of lacking) {
      const placed = found.get(l.text);
      ordered.delete(l.text);
      if (!placed?.ok) {
        waiting.set(l.text, placed?.reason ?? 'no machine is available');
        continue;
      }
      const generation: Generation = {
        epoch: l.slot.generation.epoch,
        g: l.slot.generation.g,
        provisional: { caretaker: self, n: l.n },
      };
      const reason = `${l.why}; no majority in reach; ${placed.reason}`.slice(0, REASON_CHARS);
      const order: ProvisionalOrder = { taskId: l.task.id, slot: l.slot.slot, generation, reason };
      ordered.set(l.text, { order, node: placed.node, at: now });
      const evidence = [...(l.about === null ? [] : ctx.evidenceOf(l.about)), ...placed.evidence];
      decided.push({ order, node: placed.node, evidence });
    }
    return decided;
  }

  function ordersNow(): Map<NodeId, Orders> {
    const starts = new Map<NodeId, ProvisionalOrder[]>();
    for (const { order, node } of ordered.values()) {
      const list = starts.get(node) ?? [];
      if (list.length < ORDERS_PER_MACHINE) list.push(order);
      starts.set(node, list);
    }
    const nodes = new Set([...starts.keys(), ...drops.keys()]);
    return new Map([...nodes].map((id) => [id, { starts: starts.get(id) ?? [], drops: drops.get(id) ?? [] }] as const));
  }

  /** Machines whose orders differ from those of the last plan. */
  function changedMachines(): Set<NodeId> {
    const now = new Map([...ordersNow()].map(([id, orders]) => [id, JSON.stringify(orders)]));
    const changed = new Set([...now].filter(([id, text]) => sent.get(id) !== text).map(([id]) => id));
    sent = now;
    return changed;
  }

  return {
    make,
    orders: ordersNow,
    waiting: () => waiting,
    clear: () => {
      ordered.clear();
      drops.clear();
      waiting.clear();
      sent = new Map();
    },
  };
}

const sameText = (a: Generation, b: Generation): boolean =>
  sameBase(a, b) && a.provisional?.n === b.provisional?.n && a.provisional?.caretaker === b.provisional?.caretaker;

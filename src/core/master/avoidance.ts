import { type Generation, sameGeneration } from '../../model/generation.ts';
import type { NodeId } from '../../model/ids.ts';
import type { MasterConfig } from './config.ts';

/** Machines that could not run a slot, with growing pauses before each is tried again. At most one entry per slot and machine. */
export interface Avoidance {
  /** Counts once per generation, however often the facts repeat it. */
  add(slot: string, node: NodeId, generation: Generation, reason: string, now: number): void;
  of(slot: string, now: number): ReadonlyMap<NodeId, string>;
  /** When the next machine may be tried again. */
  nextOf(slot: string, now: number): number | undefined;
  forget(slot: string): void;
  clear(): void;
}

interface Entry {
  readonly reason: string;
  readonly until: number;
  readonly pauseMs: number;
  readonly generation: Generation;
}

const NONE: ReadonlyMap<NodeId, string> = new Map();

export function createAvoidance(config: MasterConfig): Avoidance {
  const slots = new Map<string, Map<NodeId, Entry>>();
  return {
    add(slot, node, generation, reason, now) {
      const nodes = slots.get(slot) ?? new Map<NodeId, Entry>();
      const old = nodes.get(node);
      if (old !== undefined && sameGeneration(old.generation, generation)) return;
      const pauseMs = Math.min(config.avoidCapMs, old === undefined ? config.avoidMs : old.pauseMs * 2);
      nodes.set(node, { reason: `could not run it: ${reason}`, until: now + pauseMs, pauseMs, generation });
      slots.set(slot, nodes);
    },
    of(slot, now) {
      const nodes = slots.get(slot);
      if (nodes === undefined) return NONE;
      const out = new Map<NodeId, string>();
      for (const [node, e] of nodes) if (now < e.until) out.set(node, e.reason);
      return out;
    },
    nextOf(slot, now) {
      let next: number | undefined;
      for (const e of slots.get(slot)?.values() ?? [])
        if (now < e.until && (next === undefined || e.until < next)) next = e.until;
      return next;
    },
    forget: (slot) => {
      slots.delete(slot);
    },
    clear: () => slots.clear(),
  };
}

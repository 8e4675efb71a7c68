import type { NodeFacts } from '../../model/facts.ts';
import { type MonoMs, monoMs, type NodeId } from '../../model/ids.ts';
import type { TaskRecord } from '../../model/records.ts';
import { hostPortKey } from '../scheduling/scheduling.ts';
import type { Candidate } from '../scheduling/types.ts';
import type { MasterContext } from './types.ts';

// The machines as the master sees them: whether each is there, and what stands reserved on it. Reservations follow the
// records (and the master's own proposals in flight) slot by slot, so that no placement has to read all tasks.

export type Condition =
  | { readonly kind: 'ok' }
  /** Suspected, its agent down for less than agentDownMs, or not heard of yet: nothing is decided. */
  | { readonly kind: 'unsure'; readonly until: MonoMs | undefined }
  | {
      readonly kind: 'lost';
      readonly why: string /** Struck from the allow-list: it cannot come back. */;
      readonly removed: boolean;
    };

export function conditionOf(
  node: NodeId,
  self: NodeId,
  ctx: Pick<MasterContext, 'state' | 'members'>,
  masterSince: MonoMs,
  now: MonoMs,
  agentDownMs: number,
): Condition {
  const peer = ctx.state.peers.get(node);
  if (peer === undefined) return { kind: 'lost', why: 'was removed from the cluster', removed: true };
  if (node === self) return { kind: 'ok' };
  const member = ctx.members.get(node);
  const until = monoMs((member?.since ?? masterSince) + agentDownMs);
  switch (member?.status) {
    case 'alive':
      return { kind: 'ok' };
    case 'suspect':
      return { kind: 'unsure', until: undefined };
    case 'dead':
      return { kind: 'lost', why: 'is dead', removed: false };
    case 'left':
      return { kind: 'lost', why: 'has left', removed: false };
    case 'agent-down':
    case undefined: {
      if (now < until) return { kind: 'unsure', until };
      const why =
        member === undefined ? 'was never heard of by this master' : `has had no agent for ${agentDownMs / 1000} s`;
      return { kind: 'lost', why, removed: false };
    }
  }
}

interface Holding {
  readonly node: NodeId;
  readonly task: TaskRecord;
}

interface Usage {
  readonly holdings: Set<string>;
  used: Candidate['used'];
  copiesOf: Map<string, number>;
  /** Something was taken away: recomputed from `holdings` when next needed. */
  stale: boolean;
}

const emptyUsed = (): Candidate['used'] => ({
  cpus: 0,
  memoryBytes: 0,
  gpus: 0,
  copies: 0,
  hostPorts: new Set<string>(),
});

function reserve(usage: Usage, task: TaskRecord): void {
  const { spec } = task;
  usage.used.cpus += spec.cpus;
  usage.used.memoryBytes += spec.memoryBytes;
  usage.used.gpus += spec.gpus;
  usage.used.copies += 1;
  for (const p of spec.ports) if (p.host !== 0) usage.used.hostPorts.add(hostPortKey(p));
  usage.copiesOf.set(task.id, (usage.copiesOf.get(task.id) ?? 0) + 1);
}

export interface Fleet {
  /** Slots (as slotText) that stand on this machine by record or by a proposal in flight. */
  slotsOn(node: NodeId): Iterable<string>;
  holderOf(slot: string): NodeId | undefined;
  /** `placed`: place() has counted it in already. Returns true when room was freed somewhere. */
  hold(slot: string, node: NodeId | undefined, task: TaskRecord | undefined, placed: boolean): boolean;
  /** place() counted something here that will not be proposed. */
  spoil(node: NodeId): void;
  /** Whether anything placement looks at (load apart) differs from the last call. */
  headChanged(facts: NodeFacts): boolean;
  forget(node: NodeId): void;
  candidate(ctx: Pick<MasterContext, 'state' | 'facts'>, node: NodeId): Candidate | undefined;
  clear(): void;
}

export function createFleet(): Fleet {
  const usages = new Map<NodeId, Usage>();
  const holdings = new Map<string, Holding>();
  const heads = new Map<NodeId, string>();

  const usageOf = (node: NodeId): Usage => {
    let usage = usages.get(node);
    if (usage === undefined) {
      usage = { holdings: new Set(), used: emptyUsed(), copiesOf: new Map(), stale: false };
      usages.set(node, usage);
    }
    return usage;
  };
  const fresh = (node: NodeId): Usage => {
    const usage = usageOf(node);
    if (!usage.stale) return usage;
    usage.stale = false;
    usage.used = emptyUsed();
    usage.copiesOf = new Map();
    for (const slot of usage.holdings) {
      const holding = holdings.get(slot);
      if (holding !== undefined) reserve(usage, holding.task);
    }
    return usage;
  };

  return {
    slotsOn: (node) => usages.get(node)?.holdings ?? [],
    holderOf: (slot) => holdings.get(slot)?.node,
    hold(slot, node, task, placed) {
      const old = holdings.get(slot);
      if (old !== undefined && task !== undefined && old.node === node) {
        // A new spec version may need more or less; the records in `holdings` are what a recount reads.
        holdings.set(slot, { node, task });
        if (old.task.spec !== task.spec || placed) usageOf(node).stale = true;
        return old.task.spec !== task.spec;
      }
      if (old !== undefined) {
        const usage = usageOf(old.node);
        usage.holdings.delete(slot);
        usage.stale = true;
        holdings.delete(slot);
      }
      if (node !== undefined && task !== undefined) {
        const usage = usageOf(node);
        usage.holdings.add(slot);
        holdings.set(slot, { node, task });
        if (!placed && !usage.stale) reserve(usage, task);
      }
      return old !== undefined;
    },
    spoil: (node) => {
      usageOf(node).stale = true;
    },
    headChanged(facts) {
      const { name, os, arch, runtimes, canFence, resources, labels, witness, images } = facts;
      const head = JSON.stringify([name, os, arch, runtimes, canFence, resources, labels, witness, images]);
      if (heads.get(facts.nodeId) === head) return false;
      heads.set(facts.nodeId, head);
      return true;
    },
    forget: (node) => {
      heads.delete(node);
      if (usages.get(node)?.holdings.size === 0) usages.delete(node);
    },
    candidate(ctx, node) {
      const facts = ctx.facts.get(node);
      const peer = ctx.state.peers.get(node);
      if (facts === undefined || peer === undefined) return undefined;
      if (peer.availability !== 'active' || peer.witness || facts.witness) return undefined;
      // Of another epoch of a recovered cluster: it does not read this one's records.
      const { cluster } = ctx.state;
      if (cluster?.parents !== undefined && facts.epoch?.id !== cluster.epochId) return undefined;
      const { used, copiesOf } = fresh(node);
      return {
        id: node,
        name: peer.name,
        labels: { ...facts.labels, ...peer.labels },
        os: facts.os,
        arch: facts.arch,
        cpus: facts.resources.cpus,
        memoryBytes: facts.resources.memoryBytes,
        gpus: facts.resources.gpus.length,
        devices: facts.resources.devices,
        runtimes: facts.runtimes,
        images: facts.images,
        canFence: facts.canFence,
        used,
        copiesOf,
        load: facts.load.cpuUsage,
      };
    },
    clear: () => {
      usages.clear();
      holdings.clear();
      heads.clear();
    },
  };
}

import type { Command } from '../../model/commands.ts';
import type { NodeFacts } from '../../model/facts.ts';
import type { MonoMs, NodeId, TaskId, Term, WallMs } from '../../model/ids.ts';
import type { Submission } from '../../model/records.ts';
import type { ConsensusView } from '../consensus/types.ts';
import { createLeaseGranter, type GranterEffect } from '../lease/granter.ts';
import { slotText } from '../lease/keys.ts';
import type { RenewAckMessage, RenewMessage } from '../lease/types.ts';
import { createMaster } from '../master/master.ts';
import type { MasterMark, Waiting } from '../master/types.ts';
import type { MemberChange, MemberView } from '../membership/types.ts';
import { place } from '../scheduling/scheduling.ts';
import type { ClusterState } from '../state/types.ts';
import type { PeerConfig } from './types.ts';

// The master's office: decisions and the granting of leases. Open on every peer, at work only on the one that leads.

export type OfficeEffect =
  | { readonly type: 'read-index'; readonly id: number }
  | { readonly type: 'lease-message'; readonly to: NodeId; readonly message: RenewAckMessage }
  | { readonly type: 'propose'; readonly commands: readonly Command[] }
  | { readonly type: 'change-voters'; readonly voters: readonly NodeId[] }
  | { readonly type: 'transfer'; readonly to: NodeId };

export interface OfficeContext {
  readonly state: ClusterState;
  readonly members: ReadonlyMap<NodeId, MemberView>;
  readonly facts: ReadonlyMap<NodeId, NodeFacts>;
  readonly consensus: ConsensusView;
  readonly pending: ReadonlyMap<TaskId, Submission>;
  readonly wall: WallMs;
}

export interface Office {
  mark(what: MasterMark): void;
  evaluate(ctx: OfficeContext, now: MonoMs): OfficeEffect[];
  memberChanged(change: MemberChange): void;
  setLocalHealth(score: number): void;
  onRenew(from: NodeId, message: RenewMessage, now: MonoMs): OfficeEffect[];
  onReadReady(id: number, ok: boolean, now: MonoMs, state: ClusterState): OfficeEffect[];
  /** Commands handed to consensus, and what became of them: an assignment on its way bars renewals of its slot. */
  proposed(commands: readonly Command[]): void;
  settled(command: Command): void;
  /** A command of the master's own was applied with this result. */
  outcome(command: Command, ok: boolean): void;
  proposalDone(ok: boolean): void;
  /** Plain words on why membership thinks what it thinks of a machine. */
  evidenceOf(node: NodeId): readonly string[];
  nextWake(): MonoMs | undefined;
  waiting(): ReadonlyMap<TaskId, Waiting>;
  /** Decisions proposed and not seen applied. */
  inFlight(): number;
}

/** `ledTerm`: the term this peer leads by consensus now, or null. */
export function createOffice(self: NodeId, config: PeerConfig, ledTerm: () => Term | null): Office {
  /** Assignments in the log and not yet applied, by slot. Only this term's: an established leader has applied all others. */
  const assigning = new Map<string, number>();
  const evidence = new Map<NodeId, readonly string[]>();
  let localHealth = 0;
  let leading = false;
  const released = new Set<TaskId>();

  const granter = createLeaseGranter(config.lease, {
    leading: () => ledTerm(),
    pendingAssign: (slot) => assigning.has(slotText(slot)),
    onReleased: (key) => void released.add(key.taskId),
  });
  const master = createMaster({ agentDownMs: config.membership.agentDownMs }, self, { place });

  const ofGranter = (effects: readonly GranterEffect[]): OfficeEffect[] =>
    effects.map((e) => (e.type === 'read-index' ? e : { type: 'lease-message', to: e.to, message: e.message }));

  return {
    mark: (what) => master.mark(what),
    evaluate: (ctx, now) => {
      const leads = ctx.consensus.role === 'leader';
      if (!leads && !leading) return [];
      leading = leads;
      if (!leads) assigning.clear();
      if (released.size > 0) {
        master.mark({ tasks: [...released] });
        released.clear();
      }
      return master.evaluate({ ...ctx, granter, evidenceOf: (node) => evidence.get(node) ?? [], localHealth }, now);
    },
    memberChanged: (change) => {
      if (change.to === 'alive') evidence.delete(change.id);
      else evidence.set(change.id, change.evidence);
      master.mark({ nodes: [change.id] });
    },
    setLocalHealth: (score) => {
      localHealth = score;
    },
    onRenew: (from, message, now) => ofGranter(granter.onRenew(from, message, now)),
    onReadReady: (id, ok, now, state) => ofGranter(granter.onReadReady(id, ok, now, state)),
    proposed: (commands) => {
      for (const c of commands)
        if (c.type === 'slot.assign') assigning.set(slotText(c), (assigning.get(slotText(c)) ?? 0) + 1);
    },
    settled: (command) => {
      if (command.type !== 'slot.assign') return;
      const n = assigning.get(slotText(command)) ?? 0;
      if (n > 1) assigning.set(slotText(command), n - 1);
      else assigning.delete(slotText(command));
    },
    outcome: (command, ok) => {
      if (!ok && (command.type === 'slot.assign' || command.type === 'slot.close' || command.type === 'slot.drop'))
        master.mark({ refused: [{ taskId: command.taskId, slot: command.slot }] });
    },
    evidenceOf: (node) => evidence.get(node) ?? [],
    proposalDone: (ok) => master.proposalDone(ok),
    nextWake: () => master.nextWake(),
    waiting: () => master.waiting(),
    inFlight: () => master.inFlight(),
  };
}

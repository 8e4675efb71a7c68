import type { NodeFacts } from '../../model/facts.ts';
import type { MonoMs, NodeId, TaskId, Term, WallMs } from '../../model/ids.ts';
import type { ControlMessage } from '../../model/peer-messages.ts';
import { createCaretaker } from '../caretaker/caretaker.ts';
import type { Orders, ProvisionalOrder } from '../caretaker/types.ts';
import type { MemberView } from '../membership/types.ts';
import { control, type Hub } from './hub.ts';

// A side without a majority: its caretaker's bids, orders and decisions, and what this machine does with them.

/** Decisions of this peer as caretaker that are remembered for whoever asks why. */
const DECISIONS_KEPT = 1024;

/** What this peer decided as caretaker. Nothing of it is in the log. */
export interface ProvisionalDecision {
  readonly at: WallMs;
  readonly order: ProvisionalOrder;
  readonly node: NodeId;
  readonly evidence: readonly string[];
}

/** What a peer without a majority in reach knows of its side. */
export interface SideView {
  readonly since: MonoMs;
  readonly caretaker: NodeId | null;
  /** Why slots (`TASKID.SLOT`) have no copy here; empty unless this peer is caretaker. */
  readonly waiting: ReadonlyMap<string, string>;
}

export type CaretakerMessage = Extract<ControlMessage, { type: 'caretaker-bid' | 'caretaker-orders' }>;

export interface Caretaking {
  evaluate(): void;
  message(from: NodeId, message: CaretakerMessage): void;
  /** Members, facts or records changed. */
  mark(): void;
  nextWake(): MonoMs | undefined;
  /** Undefined: a majority is in reach, or was until a moment ago. */
  side(): SideView | undefined;
  decisions(task: TaskId): readonly ProvisionalDecision[];
}

export function createCaretaking(
  hub: Hub,
  rank: number,
  parts: {
    readonly members: () => ReadonlyMap<NodeId, MemberView>;
    readonly facts: () => ReadonlyMap<NodeId, NodeFacts>;
    readonly lastTerm: () => Term;
    readonly evidenceOf: (node: NodeId) => readonly string[];
    readonly carryOut: (orders: Orders) => void;
    readonly alone: () => void;
  },
): Caretaking {
  const caretaker = createCaretaker(hub.self, rank, { agentDownMs: hub.config.membership.agentDownMs });
  const decisions: ProvisionalDecision[] = [];

  function evaluate(): void {
    const effects = caretaker.evaluate(
      {
        state: hub.state(),
        members: parts.members(),
        facts: parts.facts(),
        consensus: hub.consensus(),
        lastTerm: parts.lastTerm(),
        evidenceOf: parts.evidenceOf,
      },
      hub.now(),
    );
    for (const effect of effects) {
      switch (effect.type) {
        case 'bid':
          control(hub, effect.to, { type: 'caretaker-bid', ...effect.bid });
          break;
        case 'orders':
          if (effect.to === hub.self) parts.carryOut(effect.orders);
          else control(hub, effect.to, { type: 'caretaker-orders', ...effect.orders });
          break;
        case 'alone':
          if (effect.alone) parts.alone();
          hub.emit({
            type: 'notify',
            notice: { type: 'caretaker', alone: effect.alone, caretaker: effect.caretaker, at: hub.wall() },
          });
          break;
        case 'decided': {
          const { order, node, evidence } = effect;
          const decision = { at: hub.wall(), order, node, evidence };
          decisions.push(decision);
          if (decisions.length > DECISIONS_KEPT) decisions.shift();
          hub.emit({ type: 'notify', notice: { type: 'provisional', decision } });
          break;
        }
      }
    }
  }

  return {
    evaluate,
    message: (from, message) => {
      if (message.type === 'caretaker-bid') caretaker.onBid(from, message, hub.now());
      else if (caretaker.aloneSince() !== undefined && (caretaker.caretaker() ?? from) === from)
        parts.carryOut(message);
    },
    mark: () => caretaker.mark(),
    nextWake: () => caretaker.nextWake(),
    side: () => {
      const since = caretaker.aloneSince();
      if (!caretaker.alone() || since === undefined) return undefined;
      return { since, caretaker: caretaker.caretaker(), waiting: caretaker.waiting() };
    },
    decisions: (task) => decisions.filter((d) => d.order.taskId === task),
  };
}

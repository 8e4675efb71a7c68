import type { NodeId } from '../../model/ids.ts';
import type { FactsMessage } from '../../model/peer-messages.ts';
import type { LeaseMessage } from '../lease/types.ts';
import type { MembershipEvent } from '../membership/types.ts';
import type { Caretaking } from './caretaking.ts';
import type { Epochs } from './epochs.ts';
import type { Hub } from './hub.ts';
import type { Proposals } from './proposals.ts';
import type { Submissions } from './submissions.ts';
import type { GossipMessage, PeerEvent } from './types.ts';

// What comes in from other peers, to whom it belongs. Nothing of a peer that is not on the allow-list is looked at.

export interface MailRoom {
  message(event: Extract<PeerEvent, { type: 'message' }>): void;
  gossip(from: NodeId, gossip: GossipMessage): void;
}

export function createMailRoom(
  hub: Hub,
  to: {
    readonly allowed: (id: NodeId) => boolean;
    readonly connected: (id: NodeId) => boolean;
    readonly voting: () => readonly NodeId[];
    readonly memberStep: (event: MembershipEvent) => void;
    /** Something other than membership's own came from it. */
    readonly heard: (id: NodeId) => void;
    readonly onLease: (from: NodeId, message: LeaseMessage) => void;
    readonly onFacts: (from: NodeId, message: FactsMessage, canReply: boolean) => void;
    readonly proposals: Proposals;
    readonly submissions: Submissions;
    readonly caretaking: Pick<Caretaking, 'message'>;
    readonly epochs: Pick<Epochs, 'accepts'>;
  },
): MailRoom {
  return {
    message: (event) => {
      const { from } = event;
      if (!to.allowed(from)) return;
      if (event.channel !== 'membership') to.heard(from);
      switch (event.channel) {
        case 'membership':
          return to.memberStep({ type: 'message', from, message: event.message });
        case 'raft':
          return to.epochs.accepts(event.message)
            ? hub.consense({ type: 'message', from, message: event.message })
            : undefined;
        case 'lease':
          return to.onLease(from, event.message);
        case 'facts':
          return to.onFacts(from, event.message, true);
        case 'control':
          if (event.message.type === 'propose') return to.proposals.fromPeer(from, event.message);
          if (event.message.type === 'propose-result') return to.proposals.resultFromMaster(event.message);
          if (event.message.type === 'caretaker-bid' || event.message.type === 'caretaker-orders')
            return to.caretaking.message(from, event.message);
          return to.submissions.fromPeer(from, event.message);
      }
    },
    gossip: (from, gossip) => {
      if (!to.allowed(from)) return;
      if (gossip.topic === 'tasks') to.submissions.heard(gossip.message);
      else if (gossip.topic === 'log') {
        // Voters are sent the log by the master itself.
        if (!to.voting().includes(hub.self) && to.epochs.accepts(gossip.message))
          hub.consense({ type: 'committed-entries', ...gossip.message });
      } else if (gossip.message.type === 'updates') to.memberStep({ type: 'message', from, message: gossip.message });
      else to.onFacts(from, gossip.message, to.connected(from));
    },
  };
}

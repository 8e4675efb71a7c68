import type { MonoMs, NodeId, WallMs } from '../../model/ids.ts';
import type { LeaseMessage } from '../lease/types.ts';
import type { FactsDesk } from './facts-desk.ts';
import type { Hub } from './hub.ts';
import type { Office, OfficeEffect } from './office.ts';
import type { Proposals } from './proposals.ts';
import type { Reads } from './reads.ts';
import type { Workshop, WorkshopEffect } from './workshop.ts';

// Carries out what the master's office and this machine's workshop ask for, and the lease messages between them: over the
// wire, or within the peer where it is its own master.

export interface Errands {
  office(effects: readonly OfficeEffect[]): void;
  workshop(effects: readonly WorkshopEffect[]): void;
  lease(from: NodeId, message: LeaseMessage): void;
}

export function createErrands(
  hub: Hub,
  parts: () => {
    readonly office: Office;
    readonly workshop: Workshop;
    readonly proposals: Proposals;
    readonly reads: Reads;
    readonly facts: FactsDesk;
  },
): Errands {
  const now = (): MonoMs => hub.now();
  const wall = (): WallMs => hub.wall();

  function office(effects: readonly OfficeEffect[]): void {
    const { reads, proposals } = parts();
    for (const effect of effects) {
      if (effect.type === 'read-index') reads.ask({ kind: 'lease', id: effect.id });
      else if (effect.type === 'lease-message') leaseTo(effect.to, effect.message);
      else if (effect.type === 'propose') proposals.propose(effect.commands, { kind: 'master' });
      else if (effect.type === 'change-voters') proposals.changeVoters(effect.voters);
      else hub.consense({ type: 'transfer', to: effect.to });
    }
  }

  function leaseTo(to: NodeId, message: LeaseMessage): void {
    if (to === hub.self) lease(hub.self, message);
    else hub.emit({ type: 'send', to, afterPersist: false, channel: 'lease', message });
  }

  function lease(from: NodeId, message: LeaseMessage): void {
    if (message.type === 'lease-renew') office(parts().office.onRenew(from, message, now()));
    else if (from === hub.leader()) workshop(parts().workshop.onAck(from, message, now(), wall()));
  }

  function workshop(effects: readonly WorkshopEffect[]): void {
    const { proposals, facts } = parts();
    for (const effect of effects) {
      if (effect.type === 'runtime') hub.emit({ type: 'runtime', effect: effect.effect });
      else if (effect.type === 'renew') leaseTo(hub.leader() ?? hub.self, effect.message);
      else if (effect.type === 'deadline')
        hub.emit({ type: 'lease-deadline', key: effect.key, deadline: effect.deadline });
      else if (effect.type === 'facts') facts.copiesChanged();
      else proposals.fromWorkshop(effect);
    }
  }

  return { office, workshop, lease };
}

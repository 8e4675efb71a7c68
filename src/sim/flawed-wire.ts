import type { ChannelMessage } from '../core/peer/types.ts';
import type { LogIndex } from '../model/ids.ts';
import type { Machine } from './machine.ts';
import type { World } from './world.ts';

// What planted defects make of a message: a peer that breaks a rule of its protocol, as the others see it.

type Raft = Extract<ChannelMessage, { channel: 'raft' }>['message'];
type Lease = Extract<ChannelMessage, { channel: 'lease' }>['message'];

export function flawedMessage<T extends ChannelMessage>(world: World, from: Machine, effect: T): T {
  if (world.defects.size === 0) return effect;
  if (effect.channel === 'lease') return { ...effect, message: flawedLease(world, from, effect.message) };
  if (effect.channel === 'raft') return { ...effect, message: flawedRaft(world, from, effect.message) };
  return effect;
}

function flawedLease(world: World, from: Machine, message: Lease): Lease {
  if (message.type === 'lease-renew')
    return world.has('forged-proof-of-death')
      ? { ...message, released: [...message.released, ...message.leases] }
      : message;
  if (world.has('renew-after-close')) return { ...message, acked: [...message.acked, ...message.refused], refused: [] };
  if (world.has('renew-from-memory')) return { ...message, acked: from.remembered(message), refused: [] };
  return message;
}

function flawedRaft(world: World, from: Machine, message: Raft): Raft {
  switch (message.type) {
    case 'vote-reply':
      return world.has('votes-for-all') ? { ...message, granted: true } : message;
    case 'append': {
      const end = (message.prevIndex + message.entries.length) as LogIndex;
      if (world.has('apply-before-commit')) return { ...message, commit: end };
      if (world.has('rewrites-entries') && message.entries.length > 1)
        return { ...message, entries: message.entries.map((e, i) => (i === 0 ? e : { ...e, term: message.term })) };
      return message;
    }
    case 'append-reply': {
      if (world.has('acks-beyond-log') && message.ok) return { ...message, index: (message.index + 1) as LogIndex };
      if (world.has('never-refuses') && !message.ok) {
        const last = from.peer?.consensus().lastIndex ?? message.index;
        return { ...message, ok: true, index: last };
      }
      return message;
    }
    default:
      return message;
  }
}

import type { ChannelMessage, PeerEvent } from '../core/peer/types.ts';
import type { LogIndex, NodeId } from '../model/ids.ts';
import { garbled } from './flawed-disk.ts';
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
    case 'vote-request':
      if (!world.has('boastful-candidate')) return message;
      return { ...message, lastTerm: message.term, lastIndex: (message.lastIndex + 1000) as LogIndex };
    case 'append': {
      const end = (message.prevIndex + message.entries.length) as LogIndex;
      if (world.has('apply-before-commit')) return { ...message, commit: end };
      if (world.has('garbled-wire') && message.entries.length > 0 && from.rng.next() < 0.05)
        return { ...message, entries: message.entries.map(garbled) };
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

/** What planted defects make of a message as it arrives. */
export function flawedArrival(world: World, at: Machine, event: PeerEvent): PeerEvent {
  if (world.defects.size === 0 || event.type !== 'message' || event.channel !== 'raft') return event;
  const { message } = event;
  if (message.type !== 'append' || !world.has('no-consistency-check')) return event;
  const prevTerm = at.peer?.termAt(message.prevIndex) ?? message.prevTerm;
  return { ...event, message: { ...message, prevTerm } };
}

/** Votes that were given once, `from>to`. */
const given = new WeakMap<World, Set<string>>();

/**
 * Answers that nobody gave: what planted defects tell the sender of a message, whether it arrives or not. Names whose answer
 * it seems to be.
 */
export function forgedAnswers(
  world: World,
  from: Machine,
  to: NodeId,
  effect: ChannelMessage,
  arrives: boolean,
): readonly { readonly by: NodeId; readonly at: NodeId; readonly message: Raft }[] {
  if (world.defects.size === 0 || effect.channel !== 'raft') return [];
  const { message } = effect;
  const answer = (reply: Raft) => [{ by: to, at: from.id, message: reply }];
  switch (message.type) {
    case 'append': {
      if (arrives) return [];
      const { term, round } = message;
      const heard = { type: 'append-reply', term, ok: true, hintTerm: 0 as never, mayVote: true } as const;
      const index = (message.prevIndex + message.entries.length) as LogIndex;
      const none = 0 as LogIndex;
      if (world.has('commit-on-minority')) return answer({ ...heard, index, round, applied: index });
      if (world.has('no-check-quorum')) return answer({ ...heard, index: none, round: 0, applied: none });
      if (world.has('reads-without-a-round')) return answer({ ...heard, index: none, round, applied: none });
      return [];
    }
    case 'append-reply': {
      if (!world.has('learners-count') || !message.ok) return [];
      const voters = world.find(to)?.peer?.consensus().membership.voters ?? [];
      if (voters.includes(from.id)) return [];
      return voters.filter((id) => id !== to).map((by) => ({ by, at: to, message }));
    }
    case 'vote-reply':
      if (world.has('old-votes-count') && message.granted && !message.preVote) {
        const known = given.get(world) ?? new Set();
        given.set(world, known.add(`${from.id}>${to}`));
      }
      return [];
    case 'vote-request': {
      const granted = { type: 'vote-reply', term: message.term, preVote: message.preVote, granted: true } as const;
      if (message.preVote) return world.has('no-prevote') ? answer(granted) : [];
      return given.get(world)?.has(`${to}>${from.id}`) ? answer(granted) : [];
    }
    default:
      return [];
  }
}

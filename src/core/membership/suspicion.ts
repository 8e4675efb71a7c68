import type { NodeId } from '../../model/ids.ts';
import { agentGone, type Context, claimTtlMs, type Member, settled } from './context.ts';
import { monitorsOf } from './monitors.ts';
import type { MembershipConfig } from './types.ts';

// Lifeguard's LHA-Suspicion (section IV-B): the time from accusation to death shrinks from max to min with independent
// confirmations, as max - (max - min) log(C + 1) / log(K + 1). Departures: without one confirmation there is no death at
// all as long as anybody could give it; K is at most 2, since every accuser here has also tried boot and other peers.

/** Confirmations that bring the shortest time, where so many can be had. */
const CONFIRMATIONS = 2;

/** `confirmations` of `expected` (K >= 1). */
export function suspicionTimeoutMs(config: MembershipConfig, confirmations: number, expected: number): number {
  const span = config.suspicionMaxMs - config.suspicionMinMs;
  const share = Math.log(Math.min(confirmations, expected) + 1) / Math.log(expected + 1);
  return Math.max(config.suspicionMinMs, config.suspicionMaxMs - span * share);
}

/** Who could accuse, who does, and when that makes the member dead (undefined: not on this evidence). */
export interface Verdict {
  readonly deathAt: number | undefined;
  /** This peer and those whose accusation counts. */
  readonly agree: readonly NodeId[];
  /** All who could accuse, this peer included. */
  readonly couldAccuse: number;
}

/** A voice counts if its owner is believed alive and does not itself seem silent. */
const hasVoice = (ctx: Context, p: Member): boolean => p.known && p.view.status === 'alive' && !agentGone(ctx, p);

export function verdictOn(ctx: Context, m: Member): Verdict {
  const own = m.claims.get(ctx.self);
  const agree: NodeId[] = [ctx.self];
  if (own?.kind !== 'suspect') return { deathAt: undefined, agree, couldAccuse: 1 };
  let firstAt = own.firstAt;
  let bootAnswersSomeone = false;
  for (const [who, claim] of m.claims) {
    const p = ctx.members.get(who);
    if (p === undefined || !hasVoice(ctx, p) || ctx.now - claim.at > claimTtlMs(ctx)) continue;
    if (claim.kind === 'agent-down') bootAnswersSomeone = true;
    else {
      agree.push(who);
      firstAt = Math.min(firstAt, claim.firstAt);
    }
  }
  let voices = 0;
  let othersLeft = false;
  for (const p of jury(ctx, m)) {
    if (hasVoice(ctx, p)) voices++;
    if (!settled(p.view.status)) othersLeft = true;
  }
  const confirmations = agree.length - 1;
  const potential = Math.max(voices, confirmations);
  const couldAccuse = 1 + potential;
  if (bootAnswersSomeone) return { deathAt: undefined, agree, couldAccuse };
  let waitMs: number;
  if (potential > 0) {
    if (confirmations === 0) return { deathAt: undefined, agree, couldAccuse };
    waitMs = suspicionTimeoutMs(ctx.config, confirmations, Math.min(CONFIRMATIONS, potential));
  } else if (othersLeft) {
    // Everybody who could confirm is silent too: a cut with this peer alone on its side.
    waitMs = ctx.config.suspicionMaxMs;
  } else {
    // Two machines: nobody else to ask. A closed connection is a second witness of its own.
    waitMs = m.view.hint === 'none' ? suspicionTimeoutMs(ctx.config, 1, CONFIRMATIONS) : ctx.config.suspicionMinMs;
  }
  return { deathAt: Math.max(firstAt + waitMs, m.notBefore), agree, couldAccuse };
}

/** The others that watch `m`: everybody in a full mesh. */
function* jury(ctx: Context, m: Member): Iterable<Member> {
  if (ctx.fullMesh) {
    for (const p of ctx.members.values()) if (p !== m) yield p;
    return;
  }
  m.jury ??= monitorsOf(m.id, [ctx.self, ...ctx.members.keys()], ctx.config.monitors);
  for (const id of m.jury) {
    const p = ctx.members.get(id);
    if (p !== undefined) yield p;
  }
}

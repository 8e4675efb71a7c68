import type { Context, Member } from './context.ts';
import type { Verdict } from './suspicion.ts';

// What a person reads when asking why a member was held for silent or dead.

const count = (n: number, one: string, many: string): string => `${n} ${n === 1 ? one : many}`;

/** What this peer itself found. */
export function ownEvidence(ctx: Context, m: Member): string[] {
  const words: string[] = [];
  const { lastHeardAt, hint } = m.view;
  words.push(lastHeardAt === undefined ? 'never heard' : `no answer for ${Math.round(ctx.now - lastHeardAt)} ms`);
  if (hint === 'closed') words.push('connection closed');
  if (hint === 'refused') words.push('port refused');
  const check = m.check;
  if (check?.boot === 'silent')
    words.push(`boot silent after ${count(ctx.config.bootProbeAttempts, 'probe', 'probes')}`);
  if (check?.boot === 'answered') words.push('boot answers');
  if (check !== undefined && check.asked.length > 0) {
    const found = check.foundNothing.size > 0 ? `, not reached by ${[...check.foundNothing].join(', ')}` : '';
    words.push(`asked ${check.asked.join(', ')} to reach it${found}`);
  }
  return words;
}

export function agreement(verdict: Verdict): string {
  const { agree, couldAccuse } = verdict;
  if (couldAccuse === 1) return `nobody else to ask: ${agree.join(', ')}`;
  return `${agree.length} of ${count(couldAccuse, 'peer', 'peers')} agree: ${agree.join(', ')}`;
}

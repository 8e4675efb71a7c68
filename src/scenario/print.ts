import type { ScenarioResult } from './runner.ts';
import { percentile } from './statistics.ts';

/** What was expected, what happened, and how fast, for a person at a terminal. */
export function formatResult(result: ScenarioResult): string {
  const { verdict } = result;
  const lines = [`scenario ${result.scenario} on ${result.stage}, seed ${result.seed}`, ''];
  for (const event of result.events) {
    const at = event.atMs - result.startedAtMs;
    lines.push(`  ${(at / 1000).toFixed(3).padStart(9)} s  ${event.text}`);
  }
  const width = Math.max(0, ...verdict.findings.map((finding) => finding.what.length));
  lines.push('', `  ${''.padEnd(6)} ${'what'.padEnd(width)}  expected      happened`);
  for (const finding of verdict.findings) {
    lines.push(
      `  ${finding.held ? 'held  ' : finding.shownOnly ? 'slower' : 'FAILED'} ${finding.what.padEnd(width)}  ${finding.expected.padEnd(12)}  ${finding.happened}`,
    );
  }
  const times = verdict.recoveries.map((recovery) => recovery.elapsedMs);
  const ms = (p: number): string => `${Math.round(percentile(times, p))} ms`;
  lines.push(
    '',
    times.length === 0
      ? '  recoveries: none'
      : `  recoveries: ${times.length}; p50 ${ms(50)}, p99 ${ms(99)}, max ${ms(100)}`,
  );
  lines.push(`  tasks lost: ${verdict.lost.length}; tasks doubled: ${verdict.doubled.length}`);
  lines.push(`  ${verdict.held ? 'all expectations held' : 'NOT all expectations held'}`);
  return lines.join('\n');
}

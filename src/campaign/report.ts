import { percentile } from '../scenario/statistics.ts';
import type { Overlap } from './overlap.ts';
import { totalMs } from './overlap.ts';
import { KILL_KINDS, type KillKind, PARTITION_KINDS, type PartitionKind } from './schedule.ts';

export interface CampaignReport {
  readonly seed: string;
  readonly hosts: number;
  readonly enforced: boolean;
  readonly elapsedMs: number;
  readonly kills: Readonly<Record<KillKind, number>>;
  readonly partitions: Readonly<Record<PartitionKind, number>>;
  readonly freezes: number;
  readonly copies: number;
  readonly ticks: { readonly everyMs: number };
  /** Of exclusive copies, those after a thaw apart. */
  readonly overlaps: readonly Overlap[];
  readonly afterThaw: readonly Overlap[];
  readonly closestHandoverMs: number | undefined;
  readonly tasksAccepted: number;
  readonly tasksUnanswered: number;
  readonly writesAcknowledged: number;
  readonly lost: readonly string[];
  readonly exclusiveMs: readonly number[];
  readonly availableMs: readonly number[];
  /** Why it ended early. */
  readonly failure: string | undefined;
}

const sum = (counts: Readonly<Record<string, number>>): number => Object.values(counts).reduce((a, b) => a + b, 0);

/** Enforced: nothing doubled, nothing lost. Not enforced: the witness must have seen doubles. */
export function campaignHeld(report: CampaignReport): boolean {
  if (report.failure !== undefined || report.lost.length > 0) return false;
  return report.enforced ? report.overlaps.length === 0 : report.overlaps.length > 0;
}

export function formatCampaign(report: CampaignReport): string {
  const kinds = (names: readonly string[], counts: Readonly<Record<string, number>>): string =>
    names.map((name) => `${name} ${counts[name]}`).join(', ');
  const times = (samples: readonly number[]): string =>
    samples.length === 0
      ? 'none'
      : `${samples.length}; p50 ${percentile(samples, 50)} ms, p99 ${percentile(samples, 99)} ms, max ${percentile(samples, 100)} ms`;
  const overlaps = (list: readonly Overlap[]): string[] => [
    `${list.length} (${totalMs(list)} ms)`,
    ...list
      .slice(0, 10)
      .map((one) => `    ${one.task}[${one.slot}] ${one.a} and ${one.b}: ${one.toMs - one.fromMs} ms`),
  ];
  const lines = [
    `campaign, seed ${report.seed}, ${report.hosts} hosts, ${Math.round(report.elapsedMs / 1000)} s${report.enforced ? '' : ', leases NOT enforced'}`,
    '',
    `  kills                ${sum(report.kills)}: ${kinds(KILL_KINDS, report.kills)}`,
    `  partitions           ${sum(report.partitions)}: ${kinds(PARTITION_KINDS, report.partitions)}`,
    `  freezes              ${report.freezes}`,
    `  exclusive copies     ${report.copies}, each ticking every ${report.ticks.everyMs} ms`,
    `  overlaps             ${overlaps(report.overlaps).join('\n')}`,
    `  overlaps after thaw  ${overlaps(report.afterThaw).join('\n')}`,
    `  closest hand-over    ${report.closestHandoverMs === undefined ? '-' : `${report.closestHandoverMs} ms between last and first tick, from host to host`}`,
    `  tasks accepted       ${report.tasksAccepted} (${report.tasksUnanswered} submissions without an answer)`,
    `  writes acknowledged  ${report.writesAcknowledged}`,
    `  lost                 ${report.lost.length}${report.lost.map((one) => `\n    ${one}`).join('')}`,
    `  recovered, exclusive ${times(report.exclusiveMs)}`,
    `  recovered, available ${times(report.availableMs)}`,
  ];
  if (report.failure !== undefined) lines.push(`  ended early          ${report.failure}`);
  lines.push('', `  ${verdict(report)}`);
  return lines.join('\n');
}

function verdict(report: CampaignReport): string {
  if (report.enforced) return campaignHeld(report) ? 'nothing lost, nothing doubled' : 'FAILED';
  return campaignHeld(report)
    ? 'without enforcement the witness sees overlaps, as it must'
    : 'FAILED: the witness saw none';
}

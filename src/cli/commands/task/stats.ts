import type { Command } from 'commander';
import type { NodeView, StatsView } from '../../../services/api/schemas.ts';
import type { ApiClient } from '../../client.ts';
import { examples, listOptions, whole, withClient } from '../../command.ts';
import { bytes, type Column, type Listing, type ListOptions, print, printList, printTable } from '../../output.ts';

const COLUMNS: readonly Column<StatsView>[] = [
  { title: 'TASK', value: (s) => s.task, width: 32 },
  { title: 'SLOT', value: (s) => String(s.slot) },
  { title: 'NODE', value: (s) => s.node, width: 24 },
  { title: 'CPU', value: (s) => `${(s.cpuCores * 100).toFixed(1)}%` },
  {
    title: 'MEM / LIMIT',
    value: (s) => `${bytes(s.memoryBytes)} / ${s.memoryLimitBytes === null ? '-' : bytes(s.memoryLimitBytes)}`,
  },
  { title: 'NET I/O', value: (s) => `${bytes(s.networkRxBytes)} / ${bytes(s.networkTxBytes)}` },
  { title: 'DISK I/O', value: (s) => `${bytes(s.diskReadBytes)} / ${bytes(s.diskWriteBytes)}` },
  { title: 'PIDS', value: (s) => String(s.pids) },
];
const REFRESH_MS = 2000;

async function showTop(client: ApiClient): Promise<void> {
  const [nodes, stats] = await Promise.all([
    client.get<Listing<NodeView>>('/v1/nodes'),
    client.get<Listing<StatsView>>('/v1/stats'),
  ]);
  printTable<NodeView>(
    [
      { title: 'NODE', value: (n) => n.name },
      { title: 'STATUS', value: (n) => n.status },
      {
        title: 'CPU',
        value: (n) => `${(((n.load as { cpuUsage?: number } | null)?.cpuUsage ?? 0) * 100).toFixed(0)}% of ${n.cpus}`,
      },
      {
        title: 'MEM',
        value: (n) =>
          `${bytes((n.load as { memoryUsedBytes?: number } | null)?.memoryUsedBytes ?? 0)} / ${bytes(n.memoryBytes)}`,
      },
      {
        title: 'TEMP',
        value: (n) => {
          const t = (n.load as { temperatureC?: number | null } | null)?.temperatureC;
          return t == null ? '-' : `${t.toFixed(0)} C`;
        },
      },
      { title: 'COPIES', value: (n) => String(n.copies) },
    ],
    nodes.items,
  );
  print('');
  printTable(
    COLUMNS,
    [...stats.items].sort((a, b) => b.cpuCores - a.cpuCores),
  );
}

/** stats: one look at every running copy of the cluster; top: again and again, machines first. */
export function statsCommand(program: Command): void {
  const stats = listOptions(program.command('stats').description('what running tasks use, on all machines'));
  stats.addHelpText('after', examples('task-org stats', 'task-org stats --filter node=node2'));
  stats.action(
    withClient(stats, async (client, options: ListOptions) =>
      printList(await client.get<Listing<StatsView>>('/v1/stats'), COLUMNS, (s) => s.task, options),
    ),
  );

  const top = program
    .command('top')
    .description('machines and tasks by use, refreshed')
    .option('-n, --iterations <n>', 'stop after so many', whole(1));
  top.addHelpText('after', examples('task-org top', 'task-org top -n 1'));
  top.action(
    withClient(top, async (client, options: { iterations?: number }) => {
      const rounds = options.iterations ?? (process.stdout.isTTY ? Number.POSITIVE_INFINITY : 1);
      for (let i = 0; i < rounds; i++) {
        if (i > 0) await new Promise((resolve) => setTimeout(resolve, REFRESH_MS));
        if (process.stdout.isTTY && rounds > 1) process.stdout.write('\u001b[H\u001b[2J');
        await showTop(client);
      }
    }),
  );
}

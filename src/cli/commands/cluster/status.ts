import type { Command } from 'commander';
import type { ClusterView } from '../../../services/api/schemas.ts';
import { examples, formatOption, withClient } from '../../command.ts';
import { print, printTable } from '../../output.ts';
import { recoveryCommands } from './recover.ts';

export function clusterCommands(program: Command): void {
  const cluster = program.command('cluster').description('the cluster as a whole');
  recoveryCommands(cluster);
  const command = cluster
    .command('status')
    .description('peers seen and by whom, master, term, quorum, oldest fact')
    .addOption(formatOption('table, or json'));
  command.addHelpText('after', examples('task-org cluster status', 'task-org cluster status --format json'));
  command.action(
    withClient(command, async (client, options: { format?: string }) => {
      const c = await client.get<ClusterView>('/v1/cluster');
      if (options.format === 'json') return print(JSON.stringify(c));
      const alive = c.peers.filter((p) => p.status === 'alive').length;
      print(`cluster   ${c.clusterId}${c.name ? ` (${c.name})` : ''}, epoch ${c.epoch}`);
      print(`master    ${c.masterName ?? 'none known here'}, term ${c.term}`);
      print(
        `quorum    ${c.quorum.ok ? 'yes' : 'NO'}: ${c.quorum.alive} of ${c.voters.length} voters in reach, ${c.quorum.needed} needed (${c.voters.join(', ')})`,
      );
      if (c.side)
        print(
          `side      no majority in reach for ${(c.side.sinceMs / 1000).toFixed(0)} s; ${
            c.side.caretaker === null
              ? 'this side is choosing a caretaker'
              : `${c.side.caretaker} is caretaker: it revives available tasks, exclusive ones wait for a majority`
          }`,
        );
      for (const other of c.conflicts)
        print(
          `conflict  ${other.peer} is of epoch ${other.epoch} (${other.epochId}), this peer of ${c.epoch} (${c.epochId}): on those to be given up, task-org cluster rejoin --epoch ID`,
        );
      if (c.unaccounted.length > 0)
        print(
          `recovered exclusive tasks wait: ${c.unaccounted.join(', ')} may still run them; name the dead with task-org cluster recover --force --dead NODE`,
        );
      print(
        `records   applied ${c.applied} of ${c.commit} committed; ${c.pendingSubmissions} submissions wait for a master`,
      );
      print(
        `peers     ${alive} of ${c.peers.length} alive as seen here; oldest fact ${(c.oldestFactMs / 1000).toFixed(1)} s`,
      );
      print('');
      printTable(
        [
          { title: 'PEER', value: (p: ClusterView['peers'][number]) => p.name },
          { title: 'STATUS', value: (p) => p.status },
          {
            title: 'SEEN ALIVE BY',
            value: (p) =>
              `${p.seenBy.length} of ${Math.max(0, c.peers.length - 1)}${p.seenBy.length ? `: ${p.seenBy.join(', ')}` : ''}`,
          },
        ],
        c.peers,
      );
    }),
  );
}

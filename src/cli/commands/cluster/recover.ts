import type { Command } from 'commander';
import { TaskOrgError } from '../../../model/errors.ts';
import type { ClusterView, RecoveryView } from '../../../services/api/schemas.ts';
import { collect, examples, withClient } from '../../command.ts';
import { note, print } from '../../output.ts';

/** `cluster recover` and `cluster rejoin`: what an operator decides when no majority can. */
export function recoveryCommands(cluster: Command): void {
  const recover = cluster
    .command('recover')
    .description('go on without the majority, when it is gone for good')
    .option('--force', 'really: see what is said without it')
    .option('--dead <node>', 'a machine that certainly runs nothing any more (may be given again)', collect, []);
  recover.addHelpText(
    'after',
    examples(
      'task-org cluster recover                      what it would mean',
      'task-org cluster recover --force',
      'task-org cluster recover --force --dead node3 --dead node4',
    ),
  );
  recover.action(
    withClient(recover, async (client, options: { force?: boolean; dead: string[] }) => {
      const before = await client.get<ClusterView>('/v1/cluster');
      if (options.force !== true) {
        const gone = before.peers
          .filter((p) => p.status !== 'alive')
          .map((p) => p.name)
          .sort();
        print(
          `quorum    ${before.quorum.ok ? 'yes' : 'NO'}: ${before.quorum.alive} of ${before.voters.length} voters in reach`,
        );
        print(`missing   ${gone.join(', ') || 'nobody'}`);
        print('');
        print('Recovery makes the records of this peer those of the cluster, in a new epoch:');
        print(
          '  - what was accepted and is known to the missing machines only is lost (they keep it aside when they return);',
        );
        print(
          '  - if a majority of them lives on out of reach, two clusters run until an operator gives one of them up;',
        );
        print(
          '  - available tasks run at once; exclusive ones wait until so many of the old voters have returned, or are named',
        );
        print(
          '    with --dead, that the rest could not form a majority. Name only machines that certainly run nothing.',
        );
        throw new TaskOrgError('refused', 'nothing was done', {
          hint: 'task-org cluster recover --force [--dead NODE]...',
        });
      }
      const done = await client.json<RecoveryView>('POST', '/v1/cluster/recover', { force: true, dead: options.dead });
      if (done.started) {
        print(`epoch ${done.epoch} begins on this peer; its agent starts again (copies go on)`);
        note('task-org cluster status shows who has joined it');
      } else print(`noted: ${options.dead.join(', ')} dead`);
    }),
  );

  const rejoin = cluster
    .command('rejoin')
    .description('give up the epoch of this peer for another one in reach, after two recoveries')
    .requiredOption('--epoch <id>', 'id of the epoch to join, from task-org cluster status');
  rejoin.addHelpText('after', examples('task-org cluster rejoin --epoch 5f0c2a9b11d3e874'));
  rejoin.action(
    withClient(rejoin, async (client, options: { epoch: string }) => {
      await client.json('POST', '/v1/cluster/rejoin', { epochId: options.epoch });
      print(`this peer joins epoch ${options.epoch}; its records so far are kept in epochs/ of its data directory`);
    }),
  );
}

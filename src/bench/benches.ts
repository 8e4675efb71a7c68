import { benchCommit } from './commit.ts';
import { benchDeploy } from './deploy.ts';
import { benchDetect } from './detect.ts';
import { benchElect } from './elect.ts';
import { benchFootprint } from './footprint.ts';
import { benchRecovery } from './recovery.ts';
import { benchPartition } from './partition.ts';
import type { BenchReport } from './report.ts';
import type { BenchContext } from './rig.ts';

/** Every measurement, by the name it is asked for. */
export const BENCHES: ReadonlyMap<
  string,
  { readonly about: string; readonly run: (context: BenchContext) => Promise<BenchReport>; readonly trials: number }
> = new Map([
  [
    'recovery',
    {
      about: 'a host loses power: its task runs elsewhere after ... (against Docker Swarm)',
      run: benchRecovery,
      trials: 5,
    },
  ],
  ['detect', { about: 'a host loses power: the others know after ... (against serf)', run: benchDetect, trials: 5 }],
  [
    'elect',
    { about: 'the master loses power: the next is elected after ... (against etcd)', run: benchElect, trials: 5 },
  ],
  ['commit', { about: 'latency and rate of committed writes (against etcd)', run: benchCommit, trials: 2 }],
  [
    'deploy',
    {
      about: '200 containers at once (against the engines driven directly, and Docker Swarm)',
      run: benchDeploy,
      trials: 3,
    },
  ],
  [
    'partition',
    {
      about: 'two of five hosts are cut off: seconds of a container that must run once, doubled (against Docker Swarm)',
      run: benchPartition,
      trials: 1,
    },
  ],
  ['footprint', { about: 'memory, idle CPU and traffic of a peer', run: benchFootprint, trials: 1 }],
]);

import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createHostLab } from '../scenario/hosts/host-lab.ts';
import { busyboxImage } from '../scenario/hosts/image.ts';
import type { HostLab } from '../scenario/hosts/types.ts';

export type Side = 'ours' | 'reference';

export interface BenchContext {
  readonly sides: ReadonlySet<Side>;
  readonly trials: number;
  /** A slow reference may be asked less often. */
  readonly referenceTrials: number;
  /** Null: the bench's own default. */
  readonly hosts: number | null;
  readonly dir: string;
  readonly log: (message: string) => void;
}

/** The context for the reference's side. */
export const forReference = (context: BenchContext): BenchContext => ({
  ...context,
  trials: context.referenceTrials,
});

export const DEFAULT_DIR = join(tmpdir(), 'task-org-bench');
const PREFIX = 'tobench';
const SUBNET = '10.63.0.0/24';

/** What the hosts will be called: name -> number. */
export const hostnames = (hosts: number): ReadonlyMap<string, number> =>
  new Map(Array.from({ length: hosts }, (_, index) => [`${PREFIX}-${index + 1}`, index + 1]));

/** Fresh hosts for one measurement; removed afterwards, whatever happens. With docker, the test image is loaded on each. */
export async function onHosts<T>(
  context: BenchContext,
  hosts: number,
  docker: boolean,
  work: (lab: HostLab, all: readonly number[]) => Promise<T>,
  engineArgs: readonly string[] = [],
): Promise<T> {
  const lab = createHostLab(
    { hosts, dir: join(context.dir, PREFIX), prefix: PREFIX, subnet: SUBNET, docker, engineArgs },
    { log: context.log },
  );
  const all = Array.from({ length: hosts }, (_, index) => index + 1);
  const interrupted = (): void => {
    void lab.down().finally(() => process.exit(130));
  };
  process.once('SIGINT', interrupted);
  process.once('SIGTERM', interrupted);
  try {
    await lab.up();
    if (docker) {
      const image = busyboxImage();
      await Promise.all(all.map((host) => lab.loadImage(host, image)));
    }
    return await work(lab, all);
  } finally {
    process.off('SIGINT', interrupted);
    process.off('SIGTERM', interrupted);
    await lab.down();
  }
}

/** Runs `trial` again and again; every result is logged as it comes. */
export async function repeat(
  context: BenchContext,
  what: string,
  trials: number,
  trial: (round: number) => Promise<number>,
): Promise<readonly number[]> {
  const samples: number[] = [];
  for (let round = 0; round < trials; round += 1) {
    const value = await trial(round);
    samples.push(value);
    context.log(`${what}: ${Math.round(value * 100) / 100} (${round + 1} of ${trials})`);
  }
  return samples;
}

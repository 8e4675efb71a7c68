import { createRng, type Rng } from '../model/random.ts';

// What is done to the hosts, in which order: from a seed alone, so that it can be said again. Pure.

export const KILL_KINDS = ['agent', 'boot', 'both', 'engine', 'host', 'leader'] as const;
export type KillKind = (typeof KILL_KINDS)[number];
export const PARTITION_KINDS = ['cut', 'half', 'ring', 'one-way', 'flap'] as const;
export type PartitionKind = (typeof PARTITION_KINDS)[number];

export interface Kill {
  readonly kind: KillKind;
  /** For `leader`, who it is shows only then; whoever else was to be struck there is struck on another host. */
  readonly host: number;
  /** Until what is not restarted by boot is started again. */
  readonly downMs: number;
}

export type Round =
  /** Of different hosts, at once; never so many that no majority is left. */
  | { readonly type: 'kills'; readonly kills: readonly Kill[] }
  | {
      readonly type: 'partition';
      readonly kind: PartitionKind;
      /** All hosts in random order: the first ones are cut, the minority, the ring's neighbours, who hears whom. */
      readonly order: readonly number[];
      readonly forMs: number;
      /** Flapping: how long each cut and each heal lasts. */
      readonly periodMs: number;
    }
  | { readonly type: 'freeze'; readonly host: number; readonly forMs: number };

export interface CampaignSize {
  readonly hosts: number;
  readonly kills: number;
  readonly partitions: number;
  readonly freezes: number;
}

/** Every kind comes equally often, give or take one. */
export function scheduleOf(seed: string, size: CampaignSize): readonly Round[] {
  const rng = createRng(`campaign ${seed}`);
  const hosts = Array.from({ length: size.hosts }, (_, index) => index + 1);
  const rounds: Round[] = killRounds(rng, hosts, size.kills);
  for (let i = 0; i < size.partitions; i += 1) {
    rounds.push({
      type: 'partition',
      kind: PARTITION_KINDS[i % PARTITION_KINDS.length] ?? 'cut',
      order: rng.shuffle(hosts),
      forMs: rng.int(4_000, 9_000),
      periodMs: rng.int(300, 1_500),
    });
  }
  for (let i = 0; i < size.freezes; i += 1)
    rounds.push({ type: 'freeze', host: rng.pick(hosts) ?? 1, forMs: rng.int(500, 8_000) });
  return rng.shuffle(rounds);
}

const DOWN_MS: Readonly<Record<KillKind, number>> = {
  agent: 0,
  boot: 3_000,
  both: 3_000,
  engine: 2_000,
  host: 3_000,
  leader: 3_000,
};

function killRounds(rng: Rng, hosts: readonly number[], count: number): Round[] {
  const kinds = rng.shuffle(Array.from({ length: count }, (_, i) => KILL_KINDS[i % KILL_KINDS.length] ?? 'agent'));
  const most = Math.max(1, Math.floor((hosts.length - 1) / 2));
  const rounds: Round[] = [];
  for (let at = 0; at < kinds.length; ) {
    const picked = kinds.slice(at, at + (rng.int(1, 4) === 1 ? 1 : most));
    // There is one leader at a time.
    const group = picked.filter((kind, i) => kind !== 'leader' || picked.indexOf(kind) === i);
    at += picked.length;
    kinds.push(...picked.slice(group.length).map(() => 'leader' as const));
    const struck = rng.shuffle(hosts);
    const kills = group.map(
      (kind, i): Kill => ({ kind, host: struck[i] ?? 1, downMs: rng.int(Math.min(200, DOWN_MS[kind]), DOWN_MS[kind]) }),
    );
    rounds.push({ type: 'kills', kills });
  }
  return rounds;
}

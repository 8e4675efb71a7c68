import { cpSync, mkdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import type { Fleet } from '../scenario/fleet.ts';
import { fleetOnHosts } from '../scenario/host-peer.ts';
import { createHostLab } from '../scenario/hosts/host-lab.ts';
import { BUSYBOX_IMAGE, busyboxImage } from '../scenario/hosts/image.ts';
import type { HostLab } from '../scenario/hosts/types.ts';
import type { TaskDocument } from '../scenario/types.ts';
import { until } from '../scenario/until.ts';
import { Accepted } from './accepted.ts';
import { type CopyLife, closestHandover, endOf, overlapsOf, recoveriesOf, type Strike } from './overlap.ts';
import { type CampaignReport, campaignHeld } from './report.ts';
import { type CampaignSize, KILL_KINDS, PARTITION_KINDS, type Round, scheduleOf } from './schedule.ts';
import { Striker } from './striker.ts';
import { TICK_MS, TickFiles, tickCommand, uptimeMs } from './witness.ts';

export interface CampaignOptions extends CampaignSize {
  readonly seed: string;
  /** Disks, logs and ticks; removed at the end unless `keep`. */
  readonly dir: string;
  readonly keep: boolean;
  /** False: leases are not enforced, to show that the witness sees what then happens. */
  readonly enforced: boolean;
  readonly prefix: string;
  readonly subnet: string;
  readonly log: (message: string) => void;
}

const WHOLE_TIMEOUT_MS = 180_000;
/** A copy whose last tick is older does not live. */
const FRESH_MS = 1_000;
const UNENFORCED = 'TASKORG_UNSAFE_NO_ENFORCEMENT';

/** Exclusive containers, exclusive processes, available containers. */
const STANDING = { containers: 5, processes: 2, available: 3 };

/** Runs a campaign on hosts of its own. Throws only when the hosts or the cluster cannot be made. */
export async function runCampaign(options: CampaignOptions): Promise<CampaignReport> {
  const campaign = new Campaign(options);
  // The figures so far are worth having: a second signal ends it at once.
  const interrupted = (signal: NodeJS.Signals): void => campaign.interrupt(signal);
  process.once('SIGINT', interrupted);
  process.once('SIGTERM', interrupted);
  const before = process.env[UNENFORCED];
  if (!options.enforced) process.env[UNENFORCED] = '1'; // the peers inherit it
  try {
    return await campaign.play();
  } finally {
    if (before === undefined) delete process.env[UNENFORCED];
    process.off('SIGINT', interrupted);
    process.off('SIGTERM', interrupted);
    await campaign.close();
  }
}

class Campaign {
  readonly #options: CampaignOptions;
  readonly #lab: HostLab;
  readonly #fleet: Fleet;
  readonly #ticks: TickFiles;
  readonly #accepted: Accepted;
  readonly #striker: Striker;
  readonly #exclusive = new Set<string>();
  readonly #strikes: Strike[] = [];
  readonly #startedAt = performance.now();
  readonly #interrupted = Promise.withResolvers<never>();
  #round = 0;

  constructor(options: CampaignOptions) {
    this.#options = options;
    const { prefix, hosts } = options;
    this.#interrupted.promise.catch(() => {}); // nobody may be waiting for a round just then
    rmSync(join(options.dir, 'witness'), { recursive: true, force: true });
    mkdirSync(options.dir, { recursive: true });
    const names = Array.from({ length: hosts }, (_, i) => [`${prefix}-${i + 1}`, i + 1] as const);
    this.#ticks = new TickFiles(options.dir, new Map(names));
    this.#lab = createHostLab(
      {
        hosts,
        dir: join(options.dir, prefix),
        prefix,
        subnet: options.subnet,
        docker: true,
        engineArgs: this.#ticks.engineArgs,
      },
      { log: options.log },
    );
    this.#fleet = fleetOnHosts(this.#lab);
    this.#accepted = new Accepted(this.#fleet, hosts, (name, exclusive) => this.#document(name, exclusive, 'docker'));
    this.#striker = new Striker({
      lab: this.#lab,
      fleet: this.#fleet,
      writeBurst: () => this.#accepted.burst(this.#round),
    });
  }

  async play(): Promise<CampaignReport> {
    const { seed, log } = this.#options;
    await Promise.race([this.#prepare(), this.#interrupted.promise]);
    const done: Round[] = [];
    let failure: string | undefined;
    for (const round of scheduleOf(seed, this.#options)) {
      this.#round += 1;
      try {
        await Promise.race([this.#play(round), this.#interrupted.promise]);
        done.push(round);
      } catch (error) {
        failure = `round ${this.#round}, ${JSON.stringify(round)}: ${error instanceof Error ? error.message : String(error)}`;
        log(failure);
        break;
      }
    }
    const report = this.#report(done, failure);
    if (!campaignHeld(report)) this.#keepEvidence(seed);
    return report;
  }

  async #prepare(): Promise<void> {
    const { hosts, seed } = this.#options;
    await this.#lab.up();
    const image = busyboxImage();
    await Promise.all(this.#hosts().map((host) => this.#lab.loadImage(host, image)));
    await this.#fleet.form({ peers: hosts, joining: 0, witnesses: 0, runtime: 'docker', seed });
    await this.#submitStanding();
    await this.#whole();
  }

  /** The peers' and engines' logs and every tick, for a look at what went wrong. */
  #keepEvidence(seed: string): void {
    const place = join(this.#options.dir, `failed-${seed.replaceAll(/[^A-Za-z0-9]/g, '-')}`);
    rmSync(place, { recursive: true, force: true });
    for (const host of this.#hosts())
      cpSync(this.#lab.paths(host).log, join(place, `host-${host}`), { recursive: true });
    cpSync(this.#ticks.root, join(place, 'witness'), { recursive: true });
    this.#options.log(`logs and ticks are kept in ${place}`);
  }

  /** Ends it after the rounds that are done, with their figures. */
  interrupt(signal: NodeJS.Signals): void {
    this.#interrupted.reject(new Error(`interrupted by ${signal}`));
  }

  async close(): Promise<void> {
    this.#fleet.close();
    if (this.#options.keep) return;
    await this.#lab.down();
    this.#ticks.remove();
  }

  async #play(round: Round): Promise<void> {
    const begun = this.#strikes.length;
    this.#accepted.begin(this.#round);
    const struck = await this.#striker.carryOut(round);
    for (const strike of struck.strikes) this.#strikes.push({ ...strike, untilMs: Number.POSITIVE_INFINITY });
    const undoneAt = uptimeMs();
    await this.#accepted.answered();
    await this.#whole();
    await this.#accepted.checkWrites();
    await this.#accepted.removeOld(this.#round);
    const now = uptimeMs();
    for (let i = begun; i < this.#strikes.length; i += 1) {
      const strike = this.#strikes[i];
      if (strike) this.#strikes[i] = { ...strike, untilMs: now };
    }
    const overlaps = this.#overlaps(this.#ticks.lives());
    this.#options.log(
      `${(performance.now() - this.#startedAt).toFixed(0).padStart(8)} ms  round ${this.#round}: ${struck.text}; whole ${now - undoneAt} ms after; overlaps ${overlaps.filter((one) => !one.afterThaw).length}`,
    );
  }

  async #submitStanding(): Promise<void> {
    const { containers, processes, available } = STANDING;
    const documents = [
      ...names('one', containers).map((name) => this.#document(name, true, 'docker')),
      ...names('process', processes).map((name) => this.#document(name, true, 'process')),
      ...names('any', available).map((name) => this.#document(name, false, 'docker')),
    ];
    for (const document of documents) await this.#accepted.submit(document, 0);
  }

  #document(name: string, exclusive: boolean, runtime: 'docker' | 'process'): TaskDocument {
    if (exclusive) this.#exclusive.add(name);
    const common = { name, onPartition: exclusive ? 'stop' : 'keep', stopSignal: 'SIGKILL' };
    if (runtime === 'process') return { ...common, runtime, command: tickCommand({ root: this.#ticks.root }, name) };
    return { ...common, runtime, image: BUSYBOX_IMAGE, command: tickCommand('container', name) };
  }

  /** Everybody sees everybody and one master, and every accepted task is known to all, runs, and ticks. */
  async #whole(): Promise<void> {
    let why = '';
    const { hosts } = this.#options;
    const ask = async (): Promise<boolean> => {
      why = (await this.#notWhole()) ?? '';
      return why === '';
    };
    try {
      await until('the cluster is whole', WHOLE_TIMEOUT_MS, ask, 200);
    } catch (error) {
      const missing = await this.#accepted.missing().catch(() => undefined);
      if (missing !== undefined) this.#accepted.lost.add(missing);
      throw new Error(`not whole (${hosts} hosts): ${why} ${error instanceof Error ? error.message : ''}`);
    }
  }

  async #notWhole(): Promise<string | undefined> {
    for (const host of this.#hosts()) {
      const nodes = (await this.#fleet.client(host).nodes(3_000)).items;
      const alive = nodes.filter((node) => node.status === 'alive').length;
      if (alive < this.#options.hosts) return `node${host} sees ${alive} alive`;
      if (!nodes.some((node) => node.role === 'master')) return `node${host} sees no master`;
    }
    const missing = await this.#accepted.missing();
    if (missing !== undefined) return missing;
    const lives = this.#ticks.lives();
    const now = uptimeMs();
    const silent = this.#accepted.names.find(
      (name) => !lives.some((life) => life.task === name && now - endOf(life) < FRESH_MS),
    );
    return silent === undefined ? undefined : `${silent} runs, it is said, but does not tick`;
  }

  #overlaps(lives: readonly CopyLife[]) {
    return overlapsOf(
      lives.filter((life) => this.#exclusive.has(life.task)),
      this.#striker.freezes,
    );
  }

  #report(done: readonly Round[], failure: string | undefined): CampaignReport {
    const { seed, hosts, enforced } = this.#options;
    const lives = this.#ticks.lives({ everything: true });
    const exclusive = lives.filter((life) => this.#exclusive.has(life.task));
    const available = lives.filter((life) => !this.#exclusive.has(life.task));
    const overlaps = this.#overlaps(lives);
    const kills = done.flatMap((round) => (round.type === 'kills' ? round.kills : []));
    const partitions = done.flatMap((round) => (round.type === 'partition' ? [round.kind] : []));
    const count = <K extends string>(kinds: readonly K[], seen: readonly K[]): Record<K, number> =>
      Object.fromEntries(kinds.map((kind) => [kind, seen.filter((one) => one === kind).length])) as Record<K, number>;
    const times = (of: readonly CopyLife[]): readonly number[] =>
      recoveriesOf(of, this.#strikes).map((one) => one.elapsedMs);
    return {
      seed,
      hosts,
      enforced,
      elapsedMs: performance.now() - this.#startedAt,
      kills: count(
        KILL_KINDS,
        kills.map((kill) => kill.kind),
      ),
      partitions: count(PARTITION_KINDS, partitions),
      freezes: done.filter((round) => round.type === 'freeze').length,
      copies: exclusive.length,
      ticks: { everyMs: TICK_MS },
      overlaps: overlaps.filter((one) => !one.afterThaw),
      afterThaw: overlaps.filter((one) => one.afterThaw),
      closestHandoverMs: closestHandover(exclusive, this.#striker.freezes),
      tasksAccepted: this.#accepted.tasksAccepted,
      tasksUnanswered: this.#accepted.tasksUnanswered,
      writesAcknowledged: this.#accepted.writesAcknowledged,
      lost: [...this.#accepted.lost],
      exclusiveMs: times(exclusive),
      availableMs: times(available),
      failure,
    };
  }

  #hosts(): readonly number[] {
    return Array.from({ length: this.#options.hosts }, (_, index) => index + 1);
  }
}

const names = (prefix: string, count: number): readonly string[] =>
  Array.from({ length: count }, (_, index) => `${prefix}-${index + 1}`);

import { TaskOrgError } from '../model/errors.ts';
import { createRng, type Rng } from '../model/random.ts';
import {
  durationMs,
  type FaultDocument,
  type LoadDocument,
  loadNames,
  type ScenarioDocument,
  targetsOf,
  UNDO,
} from './schema.ts';
import type {
  FaultAction,
  ScenarioStage,
  StageEvent,
  StageFault,
  TaskDocument,
  TaskStatus,
  Topology,
} from './types.ts';
import { type DoneFault, type Evidence, isSettled, judge, type TimesMode, type Verdict } from './verdict.ts';

export interface ScenarioResult {
  readonly scenario: string;
  readonly stage: string;
  readonly seed: string;
  readonly verdict: Verdict;
  readonly events: readonly StageEvent[];
  readonly startedAtMs: number;
}

/** How long a state that must come about is waited for where the scenario says nothing. */
const SETTLE_TIMEOUT_MS = 60_000;
/** Watched on after everything runs, when the scenario says nothing: late doubles and needless moves show here. */
const WATCH_MS = 3_000;

interface Step {
  readonly atMs: number;
  readonly order: number;
  readonly run: () => Promise<void>;
}

/**
 * Plays a scenario on a stage and judges it. The stage is stopped in the end, whatever happens. Throws TaskOrgError when
 * the stage cannot do what the scenario asks, before anything is started.
 */
export async function runScenario(
  scenario: ScenarioDocument,
  stage: ScenarioStage,
  options: { readonly seed?: string; readonly times?: TimesMode } = {},
): Promise<ScenarioResult> {
  const unable = [...new Set(scenario.faults.flatMap(actionsOf))].filter((action) => !stage.supports.has(action));
  if (unable.length > 0)
    throw new TaskOrgError(
      'refused',
      `${scenario.name} needs ${unable.join(', ')}, which the stage '${stage.kind}' cannot do`,
      { hint: 'choose another with --stage: hosts can do everything, as root' },
    );
  try {
    return await new Run(scenario, stage, options.seed ?? scenario.seed ?? '1', options.times ?? 'judged').play();
  } finally {
    await stage.stop();
  }
}

function actionsOf(fault: FaultDocument): FaultAction[] {
  const action: FaultAction = fault.do === 'kill-master' ? 'kill' : fault.do;
  const undo = fault.undoAfter === undefined ? undefined : UNDO[fault.do];
  return undo === undefined ? [action] : [action, undo];
}

class Run {
  readonly #scenario: ScenarioDocument;
  readonly #stage: ScenarioStage;
  readonly #seed: string;
  readonly #times: TimesMode;
  readonly #random: Rng;
  readonly #steps: Step[] = [];
  readonly #accepted = new Map<string, number>();
  readonly #refused: string[] = [];
  readonly #submissions: Promise<void>[] = [];
  readonly #faults: DoneFault[] = [];
  readonly #up: Set<number>;
  readonly #down = new Set<number>();
  #pending = 0;
  #order = 0;
  #turn = 0;
  #before: readonly TaskStatus[] = [];

  constructor(scenario: ScenarioDocument, stage: ScenarioStage, seed: string, times: TimesMode) {
    this.#scenario = scenario;
    this.#stage = stage;
    this.#seed = seed;
    this.#times = times;
    this.#random = createRng(seed);
    this.#up = new Set(Array.from({ length: scenario.topology.peers }, (_, index) => index + 1));
  }

  async play(): Promise<ScenarioResult> {
    const { peers, joining = 0, witnesses = 0, runtime } = this.#scenario.topology;
    const topology: Topology = { peers, joining, witnesses, runtime, seed: this.#seed };
    await this.#stage.start(topology);
    const startedAtMs = this.#stage.now();
    for (const load of this.#scenario.load) this.#planLoad(load, startedAtMs);
    for (const fault of this.#scenario.faults)
      this.#planFault(fault, startedAtMs + durationMs(fault.at), fault.repeat ?? 1);
    for (let step = this.#nextStep(); step; step = this.#nextStep()) {
      await this.#stage.waitUntil(step.atMs);
      await step.run();
    }
    const verdict = await this.#conclude();
    return {
      scenario: this.#scenario.name,
      stage: this.#stage.kind,
      seed: this.#seed,
      verdict,
      events: this.#stage.events(),
      startedAtMs,
    };
  }

  #plan(atMs: number, run: () => Promise<void>): void {
    this.#steps.push({ atMs, order: this.#order++, run });
  }

  #nextStep(): Step | undefined {
    this.#steps.sort((a, b) => a.atMs - b.atMs || a.order - b.order);
    return this.#steps.shift();
  }

  #planLoad(load: LoadDocument, startMs: number): void {
    const gapMs = load.perSecond === undefined ? 0 : 1000 / load.perSecond;
    loadNames(load).forEach((name, index) => {
      const document: TaskDocument = { ...load.run, name };
      this.#plan(startMs + durationMs(load.at) + index * gapMs, async () => {
        const submission = this.#submit(document);
        // without a rate, one after the other; with one, however long the answers take
        if (load.perSecond === undefined) await submission;
        else this.#submissions.push(submission);
      });
    });
  }

  async #submit(document: TaskDocument): Promise<void> {
    this.#pending += 1;
    try {
      await this.#stage.submit(document);
      this.#accepted.set(document.name, typeof document.replicas === 'number' ? document.replicas : 1);
    } catch (error) {
      this.#refused.push(`${document.name} (${error instanceof Error ? error.message : String(error)})`);
    } finally {
      this.#pending -= 1;
    }
  }

  #planFault(fault: FaultDocument, atMs: number, rounds: number): void {
    this.#plan(atMs, async () => {
      if (fault.whenSettled) await this.#settleOrThrow(`before ${fault.do}`);
      if (this.#faults.length === 0) await this.#noteBefore();
      const stageFault = await this.#resolve(fault);
      const doneMs = await this.#inject(stageFault);
      const undo = fault.undoAfter === undefined ? undefined : UNDO[fault.do];
      const next = (): void => {
        if (rounds > 1) this.#planFault(fault, this.#stage.now() + durationMs(fault.every ?? 0), rounds - 1);
      };
      if (undo === undefined) return next();
      this.#plan(doneMs + durationMs(fault.undoAfter ?? 0), async () => {
        await this.#inject({ do: undo, nodes: stageFault.do === 'partition' ? [] : stageFault.nodes });
        next();
      });
    });
  }

  /** What must not change: as the peers say it once their word has caught up with what is witnessed. */
  async #noteBefore(): Promise<void> {
    if (!this.#scenario.expectations.unchanged) return;
    await this.#stage.settle(async () => {
      this.#before = await this.#stage.tasks();
      const slots = this.#before.flatMap((task) => task.slots);
      return slots.every((slot) => slot.state === 'running' && slot.startedAtMs !== null);
    }, SETTLE_TIMEOUT_MS);
  }

  async #inject(fault: StageFault): Promise<number> {
    const atMs = await this.#stage.inject(fault);
    const nodes = fault.do === 'partition' ? outsideLargest(fault.groups, [...this.#up]) : fault.nodes;
    this.#faults.push({ atMs, do: fault.do, nodes });
    for (const node of nodes) {
      if (fault.do === 'kill') {
        this.#up.delete(node);
        this.#down.add(node);
      } else if (fault.do === 'start' || fault.do === 'join') {
        this.#down.delete(node);
        this.#up.add(node);
      }
    }
    return atMs;
  }

  async #resolve(fault: FaultDocument): Promise<StageFault> {
    if (fault.do === 'partition') return { do: 'partition', groups: fault.groups ?? [] };
    const nodes: number[] = [];
    for (const target of targetsOf(fault)) nodes.push(...(await this.#nodesOf(target, nodes)));
    return { do: fault.do === 'kill-master' ? 'kill' : fault.do, nodes: [...new Set(nodes)] };
  }

  async #nodesOf(target: number | string, taken: readonly number[]): Promise<readonly number[]> {
    if (typeof target === 'number') return [target];
    if (target === 'all') return [...this.#up];
    if (target === 'down') return [...this.#down];
    if (target === 'next') return [(this.#turn++ % this.#scenario.topology.peers) + 1];
    if (target === 'master') {
      let master: number | undefined;
      await this.#stage.settle(async () => {
        master = await this.#stage.master();
        return master !== undefined;
      }, SETTLE_TIMEOUT_MS);
      if (master === undefined)
        throw new TaskOrgError('no_master', `${this.#scenario.name}: there is no master to do anything to`);
      return [master];
    }
    if (target.startsWith('holder:')) {
      const task = target.slice('holder:'.length);
      const holder = this.#stage.runs().find((run) => run.task === task && run.slot === 0 && run.endedAtMs === null);
      if (!holder)
        throw new TaskOrgError(
          'not_found',
          `${this.#scenario.name}: no copy of ${task} is witnessed anywhere; say whenSettled for the fault`,
        );
      return [holder.node];
    }
    const choices = [...this.#up].filter((node) => !taken.includes(node)).sort((a, b) => a - b);
    const choice = this.#random.pick(choices);
    return choice === undefined ? [] : [choice];
  }

  #holds(): boolean {
    return this.#pending === 0 && isSettled(this.#accepted, this.#stage.runs());
  }

  async #settleOrThrow(when: string): Promise<void> {
    const at = await this.#stage.settle(() => this.#holds(), SETTLE_TIMEOUT_MS);
    if (at === undefined)
      throw new TaskOrgError(
        'timeout',
        `${this.#scenario.name}: ${when}, not everything ran within ${SETTLE_TIMEOUT_MS / 1000} s: ${await this.#describe()}`,
      );
  }

  /** What people need to know when a run does not get on. */
  async #describe(): Promise<string> {
    try {
      const tasks = await this.#stage.tasks();
      return (
        tasks
          .map((task) => `${task.name} ${task.slots.map((slot) => `${slot.state}@${slot.node ?? '-'}`).join(',')}`)
          .join('; ') || 'no tasks'
      );
    } catch (error) {
      return error instanceof Error ? error.message : String(error);
    }
  }

  async #conclude(): Promise<Verdict> {
    const { expectations, watch } = this.#scenario;
    const lastMs = this.#faults.at(-1)?.atMs ?? this.#stage.now();
    const settledAt = await this.#stage.settle(
      () => this.#holds(),
      Math.max(SETTLE_TIMEOUT_MS, durationMs(expectations.settledWithinMs ?? 0)),
    );
    // Without a fault, what must not change is what ran when everything ran.
    if (this.#faults.length === 0) await this.#noteBefore();
    await this.#stage.waitUntil(this.#stage.now() + (watch === undefined ? WATCH_MS : durationMs(watch)));
    await Promise.all(this.#submissions);
    const alive = async (): Promise<number> =>
      (await this.#stage.nodes()).filter((node) => node.status === 'alive').length;
    const wanted = expectations.peersAlive;
    if (wanted !== undefined) await this.#stage.settle(async () => (await alive()) === wanted, SETTLE_TIMEOUT_MS);
    const evidence: Evidence = {
      accepted: this.#accepted,
      refused: this.#refused,
      runs: this.#stage.runs(),
      faults: this.#faults,
      settledMs: settledAt === undefined ? null : settledAt - lastMs,
      before: this.#before,
      after: expectations.unchanged ? await this.#stage.tasks() : [],
      peersAlive: wanted === undefined ? 0 : await alive(),
    };
    return judge(expectations, evidence, this.#times);
  }
}

/** Machines that a partition separates from its largest group. */
function outsideLargest(groups: readonly (readonly number[])[], all: readonly number[]): readonly number[] {
  const largest = groups.reduce((best, group) => (group.length > best.length ? group : best), [] as readonly number[]);
  return all.filter((node) => !largest.includes(node));
}

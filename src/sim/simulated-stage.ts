import type { DesiredCopy } from '../core/reconcile/types.ts';
import { formatGeneration } from '../model/generation.ts';
import { taskId } from '../model/ids.ts';
import { parseTaskDocument } from '../model/task-document.ts';
import type {
  CopyRun,
  NodeStatus,
  ScenarioStage,
  StageEvent,
  StageFactory,
  StageFault,
  TaskDocument,
  TaskStatus,
  Topology,
} from '../scenario/types.ts';
import { formCluster, makeWorld } from './campaign.ts';
import { admit } from './faults.ts';
import type { Machine } from './machine.ts';
import type { World } from './world.ts';

// Scenarios on virtual time: the same files, the same verdicts, in milliseconds of the simulator.

/** How far virtual time moves between two looks of `settle`. */
const LOOK_MS = 10;
const AGENT_RESTART_MS = 400;

type OpenRun = { -readonly [K in Exclude<keyof CopyRun, 'spans'>]: CopyRun[K] } & {
  readonly spans: { fromMs: number; toMs: number }[];
};

class SimulatedStage implements ScenarioStage {
  readonly kind = 'simulated' as const;
  readonly supports: ScenarioStage['supports'] = new Set([
    'kill',
    'kill-agent',
    'start',
    'cut',
    'heal',
    'partition',
    'join',
    'engine-kill',
    'engine-start',
  ]);
  #world: World | undefined;
  readonly #runs: OpenRun[] = [];
  readonly #events: StageEvent[] = [];

  get world(): World {
    if (!this.#world) throw new Error('the stage is not started');
    return this.#world;
  }
  #machine(node: number): Machine {
    const machine = this.world.machines[node - 1];
    if (!machine) throw new Error(`no node ${node}`);
    return machine;
  }

  async start(topology: Topology): Promise<void> {
    const world = makeWorld(topology.seed, topology.peers, { witness: topology.witnesses > 0 });
    this.#world = world;
    world.faultsOn = false;
    world.observers.add({
      onCopyRuns: (machine, copy, at) => this.#began(machine, copy, at),
      onCopyGone: (machine, copy, at) => this.#ended(machine, copy, at),
      onNotice: (machine, notice, at) => {
        if (notice.type === 'role' && notice.role === 'leader')
          this.#say(at, `node${machine.index + 1} is master of term ${notice.term}`);
        if (notice.type === 'member' && notice.change.to === 'dead')
          this.#say(
            at,
            `node${machine.index + 1} holds node${this.world.machine(notice.change.id).index + 1} dead (${notice.change.evidence.join('; ')})`,
          );
      },
    });
    formCluster(world);
  }

  #say(atMs: number, text: string): void {
    this.#events.push({ atMs, text });
  }
  #key(machine: Machine, copy: DesiredCopy): (run: OpenRun) => boolean {
    const generation = formatGeneration(copy.generation);
    return (r) =>
      r.node === machine.index + 1 &&
      r.task === copy.spec.name &&
      r.slot === copy.slot &&
      r.generation === generation &&
      r.endedAtMs === null;
  }
  #began(machine: Machine, copy: DesiredCopy, at: number): void {
    this.#runs.push({
      task: copy.spec.name,
      slot: copy.slot,
      generation: formatGeneration(copy.generation),
      node: machine.index + 1,
      copy: `sim:${this.#runs.length + 1}`,
      spans: [{ fromMs: at, toMs: at }],
      endedAtMs: null,
    });
    this.#say(
      at,
      `${copy.spec.name} runs on node${machine.index + 1}, generation ${formatGeneration(copy.generation)}`,
    );
  }
  #ended(machine: Machine, copy: DesiredCopy, at: number): void {
    const run = this.#runs.find(this.#key(machine, copy));
    if (!run) return;
    run.endedAtMs = at;
    const span = run.spans.at(-1);
    if (span) span.toMs = at;
  }

  now(): number {
    return this.world.now;
  }
  async waitUntil(atMs: number): Promise<void> {
    this.world.run(Math.max(atMs, this.world.now));
  }

  async submit(document: TaskDocument): Promise<void> {
    const parsed = parseTaskDocument({
      runtime: 'process',
      ...(document.image === undefined && document.command === undefined ? { command: ['witness'] } : {}),
      ...document,
    });
    if (!parsed.ok) throw new Error(parsed.issues.map((i) => `${i.path}: ${i.message}`).join('; '));
    const spec = { ...parsed.spec, runtime: 'process' as const };
    const id = taskId(`t-${spec.name}`);
    const known = (): boolean => this.world.machines.some((m) => m.peer?.state().tasks.has(id));
    const at = this.world.machines.find((m) => m.up);
    if (!at) throw new Error('no machine is up');
    this.world.submit(at, spec, id);
    if (!this.world.run(this.world.now + 30_000, known)) throw new Error(`${spec.name} was not accepted within 30 s`);
  }

  /** The peer that knows most stands for 'a live peer'. */
  #witness(): Machine | undefined {
    return (
      this.world.leader() ??
      this.world.machines
        .filter((m) => m.up)
        .sort((a, b) => (b.peer?.state().applied ?? 0) - (a.peer?.state().applied ?? 0))[0]
    );
  }

  async tasks(): Promise<readonly TaskStatus[]> {
    const peer = this.#witness()?.peer;
    if (!peer) return [];
    return [...peer.state().tasks.values()].map((task) => {
      const slots = task.slots.map((slot) => {
        const node = slot.state.kind === 'pending' ? undefined : this.world.machine(slot.state.node);
        const runs = node?.copies.size
          ? [...node.copies.values()].some(
              (c) =>
                c.desired.taskId === task.id &&
                c.desired.slot === slot.slot &&
                c.desired.generation.g === slot.generation.g,
            )
          : false;
        const state =
          slot.state.kind === 'assigned' ? (runs && node?.powered ? 'running' : 'starting') : slot.state.kind;
        return {
          slot: slot.slot,
          node: node ? node.index + 1 : null,
          state,
          generation: formatGeneration(slot.generation),
          startedAtMs:
            this.#runs.findLast((r) => r.task === task.spec.name && r.slot === slot.slot)?.spans[0]?.fromMs ?? null,
        };
      });
      return {
        name: task.spec.name,
        state: slots.every((s) => s.state === 'running')
          ? 'running'
          : (slots.find((s) => s.state !== 'running')?.state ?? 'pending'),
        slots,
      };
    });
  }
  async nodes(): Promise<readonly NodeStatus[]> {
    const peer = this.#witness()?.peer;
    if (!peer) return [];
    const voters = peer.consensus().membership.voters;
    return this.world.machines.map((m) => ({
      node: m.index + 1,
      status: m.id === peer.self ? 'alive' : (peer.members().get(m.id)?.status ?? 'unknown'),
      role: peer.leader() === m.id ? 'master' : voters.includes(m.id) ? 'voter' : 'learner',
    }));
  }
  async master(): Promise<number | undefined> {
    const leader = this.world.leader();
    return leader && leader.index + 1;
  }

  async inject(fault: StageFault): Promise<number> {
    const world = this.world;
    const at = world.now;
    const machines =
      'nodes' in fault ? fault.nodes.map((n) => (fault.do === 'join' ? undefined : this.#machine(n))) : [];
    this.#say(
      at,
      `fault: ${fault.do} ${'nodes' in fault ? fault.nodes.map((n) => `node${n}`).join(' ') : JSON.stringify(fault.groups)}`,
    );
    for (const m of machines) {
      if (!m) continue;
      if (fault.do === 'kill') m.powerOff();
      else if (fault.do === 'kill-agent') m.killAgent(AGENT_RESTART_MS);
      else if (fault.do === 'start') m.powerOn();
      else if (fault.do === 'engine-kill') m.engineKill();
      else if (fault.do === 'engine-start') m.engineStart();
    }
    if (fault.do === 'cut') {
      const alone = new Set(machines);
      world.network.partition([
        world.machines.filter((m) => !alone.has(m)),
        ...machines.filter((m) => m !== undefined).map((m) => [m]),
      ]);
    } else if (fault.do === 'partition')
      world.network.partition(fault.groups.map((g) => g.map((n) => this.#machine(n))));
    else if (fault.do === 'heal') world.network.heal();
    else if (fault.do === 'join') this.#join(fault.nodes.length);
    return at;
  }

  #join(count: number): void {
    for (let i = 0; i < count; i++) {
      const machine = this.world.addMachine();
      machine.powerOn();
      admit(this.world, machine);
    }
  }

  runs(): readonly CopyRun[] {
    const now = this.world.now;
    return this.#runs.map((r) =>
      r.endedAtMs === null
        ? { ...r, spans: r.spans.map((s, i) => (i === r.spans.length - 1 ? { ...s, toMs: now } : s)) }
        : r,
    );
  }
  events(): readonly StageEvent[] {
    return this.#events;
  }
  async settle(holds: () => boolean | Promise<boolean>, timeoutMs: number): Promise<number | undefined> {
    const until = this.world.now + timeoutMs;
    for (;;) {
      if (await holds()) return this.world.now;
      if (this.world.now >= until) return undefined;
      this.world.run(Math.min(until, this.world.now + LOOK_MS));
    }
  }
  async stop(): Promise<void> {
    this.#world = undefined;
  }
}

export const simulatedStage: StageFactory = () => new SimulatedStage();

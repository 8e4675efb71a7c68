import type { ConsensusView } from '../../../src/core/consensus/types.ts';
import { createLeaseGranter } from '../../../src/core/lease/granter.ts';
import { DEFAULT_LEASE_CONFIG, type LeaseKey } from '../../../src/core/lease/types.ts';
import type { MasterConfig } from '../../../src/core/master/config.ts';
import { createMaster } from '../../../src/core/master/master.ts';
import type { MasterContext, MasterEffect } from '../../../src/core/master/types.ts';
import type { MemberStatus, MemberView } from '../../../src/core/membership/types.ts';
import { apply } from '../../../src/core/state/state.ts';
import type { Command } from '../../../src/model/commands.ts';
import type { CopyFact, NodeFacts } from '../../../src/model/facts.ts';
import {
  incarnation,
  type LogIndex,
  monoMs,
  type NodeId,
  type TaskId,
  taskId,
  term,
  wallMs,
} from '../../../src/model/ids.ts';
import type { Submission } from '../../../src/model/records.ts';
import type { TaskSpec } from '../../../src/model/task-spec.ts';
import { clusterState, spec } from '../lease/fixtures.ts';

export function nodeFacts(id: NodeId, patch: Partial<NodeFacts> = {}): NodeFacts {
  return {
    nodeId: id,
    incarnation: incarnation(1),
    version: 1,
    name: `node-${id}`,
    addresses: [],
    bootProbe: [],
    agentVersion: '0',
    wireVersion: 1,
    os: 'linux',
    arch: 'x64',
    runtimes: ['process'],
    problems: [],
    canFence: true,
    resources: { cpus: 4, memoryBytes: 2 ** 33, diskBytes: 2 ** 40, gpus: [], devices: [] },
    load: {
      cpuUsage: 0,
      cpuFrequencyMHz: null,
      memoryUsedBytes: 0,
      diskUsedBytes: 0,
      temperatureC: null,
      battery: null,
      fansRpm: [],
      gpus: [],
    },
    labels: {},
    priority: 0,
    witness: false,
    images: [],
    copies: [],
    ...patch,
  };
}

/** A master on real records and a real granter; the test is the log, the members and the clock. */
export function harness(nodes: readonly NodeId[], config: Partial<MasterConfig> = {}) {
  const self = nodes[0] as NodeId;
  const state = clusterState([], nodes);
  const members = new Map<NodeId, MemberView>();
  const facts = new Map<NodeId, NodeFacts>(nodes.map((id) => [id, nodeFacts(id)]));
  const pending = new Map<TaskId, Submission>();
  let leads: number | null = 1;
  const granter = createLeaseGranter(DEFAULT_LEASE_CONFIG, {
    leading: () => (leads === null ? null : term(leads)),
    pendingAssign: () => false,
  });
  const master = createMaster(config, self, {});
  const match = new Map<NodeId, LogIndex>(nodes.map((id) => [id, 0 as LogIndex]));
  let now = 100_000;
  let localHealth = 0;
  let voters: NodeId[] = [self];
  let index = state.applied as number;

  const view = (): ConsensusView => ({
    role: leads === null ? 'follower' : 'leader',
    term: term(leads ?? 9),
    leader: leads === null ? null : self,
    commit: index as LogIndex,
    applied: index as LogIndex,
    lastIndex: index as LogIndex,
    membership: { voters, outgoing: null },
    mayVote: true,
    established: leads !== null,
    match,
  });
  const context = (): MasterContext => ({
    state,
    members,
    facts,
    consensus: view(),
    granter,
    pending,
    evidenceOf: (id) => (members.get(id)?.status === 'alive' ? [] : [`no ack from ${id}`]),
    localHealth,
    wall: wallMs(now),
  });
  const h = {
    state,
    master,
    granter,
    pending,
    members,
    facts,
    match,
    get now() {
      return now;
    },
    set health(score: number) {
      localHealth = score;
    },
    set voters(ids: NodeId[]) {
      voters = ids;
    },
    contextAt: (t: number): MasterContext => ({ ...context(), wall: wallMs(t) }),
    lead(t: number | null) {
      leads = t;
      if (t === null) master.stepDown({ granter });
    },
    status(id: NodeId, status: MemberStatus, at = now) {
      members.set(id, {
        id,
        status,
        incarnation: incarnation(1),
        since: monoMs(at),
        lastHeardAt: undefined,
        accusers: [],
        connected: status === 'alive',
        hint: 'none',
      });
      master.mark({ nodes: [id] });
    },
    fact(id: NodeId, patch: Partial<NodeFacts>) {
      facts.set(id, { ...(facts.get(id) as NodeFacts), ...patch });
      master.mark({ facts: [id] });
    },
    copy(id: NodeId, slot: number, g: number, patch: Partial<CopyFact>, task = 't') {
      const key: LeaseKey = { taskId: taskId(task), slot, generation: { epoch: 0, g } };
      const copy: CopyFact = {
        ...key,
        state: 'running',
        health: 'none',
        startedAt: wallMs(1),
        exitCode: null,
        restarts: 0,
        error: '',
        handle: '',
        ports: [],
        ...patch,
      };
      h.fact(id, { copies: [copy] });
    },
    /** One evaluation at the present time; nothing is applied. */
    decide: (): MasterEffect[] => master.evaluate(context(), monoMs(now)),
    apply(commands: readonly Command[]): boolean[] {
      return commands.map((command) => {
        index++;
        const applied = apply(state, index as LogIndex, command);
        master.mark({ tasks: applied.tasks, nodes: applied.peersChanged ? state.peers.keys() : [] });
        return applied.result.ok;
      });
    },
    /** Evaluates and applies until nothing more is decided. Returns the slot commands as short words. */
    settle(): string[] {
      const said: string[] = [];
      for (let i = 0; i < 50; i++) {
        const commands = h.decide().flatMap((e) => (e.type === 'propose' ? e.commands : []));
        if (commands.length === 0) return said;
        said.push(...commands.map(words));
        h.apply(commands);
      }
      throw new Error('the master does not come to rest');
    },
    clock(t: number): void {
      now = t;
    },
    at(t: number): string[] {
      now = t;
      return h.settle();
    },
    submit(patch: Partial<TaskSpec> = {}, id = 't') {
      h.apply([submitOf(id, patch, now)]);
    },
    where: (slot = 0, id = 't'): string => {
      const s = state.tasks.get(taskId(id))?.slots[slot];
      return s === undefined ? 'none' : `${s.state.kind} ${'node' in s.state ? s.state.node : '-'} g${s.generation.g}`;
    },
  };
  for (const id of nodes) h.status(id, 'alive', 0);
  return h;
}

export const submission = (id: string, patch: Partial<TaskSpec>, now: number): Submission => ({
  id: taskId(id),
  spec: spec({ name: id, ...patch }),
  nonce: 'n',
  expiresAt: wallMs(now + 86_400_000),
  from: 'A' as NodeId,
});
export const submitOf = (id: string, patch: Partial<TaskSpec>, now: number): Command => ({
  type: 'task.submit',
  by: 'A' as NodeId,
  at: wallMs(now),
  submission: submission(id, patch, now),
});

export function words(c: Command): string {
  switch (c.type) {
    case 'slot.assign':
      return `assign ${c.taskId}.${c.slot} g${c.generation.g} ${c.node}`;
    case 'slot.close':
      return `close ${c.taskId}.${c.slot} g${c.generation.g}`;
    case 'task.submit':
      return `submit ${c.submission.id}`;
    case 'task.refuse':
      return `refuse ${c.id}`;
    default:
      return c.type;
  }
}

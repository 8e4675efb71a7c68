import { incarnation as toIncarnation, type Incarnation, type LogIndex, type MonoMs, type NodeId, type Term, type WallMs } from '../../model/ids.ts';
import type { Command } from '../../model/commands.ts';
import { createRng } from '../../model/random.ts';
import type { Submission } from '../../model/records.ts';
import { createConsensus } from '../consensus/consensus.ts';
import type { ConsensusEffect, ConsensusEvent, ConsensusRestore, ConsensusView, LogEntry } from '../consensus/types.ts';
import type { LeaseKey, LeaseMessage } from '../lease/types.ts';
import { createMembership } from '../membership/membership.ts';
import type { MembershipEffect, MembershipEvent, MemberView } from '../membership/types.ts';
import { applyEntry, createState, restoreState } from '../state/state.ts';
import type { Applied, ClusterState, StatePut } from '../state/types.ts';
import { createFactsDesk } from './facts-desk.ts';
import { control, later, type Hub } from './hub.ts';
import { createOffice, type OfficeEffect } from './office.ts';
import { createProposals } from './proposals.ts';
import { createReads } from './reads.ts';
import { clientFailure, createRequests } from './requests.ts';
import { createSubmissions } from './submissions.ts';
import { createTopology, type KnownPeer } from './topology.ts';
import type { CommittedEntries, GossipMessage, PeerConfig, PeerEffect, PeerEvent } from './types.ts';
import { createWorkshop, type WorkshopEffect } from './workshop.ts';

// One whole peer. Each part is a core or a desk of its own; this file says who hears of what. Departs from no paper: it has
// no protocol of its own.

export interface PeerOptions {
  readonly self: NodeId;
  readonly config: PeerConfig;
  readonly seed: string;
  readonly incarnation: Incarnation;
  readonly consensus: ConsensusRestore;
  readonly state: readonly StatePut[];
  readonly pending: readonly Submission[];
  /** Peers named at admission or remembered from the last run. */
  readonly seeds: readonly KnownPeer[];
  /** Deadlines of exclusive copies that boot kept over a restart of the agent. */
  readonly adoptedLeases: readonly { readonly key: LeaseKey; readonly deadline: MonoMs }[];
  /** Bully rank: configured priority, then capability; ties by PeerId. */
  readonly rank: number;
}

/** Entries sent on the log topic in one message; above this only the commit index goes out and learners fetch. */
const LOG_TOPIC_BYTES = 48 * 1024;
/** A fresh assignee that is no voter is sent the log directly for this long. */
const DIRECT_MS = 30_000;
const FETCH_FROM = 3;

export type Peer = ReturnType<typeof createPeer>;

export function createPeer(options: PeerOptions, startedAt: MonoMs) {
  const { self, config } = options;
  const rng = createRng(`${options.seed}/peer`);
  let now = startedAt;
  let wall = 0 as WallMs;
  let out: PeerEffect[] = [];
  let leader: NodeId | null = null;
  let started = false;
  const direct = new Map<NodeId, MonoMs>();

  const membership = createMembership({ self, incarnation: options.incarnation, config: config.membership, seed: `${options.seed}/membership` });
  const consensus = createConsensus({ self, config: config.consensus, seed: `${options.seed}/consensus`, restore: options.consensus, rank: options.rank }, startedAt);
  let state: ClusterState = options.state.length > 0 ? restoreState(options.state, options.consensus.applied) : createState();
  state.applied = options.consensus.applied;
  const topology = createTopology(self, options.seeds);
  const hub: Hub = {
    self, config,
    now: () => now,
    wall: () => wall,
    state: () => state,
    leader: () => leader,
    peerCount: () => topology.ids().length,
    consensus: () => consensus.view(),
    emit: (effect) => void out.push(effect),
    consense,
  };
  const requests = createRequests();
  const office = createOffice(self, config, () => (consensus.view().role === 'leader' ? consensus.view().term : null));
  const workshop = createWorkshop({ self, config, seed: `${options.seed}/workshop`, incarnation: options.incarnation, adopted: options.adoptedLeases });
  const facts = createFactsDesk(hub, options.incarnation, { allowed: topology.allowed, copies: workshop.facts });
  const proposals = createProposals(hub, requests, office);
  const submissions = createSubmissions(hub, options.pending, requests, office);
  const reads = createReads(hub, requests, {
    lease: (id, ok) => officeDo(office.onReadReady(id, ok, now, state)),
    current: () => workshopDo(workshop.setCurrent(state, now, wall)),
  });

  // ---- consensus -------------------------------------------------------------------------------------------------------

  function consense(event: ConsensusEvent): void {
    for (const effect of consensus.step(event, now)) onConsensus(effect);
  }

  function onConsensus(effect: ConsensusEffect): void {
    switch (effect.type) {
      case 'persist':
        return hub.emit({ type: 'persist', persistId: effect.persistId, ops: effect.ops });
      case 'send':
        return hub.emit({ type: 'send', to: effect.to, afterPersist: effect.afterPersist, channel: 'raft', message: effect.message });
      case 'committed':
        return applyEntries(effect.entries);
      case 'proposal':
        return proposals.onProposal(effect);
      case 'role':
        return onRole(effect);
      case 'membership':
        hub.emit({ type: 'notify', notice: { type: 'voters', membership: effect.membership, committed: effect.committed } });
        tellMembership();
        tellLearners();
        emitPeers();
        return office.mark({ all: true });
      case 'read-ready':
        return reads.ready(effect.id, effect.ok, effect.index);
      case 'install-snapshot':
        return hub.emit({ type: 'fetch-snapshot', from: effect.from, index: effect.index, term: effect.term, membership: effect.membership });
      case 'fetch-entries': {
        const connected = topology.ids().filter((id) => membership.view(id)?.connected === true);
        return hub.emit({ type: 'fetch-entries', from: effect.from, to: effect.to, peers: rng.shuffle(connected).slice(0, FETCH_FROM) });
      }
      case 'publish-committed':
        return publishCommitted(effect);
    }
  }

  function publishCommitted(batch: CommittedEntries): void {
    let bytes = 0;
    for (const e of batch.entries) bytes += 64 + (e.payload.kind === 'command' ? e.payload.bytes.length : 0);
    const entries = bytes > LOG_TOPIC_BYTES ? [] : batch.entries;
    hub.emit({ type: 'publish', topic: 'log', message: { prevIndex: batch.prevIndex, prevTerm: batch.prevTerm, entries, commit: batch.commit } });
  }

  function onRole(effect: Extract<ConsensusEffect, { type: 'role' }>): void {
    const was = leader;
    leader = effect.leader;
    hub.emit({ type: 'notify', notice: { type: 'role', role: effect.role, term: effect.term, leader } });
    if (effect.role === 'leader') {
      tellLearners();
      tellHealth();
    }
    if (was === leader) return;
    workshopDo(workshop.setLeader(leader, now, wall));
    if (leader === null) return;
    // What the new master must know at once: this machine's facts, and submissions nobody has settled yet.
    facts.tellLeader(leader);
    submissions.offer();
    askCurrent();
  }

  const askCurrent = (): void => {
    if (leader !== null && !workshop.current()) reads.askCurrent();
  };

  function tellHealth(): void {
    consense({ type: 'health', alive: topology.ids().filter((id) => id === self || membership.view(id)?.status === 'alive') });
  }

  const votingNow = (): NodeId[] => {
    const m = consensus.view().membership;
    return [...m.voters, ...(m.outgoing ?? [])];
  };

  function tellLearners(): void {
    const voting = new Set(votingNow());
    for (const [id, until] of direct) if (until <= now || voting.has(id)) direct.delete(id);
    consense({ type: 'learners', learners: topology.ids().filter((id) => !voting.has(id)), direct: [...direct.keys()] });
  }

  // ---- membership ------------------------------------------------------------------------------------------------------

  function memberStep(event: MembershipEvent): void {
    for (const effect of membership.step(event, now)) onMembership(effect);
  }

  function onMembership(effect: MembershipEffect): void {
    switch (effect.type) {
      case 'send':
        return hub.emit({ type: 'send', to: effect.to, afterPersist: false, channel: 'membership', message: effect.message });
      case 'gossip':
        return hub.emit({ type: 'publish', topic: 'members', message: { type: 'updates', updates: effect.updates } });
      case 'probe-boot':
        return hub.emit({ type: 'probe-boot', peer: effect.peer, attempt: effect.attempt, addresses: facts.all.get(effect.peer)?.bootProbe ?? [] });
      case 'dial':
        return hub.emit({ type: 'dial', peer: effect.peer });
      case 'incarnation':
        facts.setIncarnation(toIncarnation(effect.incarnation));
        return hub.emit({ type: 'incarnation', incarnation: effect.incarnation });
      case 'local-health':
        return office.setLocalHealth(effect.score);
      case 'changed':
        hub.emit({ type: 'notify', notice: { type: 'member', change: effect.change, at: wall } });
        office.memberChanged(effect.change);
        if (effect.change.id === leader && effect.change.to !== 'alive') consense({ type: 'leader-lost' });
        return tellHealth();
    }
  }

  const tellMembership = (): void => memberStep({ type: 'peers', peers: topology.ids(), voters: votingNow() });

  function emitPeers(): void {
    hub.emit({ type: 'peers', peers: topology.peers(), wanted: topology.wanted(membership.monitored(), votingNow(), config.membership.fullMeshPeers) });
  }

  // ---- the log ---------------------------------------------------------------------------------------------------------

  function applyEntries(entries: readonly LogEntry[]): void {
    const puts: StatePut[] = [];
    const results: Applied[] = [];
    for (const entry of entries) {
      if (entry.payload.kind === 'command') {
        const applied = applyEntry(state, entry.index, entry.payload.bytes);
        for (const put of applied.puts) puts.push(put);
        results.push(applied);
        proposals.applied(entry.index, applied.result);
      } else {
        state.applied = entry.index;
        proposals.applied(entry.index, { ok: true });
      }
    }
    hub.emit({ type: 'write-state', puts, applied: state.applied });
    afterApply(results);
  }

  function afterApply(results: readonly Applied[]): void {
    const tasks = new Set(results.flatMap((r) => r.tasks));
    let credentials = false;
    for (const { command, result, events } of results) {
      if (command.type !== 'unreadable' && command.by === self) office.outcome(command, result.ok);
      for (const event of events) hub.emit({ type: 'notify', notice: { type: 'cluster-event', event } });
      if (command.type === 'slot.assign' && result.ok) serveDirectly(command.node);
      else if (command.type === 'slot.end') workshopDo(workshop.endCommitted(command.taskId, command.slot, command.generation, now, wall));
      else if (command.type.startsWith('invitation.') || command.type === 'setting.set' || command.type === 'peer.admit') credentials = true;
    }
    if (credentials) hub.emit({ type: 'credentials-changed' });
    submissions.settle(results);
    if (results.some((r) => r.peersChanged)) peersChanged();
    if (tasks.size > 0) {
      hub.emit({ type: 'notify', notice: { type: 'tasks-changed', tasks: [...tasks] } });
      workshopDo(workshop.recordsChanged(state, tasks, now, wall));
      office.mark({ tasks });
    }
    askCurrent();
  }

  function serveDirectly(node: NodeId): void {
    if (consensus.view().role !== 'leader' || node === self || direct.has(node) || votingNow().includes(node)) return;
    direct.set(node, later(hub, DIRECT_MS));
    tellLearners();
  }

  function peersChanged(): void {
    if (state.peers.size > 0 && !state.peers.has(self)) {
      // A joiner applies records older than its own admission; only after it was once listed does absence mean removal.
      if (topology.listed()) hub.emit({ type: 'notify', notice: { type: 'removed', message: 'this peer was removed from the cluster' } });
      return;
    }
    if (topology.refresh(state, facts.all)) {
      facts.forget();
      tellMembership();
      tellLearners();
      tellHealth();
    }
    office.mark({ all: true });
    emitPeers();
  }

  function onFacts(from: NodeId, message: Parameters<typeof facts.receive>[1], canReply: boolean): void {
    const changed = facts.receive(from, message, canReply);
    if (changed.length === 0) return;
    office.mark({ facts: changed });
    if (topology.refresh(state, facts.all)) emitPeers();
  }

  // ---- master's office and this machine's workshop -----------------------------------------------------------------------

  function officeDo(effects: readonly OfficeEffect[]): void {
    for (const effect of effects) {
      if (effect.type === 'read-index') reads.ask({ kind: 'lease', id: effect.id });
      else if (effect.type === 'lease-message') leaseTo(effect.to, effect.message);
      else if (effect.type === 'propose') proposals.propose(effect.commands, { kind: 'master' });
      else if (effect.type === 'change-voters') proposals.changeVoters(effect.voters);
      else consense({ type: 'transfer', to: effect.to });
    }
  }

  function leaseTo(to: NodeId, message: LeaseMessage): void {
    if (to === self) onLease(self, message);
    else hub.emit({ type: 'send', to, afterPersist: false, channel: 'lease', message });
  }

  function onLease(from: NodeId, message: LeaseMessage): void {
    if (message.type === 'lease-renew') officeDo(office.onRenew(from, message, now));
    else if (from === leader) workshopDo(workshop.onAck(from, message, now, wall));
  }

  function workshopDo(effects: readonly WorkshopEffect[]): void {
    for (const effect of effects) {
      if (effect.type === 'runtime') hub.emit({ type: 'runtime', effect: effect.effect });
      else if (effect.type === 'renew') leaseTo(leader ?? self, effect.message);
      else if (effect.type === 'deadline') hub.emit({ type: 'lease-deadline', key: effect.key, deadline: effect.deadline });
      else if (effect.type === 'facts') facts.copiesChanged();
      else {
        const { key, outcome, exitCode, error } = effect;
        const command: Command = { type: 'slot.end', by: self, at: wall, taskId: key.taskId, slot: key.slot, generation: key.generation, outcome, exitCode, error };
        if (leader === self) proposals.propose([command], { kind: 'master' });
        else if (leader !== null) control(hub, leader, { type: 'propose', requestId: 0, command });
      }
    }
  }

  // ---- events ----------------------------------------------------------------------------------------------------------

  function onMessage(event: Extract<PeerEvent, { type: 'message' }>): void {
    if (!topology.allowed(event.from)) return;
    switch (event.channel) {
      case 'membership':
        return memberStep({ type: 'message', from: event.from, message: event.message });
      case 'raft':
        return consense({ type: 'message', from: event.from, message: event.message });
      case 'lease':
        return onLease(event.from, event.message);
      case 'facts':
        return onFacts(event.from, event.message, true);
      case 'control':
        if (event.message.type === 'propose') return proposals.fromPeer(event.from, event.message);
        if (event.message.type === 'propose-result') return proposals.resultFromMaster(event.message);
        return submissions.fromPeer(event.from, event.message);
    }
  }

  function onGossip(from: NodeId, gossip: GossipMessage): void {
    if (!topology.allowed(from)) return;
    if (gossip.topic === 'tasks') submissions.heard(gossip.message);
    else if (gossip.topic === 'log') {
      if (!votingNow().includes(self)) consense({ type: 'committed-entries', ...gossip.message });
    } else if (gossip.message.type === 'updates') memberStep({ type: 'message', from, message: gossip.message });
    else onFacts(from, gossip.message, membership.view(from)?.connected === true);
  }

  function onTick(lateMs: number): void {
    const due = (at: MonoMs | undefined): boolean => at !== undefined && at <= now;
    if (due(membership.nextWake())) memberStep({ type: 'tick', lateMs: lateMs as never });
    if (due(consensus.nextWake())) consense({ type: 'tick' });
    if (due(workshop.nextWake())) workshopDo(workshop.tick(now, wall));
    if (facts.tick()) office.mark({ facts: [self] });
    for (const requestId of requests.expired(now)) {
      hub.emit({ type: 'client-reply', requestId, result: clientFailure('timeout', 'no answer from a master in time; the change may still happen') });
    }
    submissions.tick();
    if (due(reads.nextWake())) {
      reads.tick();
      askCurrent();
    }
  }

  function dispatch(event: PeerEvent): void {
    switch (event.type) {
      case 'tick':
        return onTick(event.lateMs);
      case 'message':
        return onMessage(event);
      case 'gossip':
        return onGossip(event.from, event);
      case 'connected':
        memberStep({ type: 'connected', peer: event.peer });
        facts.greet(event.peer);
        return tellHealth();
      case 'disconnected':
        memberStep({ type: 'disconnected', peer: event.peer });
        if (event.peer === leader) consense({ type: 'leader-lost' });
        return;
      case 'dial-failed':
        return memberStep({ type: 'dial-failed', peer: event.peer, refused: event.refused });
      case 'boot-ack':
        return memberStep({ type: 'boot-ack', peer: event.peer, attempt: event.attempt });
      case 'persisted':
        return consense({ type: 'persisted', persistId: event.persistId });
      case 'state-written':
        return consense({ type: 'applied', index: event.index });
      case 'submission-kept':
        return submissions.kept(event.id);
      case 'host-facts':
        facts.head(event.head);
        return office.mark({ facts: [self] });
      case 'runtime':
        return workshopDo(workshop.runtimeEvent(event.event, now, wall));
      case 'proven-dead':
        return workshopDo(workshop.provenDead(event.keys, now, wall));
      case 'range-reply':
        return consense({ type: 'committed-entries', ...event.entries });
      case 'snapshot-installed':
        state = restoreState(event.pairs, event.index);
        consense({ type: 'snapshot-installed', index: event.index, term: event.term, membership: event.membership });
        peersChanged();
        hub.emit({ type: 'credentials-changed' });
        return workshopDo(workshop.recordsChanged(state, 'all', now, wall));
      case 'client-submit':
        return submissions.fromClient(event.requestId, event.submission);
      case 'client-propose':
        return proposals.fromClient(event.requestId, event.command);
      case 'client-read':
        return reads.fromClient(event.requestId);
      case 'leave':
        memberStep({ type: 'leave' });
        return consense({ type: 'step-down', reason: 'leaving' });
    }
  }

  function start(): void {
    started = true;
    topology.refresh(state, facts.all);
    tellMembership();
    tellLearners();
    emitPeers();
    workshopDo(workshop.recordsChanged(state, 'all', now, wall));
  }

  return {
    self,
    /** One event in, effects out, in order. `at`: boot-time milliseconds; `wallNow`: for records people read. */
    step(event: PeerEvent, at: MonoMs, wallNow: WallMs): PeerEffect[] {
      now = at;
      wall = wallNow;
      if (!started) start();
      dispatch(event);
      officeDo(office.evaluate({ state, members: membership.members(), facts: facts.all, consensus: consensus.view(), pending: submissions.pending, wall }, now));
      const effects = out;
      out = [];
      return effects;
    },
    /** When the next tick is due; undefined = only when an event comes. */
    nextWake(): MonoMs | undefined {
      let best: MonoMs | undefined;
      const wakes = [membership.nextWake(), consensus.nextWake(), workshop.nextWake(), office.nextWake(), facts.nextWake(), requests.nextDeadline(), submissions.nextWake(), reads.nextWake()];
      for (const at of wakes) if (at !== undefined && (best === undefined || at < best)) best = at;
      return best;
    },
    state: (): ClusterState => state,
    members: (): ReadonlyMap<NodeId, MemberView> => membership.members(),
    consensus: (): ConsensusView => consensus.view(),
    logEntries: (from: LogIndex, to: LogIndex): readonly LogEntry[] => consensus.entries(from, to),
    termAt: (index: LogIndex): Term | undefined => consensus.termAt(index) as Term | undefined,
    facts: () => facts.all,
    factsAt: (id: NodeId): MonoMs | undefined => facts.heardAt(id),
    pending: () => submissions.pending,
    leader: (): NodeId | null => leader,
    waiting: () => office.waiting(),
    copies: () => workshop.facts(),
    topology,
  };
}

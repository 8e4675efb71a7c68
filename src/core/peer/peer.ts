import {
  type LogIndex,
  type MonoMs,
  type NodeId,
  type TaskId,
  type Term,
  incarnation as toIncarnation,
  type WallMs,
} from '../../model/ids.ts';
import { createRng } from '../../model/random.ts';
import { createConsensus } from '../consensus/consensus.ts';
import type { ConsensusEffect, ConsensusEvent, ConsensusView, LogEntry, Membership } from '../consensus/types.ts';
import { createMembership } from '../membership/membership.ts';
import type { MembershipEffect, MembershipEvent, MemberView } from '../membership/types.ts';
import { createState, restoreState } from '../state/state.ts';
import type { ClusterState } from '../state/types.ts';
import { createCaretaking } from './caretaking.ts';
import { createElectorate } from './electorate.ts';
import { createEpochs } from './epochs.ts';
import { createErrands, type Errands } from './errands.ts';
import { createFactsDesk } from './facts-desk.ts';
import { earliest, type Hub } from './hub.ts';
import { createInOrder } from './in-order.ts';
import { publishCommitted } from './log-topic.ts';
import { createMailRoom } from './mail-room.ts';
import { createOffice } from './office.ts';
import { createProposals } from './proposals.ts';
import { createReads } from './reads.ts';
import { createRecordKeeper } from './record-keeper.ts';
import { clientFailure, createRequests } from './requests.ts';
import { createSubmissions } from './submissions.ts';
import { createTopology } from './topology.ts';
import type { PeerEffect, PeerEvent, PeerOptions } from './types.ts';
import { createWorkshop } from './workshop.ts';

export type { PeerOptions } from './types.ts';

// One whole peer. Each part is a core or a desk of its own; this file says who hears of what. It has no
// protocol of its own.

const FETCH_FROM = 3;
/** Other traffic of a peer counts as a sign of life when none was noted for this long. */
const OVERHEARD_MS = 50;

export type Peer = ReturnType<typeof createPeer>;

export function createPeer(options: PeerOptions, startedAt: MonoMs) {
  const { self, config } = options;
  const rng = createRng(`${options.seed}/peer`);
  let now = startedAt;
  let wall = 0 as WallMs;
  let out: PeerEffect[] = [];
  let leader: NodeId | null = null;
  let started = false;

  const membership = createMembership({
    self,
    incarnation: options.incarnation,
    config: config.membership,
    seed: `${options.seed}/membership`,
  });
  const consensus = createConsensus(
    {
      self,
      config: config.consensus,
      seed: `${options.seed}/consensus`,
      restore: options.consensus,
      rank: options.rank,
    },
    startedAt,
  );
  let state: ClusterState =
    options.state.length > 0 ? restoreState(options.state, options.consensus.applied) : createState();
  state.applied = options.consensus.applied;
  const topology = createTopology(self, options.seeds);
  const hub: Hub = {
    self,
    config,
    now: () => now,
    wall: () => wall,
    state: () => state,
    leader: () => leader,
    peerCount: () => topology.ids().length,
    consensus: () => consensus.view(),
    emit: (effect) => void out.push(effect),
    consense,
  };
  const epochs = createEpochs(hub, options.epoch);
  const inOrder = createInOrder<ConsensusEffect>((effect) => onConsensus(effect));
  const electorate = createElectorate(hub, {
    topology,
    view: (id) => membership.view(id),
    monitored: () => membership.monitored(),
    shares: (id) => epochs.shares(facts.all.get(id)),
    memberStep,
  });
  const requests = createRequests();
  const office = createOffice(self, config, () => (consensus.view().role === 'leader' ? consensus.view().term : null));
  const workshop = createWorkshop({
    self,
    config,
    seed: `${options.seed}/workshop`,
    incarnation: options.incarnation,
    adopted: options.adoptedLeases,
  });
  const errands: Errands = createErrands(hub, () => ({ office, workshop, proposals, reads, facts }));
  const facts = createFactsDesk(hub, options.incarnation, {
    allowed: topology.allowed,
    copies: workshop.facts,
    epoch: epochs.own,
  });
  const proposals = createProposals(hub, requests, office);
  const submissions = createSubmissions(hub, options.pending, requests, office);
  const reads = createReads(hub, requests, {
    lease: (id, ok) => errands.office(office.onReadReady(id, ok, now, state)),
    current: () => errands.workshop(workshop.setCurrent(state, now, wall)),
  });

  const caretaking = createCaretaking(hub, options.rank, {
    members: () => membership.members(),
    facts: () => facts.all,
    lastTerm: () => consensus.termAt(consensus.view().lastIndex) as Term,
    evidenceOf: office.evidenceOf,
    carryOut: (orders) => errands.workshop(workshop.orders(state, orders, now, wall)),
    alone: workshop.setAlone,
  });

  const records = createRecordKeeper(
    hub,
    { office, proposals, submissions },
    {
      assigned: electorate.serveDirectly,
      ended: (c) => errands.workshop(workshop.endCommitted(c.taskId, c.slot, c.generation, now, wall)),
      peersChanged,
      tasksChanged: (tasks) => {
        errands.workshop(workshop.recordsChanged(state, tasks, now, wall));
        office.mark({ tasks });
        caretaking.mark();
      },
    },
  );

  // ---- consensus -------------------------------------------------------------------------------------------------------

  function consense(event: ConsensusEvent): void {
    inOrder(consensus.step(event, now));
  }

  function onConsensus(effect: ConsensusEffect): void {
    switch (effect.type) {
      case 'persist':
        return hub.emit({ type: 'persist', persistId: effect.persistId, ops: effect.ops });
      case 'send':
        return hub.emit({
          type: 'send',
          to: effect.to,
          afterPersist: effect.afterPersist,
          channel: 'raft',
          message: { ...effect.message, ...epochs.stamp() },
        });
      case 'committed':
        records.apply(effect.entries);
        return askCurrent();
      case 'proposal':
        return proposals.onProposal(effect);
      case 'role':
        return onRole(effect);
      case 'membership':
        hub.emit({
          type: 'notify',
          notice: { type: 'voters', membership: effect.membership, committed: effect.committed },
        });
        electorate.tellAll();
        return office.mark({ all: true });
      case 'read-ready':
        return reads.ready(effect.id, effect.ok, effect.index);
      case 'install-snapshot':
        return hub.emit({
          type: 'fetch-snapshot',
          from: effect.from,
          index: effect.index,
          term: effect.term,
          membership: effect.membership,
        });
      case 'fetch-entries': {
        const connected = topology.ids().filter((id) => membership.view(id)?.connected === true);
        return hub.emit({
          type: 'fetch-entries',
          from: effect.from,
          to: effect.to,
          peers: rng.shuffle(connected).slice(0, FETCH_FROM),
        });
      }
      case 'publish-committed':
        return publishCommitted(hub, { ...effect, ...epochs.stamp() });
    }
  }

  function onRole(effect: Extract<ConsensusEffect, { type: 'role' }>): void {
    const was = leader;
    leader = effect.leader;
    epochs.leaderChanged(leader);
    hub.emit({ type: 'notify', notice: { type: 'role', role: effect.role, term: effect.term, leader } });
    if (effect.role === 'leader') {
      electorate.tellLearners();
      electorate.tellHealth();
    }
    if (was === leader) return;
    errands.workshop(workshop.setLeader(leader, now, wall));
    if (leader === null) return;
    // What the new master must know at once: this machine's facts, and submissions nobody has settled yet.
    facts.tellLeader(leader);
    submissions.offer();
    askCurrent();
  }

  const askCurrent = (): void => {
    if (leader !== null && !workshop.current()) reads.askCurrent();
  };

  // ---- membership ------------------------------------------------------------------------------------------------------

  function memberStep(event: MembershipEvent): void {
    for (const effect of membership.step(event, now)) onMembership(effect);
  }

  function onMembership(effect: MembershipEffect): void {
    switch (effect.type) {
      case 'send':
        return hub.emit({
          type: 'send',
          to: effect.to,
          afterPersist: false,
          channel: 'membership',
          message: effect.message,
        });
      case 'gossip':
        return hub.emit({ type: 'publish', topic: 'members', message: { type: 'updates', updates: effect.updates } });
      case 'probe-boot':
        return hub.emit({
          type: 'probe-boot',
          peer: effect.peer,
          attempt: effect.attempt,
          addresses: facts.all.get(effect.peer)?.bootProbe ?? [],
        });
      case 'dial':
      case 'hang-up':
        return hub.emit(effect);
      case 'incarnation':
        facts.setIncarnation(toIncarnation(effect.incarnation));
        return hub.emit({ type: 'incarnation', incarnation: effect.incarnation });
      case 'local-health':
        return office.setLocalHealth(effect.score);
      case 'changed':
        hub.emit({ type: 'notify', notice: { type: 'member', change: effect.change, at: wall } });
        office.memberChanged(effect.change);
        caretaking.mark();
        if (effect.change.id === leader && effect.change.to !== 'alive') consense({ type: 'leader-lost' });
        return electorate.tellHealth();
    }
  }

  // ---- records ---------------------------------------------------------------------------------------------------------

  function peersChanged(): void {
    if (state.peers.size > 0 && !state.peers.has(self)) {
      // A joiner applies records older than its own admission; only after it was once listed does absence mean removal.
      if (topology.listed())
        hub.emit({ type: 'notify', notice: { type: 'removed', message: 'this peer was removed from the cluster' } });
      return;
    }
    if (topology.refresh(state, facts.all)) {
      facts.forget();
      electorate.tellMembership();
      electorate.tellLearners();
      electorate.tellHealth();
    }
    office.mark({ all: true });
    electorate.tellTransport();
  }

  function onFacts(from: NodeId, message: Parameters<typeof facts.receive>[1], canReply: boolean): void {
    const changed = facts.receive(from, message, canReply);
    if (changed.length === 0) return;
    office.mark({ facts: changed });
    caretaking.mark();
    for (const id of changed) epochs.met(id, facts.all.get(id));
    if (state.cluster?.parents !== undefined) electorate.tellHealth();
    if (topology.refresh(state, facts.all)) electorate.tellTransport();
  }

  // ---- events ----------------------------------------------------------------------------------------------------------

  const mail = createMailRoom(hub, {
    allowed: topology.allowed,
    connected: (id) => membership.view(id)?.connected === true,
    voting: electorate.voting,
    memberStep,
    heard: (id) => {
      // Heartbeats, appends and renewals stand in for pings; under load one in so many is enough.
      const last = membership.view(id)?.lastHeardAt;
      if (last === undefined || now - last > OVERHEARD_MS) memberStep({ type: 'heard', peer: id });
    },
    onLease: errands.lease,
    onFacts,
    proposals,
    submissions,
    caretaking,
    epochs,
  });

  function onTick(lateMs: number): void {
    const due = (at: MonoMs | undefined): boolean => at !== undefined && at <= now;
    if (due(membership.nextWake())) memberStep({ type: 'tick', lateMs: lateMs as never });
    if (due(consensus.nextWake())) consense({ type: 'tick' });
    if (due(workshop.nextWake())) errands.workshop(workshop.tick(now, wall));
    if (facts.tick()) {
      office.mark({ facts: [self] });
      caretaking.mark();
    }
    for (const requestId of requests.expired(now)) {
      hub.emit({
        type: 'client-reply',
        requestId,
        result: clientFailure('timeout', 'no answer from a master in time; the change may still happen'),
      });
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
        return mail.message(event);
      case 'gossip':
        return mail.gossip(event.from, event);
      case 'connected':
        memberStep({ type: 'connected', peer: event.peer });
        facts.greet(event.peer);
        return electorate.tellHealth();
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
        return errands.workshop(workshop.runtimeEvent(event.event, now, wall));
      case 'proven-dead':
        return errands.workshop(workshop.provenDead(event.keys, now, wall));
      case 'range-reply':
        return epochs.accepts(event.entries) ? consense({ type: 'committed-entries', ...event.entries }) : undefined;
      case 'snapshot-installed':
        // Overtaken by entries that came by other ways: those give the same records, and records never go back.
        if (event.index <= consensus.view().commit) return;
        state = restoreState(event.pairs, event.index);
        consense({ type: 'snapshot-installed', index: event.index, term: event.term, membership: event.membership });
        peersChanged();
        hub.emit({ type: 'credentials-changed' });
        return errands.workshop(workshop.recordsChanged(state, 'all', now, wall));
      case 'client-submit':
        return submissions.fromClient(event.requestId, event.submission);
      case 'client-propose':
        return proposals.fromClients([event]);
      case 'client-proposals':
        return proposals.fromClients(event.proposals);
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
    electorate.tellAll();
    errands.workshop(workshop.recordsChanged(state, 'all', now, wall));
  }

  return {
    self,
    /** One event in, effects out, in order. `at`: boot-time milliseconds; `wallNow`: for records people read. */
    step(event: PeerEvent, at: MonoMs, wallNow: WallMs): PeerEffect[] {
      now = at;
      wall = wallNow;
      if (!started) start();
      dispatch(event);
      errands.office(
        office.evaluate(
          {
            state,
            members: membership.members(),
            facts: facts.all,
            consensus: consensus.view(),
            pending: submissions.pending,
            wall,
          },
          now,
        ),
      );
      caretaking.evaluate();
      const effects = out;
      out = [];
      return effects;
    },
    /** When the next tick is due; undefined = only when an event comes. */
    nextWake(): MonoMs | undefined {
      return earliest([
        membership.nextWake(),
        consensus.nextWake(),
        workshop.nextWake(),
        office.nextWake(),
        facts.nextWake(),
        requests.nextDeadline(),
        submissions.nextWake(),
        reads.nextWake(),
        caretaking.nextWake(),
      ]);
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
    /** Goes onto entries and snapshots served to neighbours. */
    stamp: () => epochs.stamp(),
    /** Set while no majority is in reach: since when, and who is caretaker of this side. */
    side: () => caretaking.side(),
    provisionalDecisions: (task: TaskId) => caretaking.decisions(task),
    /** The voters at an index this peer holds, for a snapshot taken there. */
    membershipAt: (index: LogIndex): Membership => consensus.membershipAt(index),
    sizes: () => ({
      ...requests.sizes(),
      pending: submissions.pending.size,
      reads: reads.size(),
      log: consensus.view().lastIndex - consensus.firstIndex() + 1,
      decisions: office.inFlight(),
    }),
    topology,
  };
}

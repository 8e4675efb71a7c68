import type { PeerEvent } from '../core/peer/types.ts';
import type { NodeId } from '../model/ids.ts';
import { LIMITS } from '../model/limits.ts';
import { decodeGossip, decodeMessage, encodeGossip, encodeMessage } from '../model/message-schemas.ts';
import { createRng, type Rng } from '../model/random.ts';
import { WIRE_CHANNELS, WIRE_TOPICS } from '../model/wire.ts';
import { formCluster, makeSpec, makeWorld } from '../sim/campaign.ts';
import { InvariantBroken, Invariants } from '../sim/invariants.ts';
import type { Machine } from '../sim/machine.ts';
import type { World } from '../sim/world.ts';
import { mutateTree } from './mutate-tree.ts';
import * as samples from './samples.ts';
import { FuzzFailure } from './target.ts';
import { type Tree, toTree, writeCbor } from './tree.ts';

// A member that has gone bad: everything it says fits the schemas, and nothing of it is true. What it says is made of what
// real peers say (their terms, indexes, tasks and names), told to real peers at random times. Agreement may be lost by that
// (Raft trusts its members); but no peer may throw, and no queue may grow beyond its limit.

export interface HostileResult {
  readonly seed: string;
  /** Messages told to peers that listened. */
  told: number;
  /** Made, and refused by the decoders. */
  refused: number;
  slowestMs: number;
}

const MACHINES = 4;
/** Kept of what real peers say, per channel or topic. */
const OVERHEARD = 200;
const BURST = 40;
/** Rounds without a listener until a world is given up: the bad one has had itself struck from the list. */
const DEAF_ROUNDS = 5;

type Kind = `channel/${(typeof WIRE_CHANNELS)[number]}` | `topic/${(typeof WIRE_TOPICS)[number]}`;
const KINDS: readonly Kind[] = [
  ...WIRE_CHANNELS.map((c): Kind => `channel/${c}`),
  ...WIRE_TOPICS.map((t): Kind => `topic/${t}`),
];

/** What cannot be asked of a cluster with a liar in it: all but that cores and stores go on. */
function withoutAgreement(): Invariants {
  const invariants = new Invariants();
  return new Proxy(invariants, {
    get: (target, name) => {
      const value: unknown = Reflect.get(target, name, target);
      return typeof value === 'function' ? () => [] : value;
    },
  });
}

/** One world after another until so many messages were told. Throws FuzzFailure with the seed of the world that broke. */
export function runHostileMember(seed: string, messages: number): HostileResult {
  const result: HostileResult = { seed, told: 0, refused: 0, slowestMs: 0 };
  for (let world = 0; result.told < messages; world++) {
    const name = `${seed}/${world}`;
    try {
      haunt(name, Math.min(1000, messages - result.told), result);
    } catch (error) {
      // Agreement is lost in a way that the simulator cannot go on with: that is no crash, and another world begins.
      if (error instanceof InvariantBroken) continue;
      const { message, stack } = error instanceof Error ? error : new Error(String(error));
      throw new FuzzFailure(`${message} (world ${name}, ${result.told} messages told)\n${stack ?? ''}`);
    }
  }
  return result;
}

function haunt(seed: string, messages: number, result: HostileResult): void {
  const rng = createRng(`${seed}/hostile`);
  const world = makeWorld(seed, MACHINES, { config: shortLog(makeWorld(seed, 1)) });
  const heard = overhear(world);
  world.faultsOn = false;
  formCluster(world);
  for (let i = 0; i < 4; i++)
    world.submit(world.machines[i % MACHINES] as Machine, makeSpec(`task${i}`, i % 2 === 0, 1 + (i % 2)));
  world.run(world.now + 2000);
  Object.defineProperty(world, 'invariants', { value: withoutAgreement() });
  const bad = world.machines[rng.int(0, MACHINES - 1)] as Machine;
  let deaf = 0;
  for (const end = result.told + messages; result.told < end && deaf < DEAF_ROUNDS; ) {
    const before = result.told;
    for (let i = 0; i < BURST; i++) {
      const victim = rng.pick(world.machines.filter((m) => m !== bad && m.up));
      if (victim) lie(rng, bad.id, victim, heard, result);
    }
    deaf = result.told === before ? deaf + 1 : 0;
    world.run(world.now + rng.next() ** 3 * 400);
    for (const machine of world.machines) bounded(machine);
  }
}

const shortLog = (world: World): World['config'] => ({
  ...world.config,
  consensus: { ...world.config.consensus, logRetained: 64 },
});

/** Keeps what the machines say to each other. */
function overhear(world: World): ReadonlyMap<Kind, Tree[]> {
  const heard = new Map<Kind, Tree[]>(KINDS.map((kind) => [kind, firstWords(kind)]));
  const keep = (kind: Kind, message: object): void => {
    const list = heard.get(kind) as Tree[];
    if (list.length < OVERHEARD) list.push(toTree(message));
    else list[world.tally.messages % OVERHEARD] = toTree(message);
  };
  const { network } = world;
  const send = network.send.bind(network);
  const publish = network.publish.bind(network);
  network.send = (from, to, effect) => {
    keep(`channel/${effect.channel}`, effect.message);
    send(from, to, effect);
  };
  network.publish = (from, gossip) => {
    keep(`topic/${gossip.topic}`, gossip.message);
    publish(from, gossip);
  };
  return heard;
}

function firstWords(kind: Kind): Tree[] {
  const own: Record<Kind, readonly object[]> = {
    'channel/membership': samples.membershipMessages(),
    'channel/raft': samples.raftMessages(),
    'channel/lease': samples.leaseMessages(),
    'channel/facts': samples.factsMessages(),
    'channel/control': samples.controlMessages(),
    'topic/tasks': samples.specs().map(samples.submission),
    'topic/members': samples.factsMessages().slice(1, 3),
    'topic/log': [samples.committed()],
  };
  return own[kind].map(toTree);
}

function lie(
  rng: Rng,
  from: NodeId,
  to: Machine,
  heard: ReadonlyMap<Kind, readonly Tree[]>,
  result: HostileResult,
): void {
  const kind = rng.pick(KINDS) as Kind;
  const known = heard.get(kind) as readonly Tree[];
  const original = rng.pick(known) as Tree;
  const made =
    rng.next() < 0.15 ? original : mutateTree(original, rng, { hugeBytes: 0, donor: rng.pick(known) as Tree });
  const event = heardAs(kind, made, from, rng);
  if (event === undefined) {
    result.refused += 1;
    return;
  }
  if (to.peer?.topology.allowed(from) !== true) return;
  result.told += 1;
  const started = performance.now();
  to.post(event);
  result.slowestMs = Math.max(result.slowestMs, performance.now() - started);
}

/** As the driver makes an event of what came over the wire; undefined when it would refuse. */
function heardAs(kind: Kind, message: Tree, from: NodeId, rng: Rng): PeerEvent | undefined {
  const bytes = writeCbor([1, message]);
  const [where, name] = kind.split('/') as [string, never];
  const decoded = where === 'channel' ? decodeMessage(name, bytes) : decodeGossip(name, bytes);
  if (!decoded.ok) return undefined;
  // Sent on, as another peer would: what cannot be written again would stop that one.
  const { value } = decoded;
  if ('channel' in value) encodeMessage(value.channel, value.message);
  else encodeGossip(value);
  if ('topic' in value && value.topic === 'log' && rng.next() < 0.5)
    return { type: 'range-reply', entries: value.message } as PeerEvent;
  return { type: where === 'channel' ? 'message' : 'gossip', from, ...value } as PeerEvent;
}

function bounded(machine: Machine): void {
  const { peer } = machine;
  if (!peer) return;
  const sizes = peer.sizes();
  const state = peer.state();
  const bounds: readonly [string, number, number][] = [
    ['submissions', sizes.pending, LIMITS.pendingSubmissions],
    ['proposals', sizes.proposals, LIMITS.proposalsInFlight * 2],
    ['reads', sizes.reads, LIMITS.rpcInFlight],
    ['clients', sizes.clients, LIMITS.rpcInFlight],
    ['decisions', sizes.decisions, LIMITS.proposalsInFlight],
    ['members', peer.members().size, LIMITS.peers],
    ['facts', peer.facts().size, LIMITS.peers],
    ['tasks', state.tasks.size, LIMITS.tasks],
    ['peers', state.peers.size, LIMITS.peers],
    ['events', state.events.length, LIMITS.eventsKept],
    ['invitations', state.invitations.size, LIMITS.invitations],
    ['settings', state.settings.size, LIMITS.settings],
  ];
  for (const [what, is, may] of bounds)
    if (is > may) throw new FuzzFailure(`${machine.id} holds ${is} ${what}, may hold ${may}`);
}

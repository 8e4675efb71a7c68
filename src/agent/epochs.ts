import { cp, mkdir, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { type EpochFile, loadEpoch, saveEpoch } from '../adapters/data-dir/epoch-file.ts';
import type { Peer } from '../core/peer/peer.ts';
import { applyEntry, createState, restoreState } from '../core/state/state.ts';
import type { StatePut } from '../core/state/types.ts';
import { TaskOrgError } from '../model/errors.ts';
import { logIndex, type NodeId, nodeId, term } from '../model/ids.ts';
import { KNOWS_PROVISIONAL } from '../model/wire.ts';
import type { Log } from '../ports/log.ts';
import type { Store, StoreContents } from '../ports/store.ts';

// Recovery by force, on disk. Every step may be cut short by a crash and is then done again: the epoch file moves on only
// when the step is done. What is left behind stays under `epochs/` in the data directory, for inspection.

/** Terms of an epoch begin here times its number: no two epochs of one line share a term. */
const TERMS_PER_EPOCH = 2 ** 32;

const asideDir = (dataDir: string, id: string): string => join(dataDir, 'epochs', `before-${id}`);

/** Before the store is opened: a peer that rejoins sets its store aside, one that recovers keeps a copy of it. */
export async function prepareEpoch(dataDir: string, log: Log): Promise<EpochFile | undefined> {
  const epoch = await loadEpoch(dataDir);
  if (epoch?.step !== 'recover' && epoch?.step !== 'rejoin') return epoch;
  const aside = asideDir(dataDir, epoch.id);
  await mkdir(join(dataDir, 'epochs'), { recursive: true, mode: 0o700 });
  if (!('peers' in epoch)) {
    await rm(`${aside}.tmp`, { recursive: true, force: true });
    await cp(join(dataDir, 'db'), `${aside}.tmp`, { recursive: true });
    await rm(aside, { recursive: true, force: true });
    await rename(`${aside}.tmp`, aside);
    log.warn(
      { epoch: epoch.id, kept: aside },
      'the cluster is recovered by force from this peer; its records so far are kept',
    );
    return epoch;
  }
  await mkdir(aside, { recursive: true, mode: 0o700 });
  for (const name of ['db', 'votes'])
    await rename(join(dataDir, name), join(aside, name)).catch((error: NodeJS.ErrnoException) => {
      if (error.code !== 'ENOENT') throw error; // moved by an earlier try
    });
  const { id, incarnation, peers } = epoch;
  const member: EpochFile = { step: 'member', id, incarnation, peers };
  await saveEpoch(dataDir, member);
  log.warn(
    { epoch: epoch.id, kept: aside },
    'the cluster was recovered without this peer: it joins again, its records so far are kept',
  );
  return member;
}

/**
 * The log of a peer that recovers, as far as it reaches, becomes the beginning of the new epoch, in which it is the only voter.
 * Entries not known to be committed are taken too: some majority may have counted on them.
 */
export async function beginEpoch(
  self: NodeId,
  dataDir: string,
  epoch: EpochFile | undefined,
  store: Store,
  contents: StoreContents,
): Promise<StoreContents> {
  if (epoch?.step !== 'recover') return contents;
  const { consensus } = contents;
  const state = contents.state.length > 0 ? restoreState(contents.state, consensus.applied) : createState();
  state.applied = consensus.applied;
  const puts: StatePut[] = [];
  for (const entry of consensus.entries) {
    if (entry.index <= consensus.applied) continue;
    if (entry.payload.kind === 'command') puts.push(...applyEntry(state, entry.index, entry.payload.bytes).puts);
    else state.applied = entry.index;
  }
  const last = consensus.entries.at(-1) ?? consensus.snapshot;
  const firstTerm = Math.max(consensus.hardState.term + 1, epoch.number * TERMS_PER_EPOCH);
  await store.write({
    consensus: [
      { type: 'hard-state', hardState: { term: term(firstTerm), votedFor: null } },
      { type: 'compact', upTo: last.index, term: last.term, membership: { voters: [self], outgoing: null } },
    ],
    state: puts,
    applied: logIndex(state.applied),
    addSubmissions: [],
    removeSubmissions: [],
    local: [],
    sync: true,
  });
  await saveEpoch(dataDir, { ...epoch, step: 'lead' });
  return await store.load();
}

/** The order to join the epoch of others when this peer next starts. */
export async function orderRejoin(dataDir: string, epochId: string, peer: Peer): Promise<void> {
  const incarnation = peer.facts().get(peer.self)?.incarnation ?? 0;
  const peers = peer.topology.peers().map((p) => ({ id: p.id as string, addresses: [...p.addresses] }));
  await saveEpoch(dataDir, { step: 'rejoin', id: epochId, incarnation, peers });
}

/** The order to begin a new epoch when this peer next starts. Throws refused where that would be wrong or is not needed. */
export async function orderRecovery(
  dataDir: string,
  epochId: string,
  peer: Peer,
  dead: readonly NodeId[],
): Promise<{ readonly epoch: number; readonly voters: readonly NodeId[] }> {
  const side = peer.side();
  const cluster = peer.state().cluster;
  if (cluster === undefined) throw new TaskOrgError('refused', 'this peer has no records of a cluster to recover');
  if (side === undefined)
    throw new TaskOrgError(
      'refused',
      'a majority of the voters is in reach, or was until a moment ago: nothing to recover',
      {
        hint: 'task-org cluster status says who votes and who is in reach',
      },
    );
  if (side.caretaker !== null && side.caretaker !== peer.self) {
    const name = peer.state().peers.get(side.caretaker)?.name ?? side.caretaker;
    throw new TaskOrgError('refused', `the records of ${name} are newer, or as new`, {
      hint: `run the same on ${name}: what only it knows would be lost from here`,
    });
  }
  const old = [...peer.facts().values()].find((facts) => facts.wireVersion < KNOWS_PROVISIONAL);
  if (old !== undefined)
    throw new TaskOrgError('refused', `${old.name} runs version ${old.agentVersion}, which knows no recovery`, {
      hint: `upgrade ${old.name}, or remove it: task-org node rm ${old.name}`,
    });
  const { membership, mayVote } = peer.consensus();
  if (!mayVote) throw new TaskOrgError('refused', 'the log of this peer was lost: it has nothing to recover from');
  const voters = [...new Set([...membership.voters, ...(membership.outgoing ?? [])])];
  const number = cluster.epoch + 1;
  await saveEpoch(dataDir, { step: 'recover', id: epochId, number, voters, dead: [...dead] });
  return { epoch: number, voters };
}

/** What the first entry of a new epoch says; undefined when there is none to commit. */
export const firstEntry = (epoch: EpochFile | undefined) =>
  epoch?.step === 'lead'
    ? {
        type: 'cluster.recover' as const,
        epoch: epoch.number,
        epochId: epoch.id,
        voters: epoch.voters.map(nodeId),
        dead: epoch.dead.map(nodeId),
      }
    : undefined;

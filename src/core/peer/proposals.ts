import { encodeCommand } from '../../model/command-codec.ts';
import type { ApplyResult, Command } from '../../model/commands.ts';
import { type LogIndex, logIndex, type NodeId } from '../../model/ids.ts';
import type { ControlMessage } from '../../model/peer-messages.ts';
import type { ConsensusEffect } from '../consensus/types.ts';
import { control, type Hub, later } from './hub.ts';
import type { Office } from './office.ts';
import { clientFailure, type Origin, type Requests } from './requests.ts';
import type { ClientProposal } from './types.ts';
import type { WorkshopEffect } from './workshop.ts';

// The way of an intent into the log and of its outcome back: from a local client, from another peer, or from the master core.

/** Only the master itself assigns and closes; a peer that asks for it is refused. */
const MASTER_ONLY: ReadonlySet<Command['type']> = new Set([
  'slot.assign',
  'slot.drop',
  'slot.close',
  'cluster.init',
  'cluster.recover',
]);

export interface Proposals {
  propose(commands: readonly Command[], origin: Origin): void;
  changeVoters(voters: readonly NodeId[]): void;
  onProposal(effect: Extract<ConsensusEffect, { type: 'proposal' }>): void;
  /** The entry at `index` was applied with this result. */
  applied(index: LogIndex, result: ApplyResult): void;
  fromClients(asked: readonly ClientProposal[]): void;
  /** A run of this machine ended for good: the master is to commit it. Repeated by reconcile until it is. */
  fromWorkshop(ended: Extract<WorkshopEffect, { type: 'end' }>): void;
  fromPeer(from: NodeId, message: Extract<ControlMessage, { type: 'propose' }>): void;
  resultFromMaster(message: Extract<ControlMessage, { type: 'propose-result' }>): void;
}

export function createProposals(hub: Hub, requests: Requests, office: Office): Proposals {
  /** This term's assignments on their way: they bar lease renewals of their slots (core/lease). */
  const assigning = new Map<number, Command>();
  const assigningAt = new Map<LogIndex, Command>();

  const reply = (
    requestId: number,
    result: Parameters<typeof clientFailure> | { index: LogIndex; result: ApplyResult; copies: number },
  ): void => {
    if (!requests.done(requestId)) return;
    hub.emit({
      type: 'client-reply',
      requestId,
      result: Array.isArray(result) ? clientFailure(...result) : { ok: true, ...result },
    });
  };

  function answer(origin: Origin, index: LogIndex, result: ApplyResult, copies: number): void {
    if (origin.kind === 'master') office.proposalDone(result.ok);
    else if (origin.kind === 'peer')
      control(hub, origin.peer, {
        type: 'propose-result',
        requestId: origin.requestId,
        ok: true,
        index,
        result,
        reason: '',
      });
    else reply(origin.requestId, { index, result, copies });
  }

  function refuse(origin: Origin, why: 'not-leader' | 'busy' | 'superseded' | 'changing'): void {
    // Mastery that is changing hands, or has: nothing was proposed, and whoever asked may ask again in a moment.
    const reason = why === 'not-leader' || why === 'changing' ? 'no-master' : why;
    if (origin.kind === 'master') office.proposalDone(false);
    else if (origin.kind === 'client') reply(origin.requestId, [reason, `the master did not take the change (${why})`]);
    else
      control(hub, origin.peer, {
        type: 'propose-result',
        requestId: origin.requestId,
        ok: false,
        index: logIndex(0),
        result: null,
        reason,
      });
  }

  function proposal(command: Command, origin: Origin): { readonly proposalId: number; readonly bytes: Uint8Array } {
    const proposalId = requests.proposed(origin);
    if (command.type === 'slot.assign') assigning.set(proposalId, command);
    return { proposalId, bytes: encodeCommand(command) };
  }

  function propose(commands: readonly Command[], origin: Origin): void {
    office.proposed(commands);
    hub.consense({ type: 'propose', proposals: commands.map((command) => proposal(command, origin)) });
  }

  return {
    propose,
    changeVoters: (voters) =>
      hub.consense({ type: 'change-voters', voters, proposalId: requests.proposed({ kind: 'master' }) }),
    onProposal: (effect) => {
      const assignment = assigning.get(effect.proposalId);
      assigning.delete(effect.proposalId);
      if (!effect.result.ok) {
        if (assignment) office.settled(assignment);
        const origin = requests.rejected(effect.proposalId);
        if (origin) refuse(origin, effect.result.reason);
        return;
      }
      const { index, copies } = effect.result;
      if (assignment && index <= hub.state().applied) office.settled(assignment);
      else if (assignment) assigningAt.set(index, assignment);
      const known = requests.committed(effect.proposalId, index, copies);
      if (known) answer(known.origin, index, known.result, copies);
    },
    applied: (index, result) => {
      const assignment = assigningAt.get(index);
      if (assignment) {
        assigningAt.delete(index);
        office.settled(assignment);
      }
      const waiter = requests.applied(index, result);
      if (waiter) answer(waiter.origin, index, result, waiter.copies);
    },
    fromClients: (asked) => {
      const until = later(hub, hub.config.requestTimeoutMs);
      for (const { requestId } of asked) requests.wait(requestId, until, null);
      const leader = hub.leader();
      if (leader === hub.self) {
        office.proposed(asked.map(({ command }) => command));
        const batch = asked.map(({ requestId, command }) => proposal(command, { kind: 'client', requestId }));
        hub.consense({ type: 'propose', proposals: batch });
        return;
      }
      for (const { requestId, command } of asked) {
        if (leader !== null) control(hub, leader, { type: 'propose', requestId, command });
        else reply(requestId, ['no-master', 'no master is known here now']);
      }
    },
    fromWorkshop: ({ key, outcome, exitCode, error }) => {
      const leader = hub.leader();
      const command: Command = {
        type: 'slot.end',
        by: hub.self,
        at: hub.wall(),
        taskId: key.taskId,
        slot: key.slot,
        generation: key.generation,
        outcome,
        exitCode,
        error,
      };
      if (leader === hub.self) propose([command], { kind: 'master' });
      else if (leader !== null) control(hub, leader, { type: 'propose', requestId: 0, command });
    },
    fromPeer: (from, message) => {
      const refusal = MASTER_ONLY.has(message.command.type)
        ? 'refused'
        : hub.leader() !== hub.self
          ? 'no-master'
          : undefined;
      if (refusal === undefined) propose([message.command], { kind: 'peer', peer: from, requestId: message.requestId });
      else
        control(hub, from, {
          type: 'propose-result',
          requestId: message.requestId,
          ok: false,
          index: logIndex(0),
          result: null,
          reason: refusal,
        });
    },
    resultFromMaster: (message) => {
      if (message.ok && message.result)
        reply(message.requestId, { index: message.index, result: message.result, copies: 0 });
      else
        reply(message.requestId, [
          message.reason === 'busy' || message.reason === 'superseded' ? message.reason : 'no-master',
          'the master did not take the change',
        ]);
    },
  };
}

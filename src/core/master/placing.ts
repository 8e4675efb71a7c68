import type { Command } from '../../model/commands.ts';
import type { MonoMs } from '../../model/ids.ts';
import { LIMITS } from '../../model/limits.ts';
import { isExclusive } from '../../model/task-spec.ts';
import type { Candidate, Placement, PlacementRequest } from '../scheduling/types.ts';
import { nextGeneration } from '../state/state.ts';
import type { Memory } from './memory.ts';
import { close, closeCommand, type Decisions, evidenceAbout, MAX_EVIDENCE, type Wish } from './tasks.ts';
import type { MasterContext } from './types.ts';

// All slots that need a machine are placed together, so that each sees those before it, and go out as one batch.

/** Half of what consensus takes: clients' proposals need room too. */
const MAX_IN_FLIGHT = LIMITS.proposalsInFlight / 2;

export function placeAll(m: Memory, ctx: MasterContext, { wishes, out }: Decisions, now: MonoMs): void {
  if (wishes.length === 0) return;
  wishes.sort(
    (a, b) =>
      b.task.spec.priority - a.task.spec.priority ||
      a.task.acceptedIndex - b.task.acceptedIndex ||
      a.slot.slot - b.slot.slot,
  );
  const room = Math.min(m.config.placeAtOnce, MAX_IN_FLIGHT - m.inFlight.size);
  for (const w of wishes.splice(Math.max(0, room))) {
    m.dirtyTasks.add(w.task.id);
    m.unfinished = true;
  }
  const candidates: Candidate[] = [];
  for (const id of ctx.state.peers.keys()) {
    const candidate = m.condition(ctx, id, now).kind === 'ok' ? m.fleet.candidate(ctx, id) : undefined;
    if (candidate !== undefined) candidates.push(candidate);
  }
  const requests = wishes.map(
    (w): PlacementRequest => ({
      taskId: w.task.id,
      slot: w.slot.slot,
      spec: w.task.spec,
      avoid: m.avoidance.of(w.text, now),
    }),
  );
  const byText = new Map(m.place(requests, candidates).map((p) => [`${p.request.taskId}.${p.request.slot}`, p]));
  for (const w of wishes) {
    const placement = byText.get(w.text);
    if (placement?.ok) carryOut(m, ctx, w, placement, now, out);
    else if (placement !== undefined) {
      m.wait(w.task, w.slot, `${placement.reason} (${w.need.reason})`, placement.rejections);
      const retry = m.avoidance.nextOf(w.text, now);
      if (retry !== undefined) m.wakes.setEarlier(`t${w.task.id}`, retry);
    }
  }
}

function carryOut(
  m: Memory,
  ctx: MasterContext,
  w: Wish,
  p: Extract<Placement, { ok: true }>,
  now: MonoMs,
  out: Command[],
): void {
  const { task, slot, need } = w;
  if (need.drain && need.about !== null) {
    const move = m.drains.get(need.about);
    if (move !== undefined && move.text !== w.text) {
      m.fleet.spoil(p.node);
      return;
    }
    const until = now + m.config.drainStepMs;
    m.drains.set(need.about, { text: w.text, taskId: task.id, slot: slot.slot, until });
    m.wakes.set(`n${need.about}`, until);
  }
  if (w.dry) {
    m.fleet.spoil(p.node);
    close(m, ctx, w, now, out);
    return;
  }
  const generation = nextGeneration(ctx.state, slot);
  if (need.close) out.push(closeCommand(m, ctx, w));
  if (isExclusive(task.spec)) ctx.granter.assigning({ taskId: task.id, slot: slot.slot, generation });
  out.push({
    type: 'slot.assign',
    by: m.self,
    at: ctx.wall,
    taskId: task.id,
    slot: slot.slot,
    generation,
    node: p.node,
    reason: `${need.reason}; ${p.reason}`,
    evidence: [...evidenceAbout(ctx, need.about), ...p.evidence].slice(0, MAX_EVIDENCE),
  });
  m.takeOff(task, w.text, generation, p.node, now);
  m.hold(w.text, p.node, task, true);
}

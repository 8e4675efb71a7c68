import fc from 'fast-check';
import { expect, test } from 'vitest';
import type { Command } from '../../../src/model/commands.ts';
import { type NodeId, nodeId, taskId, wallMs } from '../../../src/model/ids.ts';
import { createRng } from '../../../src/model/random.ts';
import { harness, words } from './harness.ts';

// Machines come and go, tasks come and go, proposals are lost or fail, mastery changes hands. Always: an evaluation repeated
// at once decides nothing more, and what is decided is accepted by the records' rules when nothing came between. In the end,
// with faults gone: every slot that is to run is assigned to a machine that is there, or its reason to wait is known.

const NODES = ['A', 'B', 'C', 'D'].map(nodeId);
const meta = { by: NODES[0] as NodeId, at: wallMs(0) };

function world(seed: number) {
  const rng = createRng(seed);
  const h = harness(NODES);
  let now = 100_000;
  let termNo = 1;
  let tasks = 0;
  const problems: string[] = [];
  const live: string[] = [];

  const decide = (): readonly Command[] => {
    const commands = h.decide().flatMap((e) => (e.type === 'propose' ? e.commands : []));
    const again = h.decide().flatMap((e) => (e.type === 'propose' ? e.commands : []));
    if (again.length > 0) problems.push(`twice: ${again.map(words).join(', ')}`);
    return commands;
  };
  const turn = (t: number): void => {
    now = t;
    h.clock(now);
    const commands = decide();
    if (commands.length === 0) return;
    const fate = rng.next();
    if (fate < 0.1) h.master.proposalDone(false);
    else if (fate < 0.9) {
      const ok = h.apply(commands);
      for (const [i, c] of commands.entries()) if (!ok[i]) problems.push(`refused: ${words(c)} at ${now}`);
    }
    // else: lost without a word
  };
  const actions: Record<string, () => void> = {
    submit: () => {
      const id = `t${tasks++}`;
      live.push(id);
      h.submit(
        {
          replicas: rng.int(1, 4),
          cpus: rng.int(0, 1),
          onPartition: rng.pick(['keep', 'stop']) as 'keep',
          onNodeLoss: rng.next() < 0.8 ? 'reschedule' : 'wait',
        },
        id,
      );
    },
    remove: () => {
      const [id] = live.splice(rng.int(0, Math.max(0, live.length - 1)), 1);
      if (id !== undefined) h.apply([{ type: 'task.remove', ...meta, taskId: taskId(id) }]);
    },
    desire: () => {
      const id = rng.pick(live);
      if (id !== undefined)
        h.apply([
          {
            type: 'task.desire',
            ...meta,
            taskId: taskId(id),
            desired: rng.pick(['running', 'stopped']) as 'running',
            restart: rng.next() < 0.5,
          },
        ]);
    },
    status: () =>
      h.status(
        rng.pick(NODES.slice(1)) as NodeId,
        rng.pick(['alive', 'alive', 'suspect', 'dead', 'agent-down', 'left']) as 'alive',
        now,
      ),
    drain: () =>
      h.apply([
        {
          type: 'peer.update',
          ...meta,
          nodeId: rng.pick(NODES) as NodeId,
          patch: { availability: rng.pick(['active', 'active', 'drain']) as 'active' },
        },
      ]),
    blocked: () => {
      const id = rng.pick(live);
      const task = id === undefined ? undefined : h.state.tasks.get(taskId(id));
      const slot = task?.slots[0];
      if (slot?.state.kind === 'assigned')
        h.copy(slot.state.node, 0, slot.generation.g, { state: 'failed', startedAt: null, error: 'no image' }, id);
    },
    mastery: () => {
      h.lead(null);
      h.lead(++termNo);
    },
  };
  for (let i = 0; i < 120; i++) {
    actions[
      rng.pick(['submit', 'submit', 'remove', 'desire', 'status', 'status', 'drain', 'blocked', 'mastery']) as string
    ]?.();
    turn(now + rng.int(0, 2000));
  }
  // Calm.
  for (const id of NODES) {
    h.status(id, 'alive', now);
    h.fact(id, { copies: [] });
    h.apply([{ type: 'peer.update', ...meta, nodeId: id, patch: { availability: 'active' } }]);
  }
  for (let i = 0; i < 200; i++) {
    const wake = h.master.nextWake() ?? now + 1000;
    now = Math.min(Math.max(now + 1, wake), now + 5000);
    h.clock(now);
    h.apply(decide());
  }
  for (const task of h.state.tasks.values()) {
    for (const slot of task.slots) {
      if (task.desired === 'stopped' || slot.state.kind === 'assigned') continue;
      if (h.master.waiting().get(task.id)?.slots.includes(slot.slot) !== true)
        problems.push(`${task.id}.${slot.slot} is ${slot.state.kind} and nobody knows why`);
    }
  }
  const assigned = [...h.state.openSlots.keys()].length;
  return { problems, assigned };
}

test('decided once, accepted, and in the end everything has its place or its reason', () => {
  let assigned = 0;
  fc.assert(
    fc.property(fc.integer(), (seed) => {
      const w = world(seed);
      assigned += w.assigned;
      expect(w.problems.slice(0, 5), `seed ${seed}`).toEqual([]);
    }),
    { numRuns: 60 },
  );
  expect(assigned).toBeGreaterThan(200);
});

import fc from 'fast-check';
import { expect, it } from 'vitest';
import {
  apply,
  createState,
  dumpState,
  nextGeneration,
  restoreState,
  stateDigest,
} from '../../../src/core/state/state.ts';
import type { ClusterState, StatePut } from '../../../src/core/state/types.ts';
import { decodeCommand, encodeCommand } from '../../../src/model/command-codec.ts';
import type { Command } from '../../../src/model/commands.ts';
import { compareGeneration, type Generation } from '../../../src/model/generation.ts';
import { logIndex, nodeId, taskId, wallMs } from '../../../src/model/ids.ts';
import {
  admit,
  assign,
  close,
  type Draft,
  desire,
  end,
  HOUR,
  init,
  peer,
  release,
  remove,
  START,
  submit,
  update,
} from './fixtures.ts';

// Any sequence of commands, sensible or not: what was written equals what is held, a restored peer equals one that was there
// all the time, the indexes equal a scan, generations strictly rise, and no removed id comes back.

const id = fc.constantFrom('t1', 't2', 't-2', 't1.a');
const node = fc.constantFrom('n1', 'n2', 'n3');
const slot = fc.integer({ min: 0, max: 3 });
const g = fc.integer({ min: 0, max: 4 });
const replicas = fc.integer({ min: 0, max: 4 });

const draft: fc.Arbitrary<Draft | 'assign-next'> = fc.oneof(
  {
    weight: 4,
    arbitrary: fc
      .tuple(id, replicas, fc.constantFrom(undefined, 'shared'))
      .map(([t, r, name]) => submit(t, { replicas: r, ...(name ? { name } : {}) })),
  },
  { weight: 8, arbitrary: fc.constant('assign-next' as const) },
  { weight: 2, arbitrary: fc.tuple(id, slot, g, node).map(([t, s, n, p]) => assign(t, s, n, p)) },
  { weight: 4, arbitrary: fc.tuple(id, slot, g).map(([t, s, n]) => close(t, s, n)) },
  { weight: 2, arbitrary: fc.tuple(id, slot, g).map(([t, s, n]) => release(t, s, n)) },
  { weight: 2, arbitrary: fc.tuple(id, slot, g).map(([t, s, n]) => end(t, s, n, n % 2 ? 'finished' : 'failed')) },
  { weight: 2, arbitrary: fc.tuple(id, replicas).map(([t, r]) => update(t, { replicas: r })) },
  {
    weight: 2,
    arbitrary: fc
      .tuple(id, fc.boolean(), fc.boolean())
      .map(([t, up, again]) => desire(t, up ? 'running' : 'stopped', again)),
  },
  { weight: 2, arbitrary: id.map((t) => remove(t)) },
  { weight: 2, arbitrary: fc.tuple(node, fc.constantFrom(null, 'inv')).map(([p, inv]) => admit(p, inv)) },
  { weight: 1, arbitrary: node.map((p): Draft => ({ type: 'peer.remove', nodeId: nodeId(p) })) },
  {
    weight: 1,
    arbitrary: node.map((p): Draft => ({ type: 'peer.admit', peer: peer(p, { name: 'same' }), invitationId: null })),
  },
  {
    weight: 1,
    arbitrary: fc.constant<Draft>({
      type: 'invitation.add',
      invitation: { id: 'inv', key: 'k', expiresAt: wallMs(START + 10 * HOUR), usesLeft: 2 },
    }),
  },
  {
    weight: 1,
    arbitrary: id.map(
      (t): Draft => ({ type: 'task.refuse', id: taskId(t), reason: 'no', expiresAt: wallMs(START + HOUR) }),
    ),
  },
  {
    weight: 1,
    arbitrary: fc.constantFrom('', 'v').map((value): Draft => ({ type: 'setting.set', key: 'a/b', value })),
  },
);
/** Shrinking a failure stops after a while: a long counterexample is better than none. */
const BUDGET = { numRuns: 150, interruptAfterTimeLimit: 20_000 };
const steps = fc.array(fc.tuple(draft, fc.integer({ min: 0, max: 2 * HOUR })), { maxLength: 120, size: 'max' });

/** The command of a step in this state; assign-next is the one a master would propose. */
function commandOf(state: ClusterState, step: Draft | 'assign-next', at: number): Command {
  const meta = { by: nodeId('n1'), at: wallMs(at) };
  if (step !== 'assign-next') return { ...meta, ...step } as Command;
  const ref = [...state.pendingSlots.values(), ...state.closedSlots.values()][0];
  const record = ref && state.tasks.get(ref.taskId)?.slots[ref.slot];
  const peers = [...state.peers.keys()];
  if (!ref || !record) return { ...meta, ...admit('n2') } as Command;
  const generation = nextGeneration(state, record);
  return {
    ...meta,
    type: 'slot.assign',
    ...ref,
    generation,
    node: peers[at % peers.length] ?? nodeId('n1'),
    reason: 'r',
    evidence: [],
  };
}

function scan(state: ClusterState): Record<string, string[]> {
  const found: Record<string, string[]> = { open: [], pending: [], closed: [] };
  for (const task of state.tasks.values()) {
    for (const s of task.slots) {
      const text = `${task.id}/${s.slot}`;
      if (s.state.kind === 'assigned') {
        found.open?.push(text);
        found[s.state.node] = [...(found[s.state.node] ?? []), text];
      } else if (task.desired === 'running' && (s.state.kind === 'pending' || s.state.kind === 'closed'))
        found[s.state.kind]?.push(text);
    }
  }
  for (const list of Object.values(found)) list.sort();
  return found;
}

function indexed(state: ClusterState): Record<string, string[]> {
  const found: Record<string, string[]> = {
    open: [...state.openSlots.keys()].sort(),
    pending: [...state.pendingSlots.keys()].sort(),
    closed: [...state.closedSlots.keys()].sort(),
  };
  for (const [n, slots] of state.assignments) found[n] = [...slots.keys()].sort();
  return found;
}

const pairs = (store: ReadonlyMap<string, unknown>): StatePut[] =>
  [...store].map(([key, value]) => ({ key, value })).sort((a, b) => (a.key < b.key ? -1 : 1));
/** Everything but the heap's inner order, which a total order makes irrelevant. */
const comparable = ({ forgetting, ...rest }: ClusterState): unknown => ({ ...rest, forgetting: forgetting.size });

it('what is written is what is held; restored peers are like the others', () => {
  fc.assert(
    fc.property(steps, fc.nat(60), (sequence, cut) => {
      const state = createState();
      let other: ClusterState | undefined;
      const store = new Map<string, unknown>();
      let at = START;
      let index = 0;
      for (const [step, pause] of [[init, 0] as const, ...sequence]) {
        at += pause;
        index += 1;
        const command = commandOf(state, step, at);
        const decoded = decodeCommand(encodeCommand(command));
        expect(decoded).toEqual({ ok: true, command });
        const applied = apply(state, logIndex(index), command);
        for (const put of applied.puts) put.value === null ? store.delete(put.key) : store.set(put.key, put.value);
        if (!applied.result.ok) expect(applied.tasks).toEqual([]);
        if (index === cut) other = restoreState(structuredClone(pairs(store)), logIndex(index));
        else if (other) expect(apply(other, logIndex(index), command)).toEqual(applied);
      }
      expect([...dumpState(state)]).toEqual(pairs(store));
      const restored = restoreState(pairs(store), logIndex(index));
      expect(comparable(restored)).toEqual(comparable(state));
      expect(stateDigest(restored)).toBe(stateDigest(state));
      if (other) expect(stateDigest(other)).toBe(stateDigest(state));
    }),
    BUDGET,
  );
});

it('generations strictly rise, slots are open once, indexes equal a scan, removed ids stay away', () => {
  fc.assert(
    fc.property(steps, (sequence) => {
      const state = createState();
      const highest = new Map<string, Generation>();
      const removed = new Set<string>();
      let at = START;
      let index = 0;
      for (const [step, pause] of [[init, 0] as const, ...sequence]) {
        at += pause;
        index += 1;
        const command = commandOf(state, step, at);
        const was =
          command.type === 'slot.assign' ? state.tasks.get(command.taskId)?.slots[command.slot]?.state.kind : undefined;
        const { result } = apply(state, logIndex(index), command);
        if (command.type === 'slot.assign' && result.ok) {
          const text = `${command.taskId}/${command.slot}`;
          const last = highest.get(text);
          if (last) expect(compareGeneration(command.generation, last)).toBeGreaterThan(0);
          expect(['pending', 'closed']).toContain(was);
          highest.set(text, command.generation);
        }
        if (command.type === 'task.remove' && result.ok) removed.add(command.taskId);
        for (const t of removed) expect(state.tasks.has(taskId(t))).toBe(false);
        expect(indexed(state)).toEqual(scan(state));
        expect(new Set(state.taskNames.values()).size).toBe(state.tasks.size);
        expect(new Set([...state.peers.values()].map((p) => p.name)).size).toBe(state.peers.size);
      }
    }),
    BUDGET,
  );
});

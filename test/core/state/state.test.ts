import { describe, expect, it } from 'vitest';
import {
  apply,
  applyEntry,
  createState,
  dumpState,
  nextGeneration,
  restoreState,
  stateDigest,
} from '../../../src/core/state/state.ts';
import type { Applied } from '../../../src/core/state/types.ts';
import { encodeCommand } from '../../../src/model/command-codec.ts';
import type { Command } from '../../../src/model/commands.ts';
import { logIndex, nodeId, taskId, wallMs } from '../../../src/model/ids.ts';
import { LIMITS } from '../../../src/model/limits.ts';
import type { SlotRecord } from '../../../src/model/records.ts';
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
  story,
  submit,
  update,
} from './fixtures.ts';

const withTask = (...more: Draft[]) => story(init, admit('n2'), submit('t1'), ...more);
const code = ({ result }: Pick<Applied, 'result'>): string => (result.ok ? 'ok' : result.code);
const kinds = (slots: readonly SlotRecord[]): string[] => slots.map((s) => s.state.kind);

describe('fencing: a generation is given once, to one node, when no other is open', () => {
  it('takes exactly the next generation', () => {
    const s = withTask();
    for (const g of [0, 2, 3]) expect(code(s.run(assign('t1', 0, g, 'n1')))).toBe('stale');
    expect(code(s.run(assign('t1', 0, 1, 'n1', 2)))).toBe('stale');
    expect(code(s.run(assign('t1', 0, 1, 'n1')))).toBe('ok');
    expect(s.task('t1').slots[0]).toMatchObject({
      generation: { epoch: 1, g: 1 },
      state: { kind: 'assigned', node: 'n1' },
    });
  });
  it('refuses a provisional generation', () => {
    const s = withTask();
    const draft = assign('t1', 0, 1, 'n1') as Extract<Draft, { type: 'slot.assign' }>;
    expect(
      code(s.run({ ...draft, generation: { epoch: 1, g: 1, provisional: { caretaker: nodeId('n1'), n: 1 } } })),
    ).toBe('stale');
  });
  it('does not assign over an open assignment, closed or not by another', () => {
    const s = withTask(assign('t1', 0, 1, 'n1'));
    expect(code(s.run(assign('t1', 0, 2, 'n2')))).toBe('stale');
    expect(code(s.run(close('t1', 0, 2)))).toBe('stale');
    expect(code(s.run(close('t1', 0, 1)))).toBe('ok');
    expect(code(s.run(close('t1', 0, 1)))).toBe('stale');
    expect(code(s.run(assign('t1', 0, 1, 'n2')))).toBe('stale');
    expect(code(s.run(assign('t1', 0, 2, 'n2')))).toBe('ok');
    expect(s.task('t1').slots[0]?.state).toMatchObject({ kind: 'assigned', node: 'n2' });
  });
  it('releases and ends the current generation only', () => {
    const s = withTask(assign('t1', 0, 1, 'n1'), close('t1', 0, 1), assign('t1', 0, 2, 'n2'));
    for (const draft of [release('t1', 0, 1), end('t1', 0, 1), release('t1', 0, 3)])
      expect(code(s.run(draft))).toBe('stale');
    expect(code(s.run(end('t1', 0, 2)))).toBe('ok');
    expect(s.task('t1').slots[0]?.state).toMatchObject({ kind: 'finished', exitCode: 0, node: 'n2' });
    expect(code(s.run(end('t1', 0, 2)))).toBe('stale');
    expect(code(s.run(assign('t1', 0, 3, 'n1')))).toBe('refused');
  });
  it('takes the end of a run whose slot was just closed', () => {
    const s = withTask(assign('t1', 0, 1, 'n1'), close('t1', 0, 1));
    expect(code(s.run(end('t1', 0, 1, 'failed')))).toBe('ok');
    expect(kinds(s.task('t1').slots)).toEqual(['failed']);
  });
  it('never uses a generation of a slot again, not even after the slot was dropped and came back', () => {
    const s = story(
      init,
      submit('t1', { replicas: 2 }),
      assign('t1', 1, 1, 'n1'),
      update('t1', { replicas: 1 }),
      update('t1', { replicas: 2 }),
    );
    const slot = s.task('t1').slots[1] as SlotRecord;
    expect(slot.state.kind).toBe('pending');
    expect(nextGeneration(s.state, slot).g).toBeGreaterThan(1);
    expect(code(s.run(assign('t1', 1, 1, 'n1')))).toBe('stale');
    expect(code(s.run(assign('t1', 1, nextGeneration(s.state, slot).g, 'n1')))).toBe('ok');
  });
  it('assigns only to peers of the log that may run something', () => {
    const s = withTask(
      { type: 'peer.admit', peer: peer('w', { witness: true }), invitationId: null },
      { type: 'peer.update', nodeId: nodeId('n2'), patch: { availability: 'drain' } },
    );
    for (const node of ['gone', 'w', 'n2']) expect(code(s.run(assign('t1', 0, 1, node)))).toBe('refused');
  });
  it('goes on above all old generations in a new epoch', () => {
    const s = withTask(assign('t1', 0, 1, 'n1'), close('t1', 0, 1));
    const cluster = { ...(init as Extract<Draft, { type: 'cluster.init' }>).cluster, epoch: 2, epochId: 'e2' };
    expect(code(s.run({ type: 'cluster.init', cluster, founder: peer('n1') }))).toBe('ok');
    expect(code(s.run(assign('t1', 0, 2, 'n1', 1)))).toBe('stale');
    expect(code(s.run(assign('t1', 0, 2, 'n1', 2)))).toBe('ok');
    expect(code(s.run(init))).toBe('already_exists');
  });
});

describe('submissions', () => {
  it('are idempotent by id', () => {
    const s = withTask(assign('t1', 0, 1, 'n1'));
    const again = s.run(submit('t1'));
    expect(again).toMatchObject({ result: { ok: true }, puts: [], tasks: [] });
    expect(code(s.run(submit('t1', { priority: 7 })))).toBe('already_exists');
    expect(s.task('t1').spec.priority).toBe(0);
  });
  it('bear a name no live task bears; the refusal is remembered, so that it cannot slip in later', () => {
    const s = withTask();
    expect(code(s.run(submit('t2', { name: 't1' })))).toBe('name_in_use');
    s.run(remove('t1'));
    expect(code(s.run(submit('t2', { name: 't1' })))).toBe('name_in_use');
    expect(code(s.run(submit('t3', { name: 't1' })))).toBe('ok');
  });
  it('do not bring a removed task back until long after they have expired', () => {
    const s = withTask();
    s.later(HOUR);
    expect(code(s.run(remove('t1')))).toBe('ok');
    expect(code(s.run(remove('t1')))).toBe('ok');
    expect(code(s.run(submit('t1')))).toBe('refused');
    s.later(24 * HOUR);
    expect(code(s.run(submit('t1')))).toBe('refused');
    expect(s.state.verdicts.has(taskId('t1'))).toBe(true);
    s.later(24 * HOUR);
    expect(s.run(admit('n3')).puts).toContainEqual({ key: 'verdict/t1', value: null });
    expect(s.state.verdicts.size).toBe(0);
    // Forgotten, but expired as well.
    expect(code(s.run(submit('t1')))).toBe('refused');
  });
  it('are refused in the log by the master, once', () => {
    const s = story(init);
    const refusal: Draft = {
      type: 'task.refuse',
      id: taskId('x'),
      reason: 'no such runtime',
      expiresAt: wallMs(START + HOUR),
    };
    expect(code(s.run(refusal))).toBe('ok');
    expect(s.run(refusal)).toMatchObject({ result: { ok: true }, puts: [] });
    expect(s.run(submit('x')).result).toEqual({ ok: false, code: 'refused', reason: 'no such runtime' });
  });
  it('keep the verdict of a live task, however long it lives', () => {
    const s = withTask();
    s.later(1000 * HOUR);
    s.run(admit('n3'));
    expect(s.state.verdicts.get(taskId('t1'))?.verdict).toBe('accepted');
  });
});

describe('tasks', () => {
  it('stop, start and restart', () => {
    const s = story(
      init,
      submit('t1', { replicas: 3 }),
      assign('t1', 0, 1, 'n1'),
      assign('t1', 1, 1, 'n1'),
      close('t1', 1, 1),
    );
    expect(s.state.assignments.get(nodeId('n1'))?.size).toBe(1);
    s.run(desire('t1', 'stopped'));
    expect(s.task('t1').slots.map((x) => x.state)).toEqual(Array(3).fill({ kind: 'pending', reason: 'stopped' }));
    expect(s.state.pendingSlots.size + s.state.closedSlots.size + s.state.assignments.size).toBe(0);
    expect(code(s.run(assign('t1', 0, 2, 'n1')))).toBe('refused');
    expect(s.run(desire('t1', 'stopped')).puts).toEqual([]);
    s.run(desire('t1', 'running'));
    expect(s.state.pendingSlots.size).toBe(3);
    expect(s.task('t1').specVersion).toBe(1);
    expect(code(s.run(assign('t1', 0, 2, 'n1')))).toBe('ok');
    s.run(end('t1', 0, 2));
    s.run(desire('t1', 'running'));
    expect(s.task('t1').slots[0]?.state.kind).toBe('finished');
    s.run(desire('t1', 'running', true));
    expect(s.task('t1')).toMatchObject({
      specVersion: 2,
      slots: [{ state: { kind: 'pending', reason: 'restarted' } }, {}, {}],
    });
  });
  it('restart in place: an assigned slot keeps its generation', () => {
    const s = withTask(assign('t1', 0, 1, 'n1'), desire('t1', 'running', true));
    expect(s.task('t1')).toMatchObject({
      specVersion: 2,
      slots: [{ generation: { g: 1 }, state: { kind: 'assigned' } }],
    });
  });
  it('are scaled: the highest slots go', () => {
    const s = story(init, submit('t1', { replicas: 3 }), assign('t1', 0, 1, 'n1'), assign('t1', 2, 1, 'n1'));
    const down = s.run(update('t1', { replicas: 1 }));
    expect(s.task('t1')).toMatchObject({ specVersion: 2, slots: [{ slot: 0, state: { kind: 'assigned' } }] });
    expect(down.puts).toContainEqual({ key: 'slot/t1/0002', value: null });
    expect([...(s.state.assignments.get(nodeId('n1'))?.keys() ?? [])]).toEqual(['t1/0']);
    s.run(update('t1', { replicas: 4 }));
    expect(kinds(s.task('t1').slots)).toEqual(['assigned', 'pending', 'pending', 'pending']);
  });
  it('are renamed only to a free name', () => {
    const s = withTask(submit('t2'));
    expect(code(s.run(update('t2', { name: 't1' })))).toBe('name_in_use');
    expect(code(s.run(update('t2', { name: 'other' })))).toBe('ok');
    expect(s.state.taskNames.get('other')).toBe('t2');
    expect(s.state.taskNames.has('t2')).toBe(false);
  });
  it('tell what was decided, with the evidence, up to a limit', () => {
    const s = withTask();
    for (let g = 1; g <= LIMITS.decisionsPerTask; g++) {
      s.run(assign('t1', 0, g, g % 2 ? 'n1' : 'n2'));
      s.run(close('t1', 0, g));
    }
    const { decisions } = s.task('t1');
    expect(decisions).toHaveLength(LIMITS.decisionsPerTask);
    expect(decisions.at(-2)).toMatchObject({
      what: 'assigned',
      node: 'n2',
      reason: 'best of 2 machines that fit',
      evidence: ['2 of 2 machines fit'],
      by: 'n1',
    });
    expect([...dumpState(s.state)].filter((p) => p.key.startsWith('decision/'))).toHaveLength(LIMITS.decisionsPerTask);
  });
  it('write only what changed: one slot of 500, not the task', () => {
    const s = story(init, submit('t1', { replicas: 500 }));
    const keys = s.run(assign('t1', 250, 1, 'n1')).puts.map((p) => p.key);
    expect(keys.sort()).toEqual(['decision/t1/0000000000000003.0251', 'event/0000000000000003', 'slot/t1/0250']);
  });
});

describe('peers and invitations', () => {
  it('get a name of their own', () => {
    const s = story(init);
    for (const id of ['a', 'b', 'c']) s.run({ type: 'peer.admit', peer: peer(id, { name: 'n1' }), invitationId: null });
    expect([...s.state.peers.values()].map((p) => p.name)).toEqual(['n1', 'n1-2', 'n1-3', 'n1-4']);
    expect(code(s.run({ type: 'peer.update', nodeId: nodeId('a'), patch: { name: 'n1' } }))).toBe('name_in_use');
    s.run({ type: 'peer.remove', nodeId: nodeId('a') });
    s.run({ type: 'peer.admit', peer: peer('d', { name: 'n1' }), invitationId: null });
    expect(s.state.peers.get(nodeId('d'))?.name).toBe('n1-2');
  });
  it('use up an invitation, once per peer', () => {
    const invitation = { id: 'inv', key: 'k', expiresAt: wallMs(START + HOUR), usesLeft: 1 };
    const s = story(init, { type: 'invitation.add', invitation });
    expect(code(s.run(admit('a', 'other')))).toBe('not_found');
    expect(code(s.run(admit('a', 'inv')))).toBe('ok');
    expect(code(s.run(admit('a', 'inv')))).toBe('ok');
    expect(code(s.run(admit('b', 'inv')))).toBe('refused');
    expect(s.state.invitations.get('inv')?.usesLeft).toBe(0);
    s.run({ type: 'invitation.add', invitation: { ...invitation, id: 'inv2', usesLeft: 5 } });
    expect(s.state.invitations.has('inv')).toBe(false);
    s.later(HOUR);
    expect(code(s.run(admit('b', 'inv2')))).toBe('refused');
  });
  it('leave nothing assigned to a peer that was removed', () => {
    const s = withTask(assign('t1', 0, 1, 'n2'));
    expect(s.run({ type: 'peer.remove', nodeId: nodeId('n2') })).toMatchObject({
      result: { ok: true },
      peersChanged: true,
      tasks: ['t1'],
    });
    expect(s.task('t1').slots[0]?.state).toMatchObject({
      kind: 'closed',
      node: 'n2',
      reason: 'n2 was removed from the cluster',
    });
    expect(s.state.closedSlots.size).toBe(1);
    expect(code(s.run({ type: 'peer.remove', nodeId: nodeId('n1') }))).toBe('refused');
  });
});

describe('determinism', () => {
  it('a restored peer gives the same changes in the same order', () => {
    const s = story(
      init,
      admit('n2'),
      submit('t9'),
      submit('t1'),
      submit('t5'),
      assign('t9', 0, 1, 'n2'),
      assign('t1', 0, 1, 'n2'),
      assign('t5', 0, 1, 'n2'),
    );
    const restored = restoreState(structuredClone([...dumpState(s.state)]), s.state.applied);
    const draft: Draft = { type: 'peer.remove', nodeId: nodeId('n2') };
    const command = { ...draft, by: nodeId('n1'), at: wallMs(START) } as Command;
    expect(apply(restored, logIndex(s.index() + 1), command)).toEqual(s.run(draft));
  });
});

describe('bounds', () => {
  it('keep the newest events only', () => {
    const s = story(init, admit('n2'));
    const patch = (availability: 'drain' | 'active'): Draft => ({
      type: 'peer.update',
      nodeId: nodeId('n2'),
      patch: { availability },
    });
    for (let i = 0; i < LIMITS.eventsKept + 5; i++) s.run(patch(i % 2 ? 'active' : 'drain'));
    expect(s.state.events).toHaveLength(LIMITS.eventsKept);
    expect(s.state.events.at(-1)?.index).toBe(s.index());
    expect([...dumpState(s.state)].filter((p) => p.key.startsWith('event/'))).toHaveLength(LIMITS.eventsKept);
  });
  it('refuse peers, invitations and settings over their limits', () => {
    const s = story(init);
    for (let i = 1; i < LIMITS.peers; i++) s.run(admit(`p${i}`));
    expect(code(s.run(admit('one-more')))).toBe('limit');
    const key = (i: number): Draft => ({ type: 'setting.set', key: `k${i}`, value: 'v' });
    for (let i = 0; i < LIMITS.settings; i++) s.run(key(i));
    expect(code(s.run(key(-1)))).toBe('limit');
    s.run({ type: 'setting.set', key: 'k0', value: '' });
    expect(code(s.run(key(-1)))).toBe('ok');
  });
  it('applies 20,000 tasks and their assignments at a rate the log can never reach, and refuses one more', () => {
    const s = story(init);
    const began = performance.now();
    for (let i = 0; i < LIMITS.tasks; i++) s.run(submit(`t${i}`));
    for (let i = 0; i < LIMITS.tasks; i++) s.run(assign(`t${i}`, 0, 1, 'n1'));
    const took = performance.now() - began;
    expect(code(s.run(submit('one-more')))).toBe('limit');
    expect(s.state.assignments.get(nodeId('n1'))?.size).toBe(LIMITS.tasks);
    expect(took).toBeLessThan(8000);
  });
});

describe('entries of the log', () => {
  it('that cannot be read are applied as nothing', () => {
    const state = createState();
    const at = { by: nodeId('n1'), at: wallMs(START) };
    applyEntry(state, logIndex(1), encodeCommand({ ...at, ...init } as Command));
    const before = stateDigest({ ...state, applied: logIndex(3) });
    const odd = [
      new Uint8Array([1, 2, 3]),
      new Uint8Array(),
      encodeCommand({ ...at, type: 'task.explode' } as unknown as Command),
    ];
    const results = odd.map((bytes, i) => applyEntry(state, logIndex(i + 2), bytes));
    for (const r of results)
      expect(r).toMatchObject({ command: { type: 'unreadable' }, result: { ok: false, code: 'refused' }, puts: [] });
    expect(state.applied).toBe(4);
    expect(stateDigest({ ...state, applied: logIndex(3) })).toBe(before);
  });
  it('are applied once', () => {
    const state = createState();
    const bytes = encodeCommand({ by: nodeId('n1'), at: wallMs(START), ...init } as Command);
    expect(applyEntry(state, logIndex(1), bytes).result.ok).toBe(true);
    expect(applyEntry(state, logIndex(1), bytes)).toMatchObject({ result: { code: 'stale' }, puts: [] });
  });
  it('of a snapshot of an unknown kind are not passed over', () => {
    expect(() => restoreState([{ key: 'volume/x', value: {} }], logIndex(1))).toThrow('unknown kind');
  });
});

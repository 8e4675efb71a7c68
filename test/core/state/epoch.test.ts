import { describe, expect, it } from 'vitest';
import { nextGeneration } from '../../../src/core/state/state.ts';
import type { Applied } from '../../../src/core/state/types.ts';
import { nodeId, taskId } from '../../../src/model/ids.ts';
import { admit, assign, close, type Draft, init, story, submit } from './fixtures.ts';

// Recovery by force, and what becomes of copies that ran meanwhile (protocols 5: 'Majority gone for good', 'On heal').

const ids = (...names: string[]) => names.map(nodeId);
const code = ({ result }: Pick<Applied, 'result'>): string => (result.ok ? 'ok' : result.code);
const five = (...more: Draft[]) =>
  story(init, ...['n2', 'n3', 'n4', 'n5'].map((id) => admit(id)), submit('t1'), ...more);
const voters = ids('n1', 'n2', 'n3', 'n4', 'n5');
const recover = (epoch: number, dead: string[] = []): Draft => ({
  type: 'cluster.recover',
  epoch,
  epochId: `e${epoch}`,
  voters,
  dead: ids(...dead),
});
const account = (...nodes: string[]): Draft => ({
  type: 'cluster.account',
  nodes: ids(...nodes),
  how: 'of this epoch',
});

describe('a new epoch', () => {
  it('follows the one before, remembers it, and gives generations above all of it', () => {
    const s = five(assign('t1', 0, 1, 'n2'), close('t1', 0, 1));
    expect(code(s.run(recover(3)))).toBe('stale');
    expect(code(s.run(recover(2)))).toBe('ok');
    expect(s.state.cluster).toMatchObject({ epoch: 2, epochId: 'e2', parents: ['e1'] });
    const slot = s.task('t1').slots[0];
    expect(slot && nextGeneration(s.state, slot)).toEqual({ epoch: 2, g: 2 });
    expect(code(s.run(recover(2)))).toBe('stale');
    expect(code(s.run(recover(3)))).toBe('ok');
    expect(s.state.cluster).toMatchObject({ epoch: 3, parents: ['e1', 'e2'] });
  });

  it('is unsettled until the old voters left over are no majority any more', () => {
    const s = five(recover(2));
    expect(s.state.cluster?.unsettled).toEqual({ voters, accounted: ids('n1') });
    s.run(account('n2', 'n9'));
    expect(s.state.cluster?.unsettled?.accounted).toEqual(ids('n1', 'n2'));
    s.run(account('n2'));
    expect(s.state.cluster?.unsettled).toBeDefined();
    s.run(account('n5'));
    expect(s.state.cluster?.unsettled).toBeUndefined();
    expect(code(s.run(account('n3')))).toBe('stale');
  });

  it('is settled at once when enough are named dead', () => {
    expect(five(recover(2, ['n3', 'n4'])).state.cluster?.unsettled).toBeUndefined();
    expect(five(recover(2, ['n3'])).state.cluster?.unsettled).toBeDefined();
  });
});

describe('provisional copies', () => {
  const provisional = (g: number, n: number) => ({ epoch: 1, g, provisional: { caretaker: nodeId('n3'), n } });
  const adopt = (g: number, from: ReturnType<typeof provisional>): Draft => ({
    ...(assign('t1', 0, g, 'n3') as Extract<Draft, { type: 'slot.assign' }>),
    adopts: from,
  });
  const drop = (from: ReturnType<typeof provisional>): Draft => ({
    type: 'slot.drop',
    taskId: taskId('t1'),
    slot: 0,
    generation: from,
    reason: 'the committed copy runs',
    evidence: [],
  });
  const lost = () => five(assign('t1', 0, 1, 'n2'), close('t1', 0, 1));

  it('are adopted under g+1, by the name they bear, if they grew from g', () => {
    const s = lost();
    for (const from of [provisional(0, 1), provisional(2, 1)]) expect(code(s.run(adopt(2, from)))).toBe('refused');
    expect(code(s.run(adopt(2, provisional(1, 3))))).toBe('ok');
    expect(s.task('t1').slots[0]).toMatchObject({
      generation: { epoch: 1, g: 2 },
      state: { kind: 'assigned', node: 'n3', adopted: provisional(1, 3) },
    });
  });

  it('that were dropped are never adopted; later ones may be', () => {
    const s = lost();
    expect(code(s.run(drop(provisional(1, 2))))).toBe('ok');
    for (const n of [1, 2]) {
      expect(code(s.run(drop(provisional(1, n))))).toBe('stale');
      expect(code(s.run(adopt(2, provisional(1, n))))).toBe('refused');
    }
    expect(code(s.run(adopt(2, provisional(1, 3))))).toBe('ok');
    expect(s.task('t1').slots[0]?.dropped).toBeUndefined();
  });

  it('of exclusive tasks do not exist', () => {
    const s = story(init, admit('n2'), admit('n3'), submit('t1', { onPartition: 'stop' }));
    s.run(assign('t1', 0, 1, 'n2'));
    s.run(close('t1', 0, 1));
    expect(code(s.run(adopt(2, provisional(1, 1))))).toBe('refused');
  });
});

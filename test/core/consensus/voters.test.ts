import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { chooseVoters, type VoterCandidate, voterTarget } from '../../../src/core/consensus/voters.ts';
import type { MonoMs, NodeId } from '../../../src/model/ids.ts';

const NOW = 100_000 as MonoMs;
const machine = (id: string, more: Partial<VoterCandidate> = {}): VoterCandidate => ({
  id: id as NodeId,
  witness: false,
  zone: '',
  rank: 0,
  healthy: true,
  since: 0 as MonoMs,
  caughtUp: true,
  availability: 'active',
  ...more,
});
const dead = (forMs: number): Partial<VoterCandidate> => ({ healthy: false, since: (NOW - forMs) as MonoMs });
const choose = (admitted: VoterCandidate[], current: string, leader = current[0] ?? '') =>
  chooseVoters({ admitted, current: current.split('') as NodeId[], now: NOW, leader: leader as NodeId })?.join('') ??
  null;
const many = (names: string): VoterCandidate[] => names.split('').map((n) => machine(n));

test.each([
  [0, 0],
  [1, 1],
  [2, 1],
  [3, 3],
  [4, 3],
  [5, 5],
  [6, 5],
  [7, 7],
  [8, 7],
  [500, 7],
])('%i machines: %i voters', (machines, voters) => {
  expect(voterTarget(machines)).toBe(voters);
});

describe('chooseVoters', () => {
  test.each<[string, VoterCandidate[], string, string | null]>([
    ['two machines: the vote stays where it is', many('AB'), 'A', null],
    ['the third makes three', many('ABC'), 'A', 'ABC'],
    ['four: three go on', many('ABCD'), 'ABC', null],
    ['five', many('ABCDE'), 'ABC', 'ABCDE'],
    ['seven at the most', many('ABCDEFGH'), 'ABCDE', 'ABCDEFG'],
    ['three, one not caught up: no even set', [...many('AB'), machine('C', { caughtUp: false })], 'A', null],
    ['three, one healthy only just now', [...many('AB'), machine('C', { since: (NOW - 500) as MonoMs })], 'A', null],
    ['two machines and a witness are three', [...many('AB'), machine('W', { witness: true })], 'A', 'ABW'],
    ['one machine and a witness are one', [machine('A'), machine('W', { witness: true })], 'A', null],
    ['machines come before a witness', [...many('ABC'), machine('W', { witness: true, rank: 9 })], 'A', 'ABC'],
    ['four machines and a witness are five', [...many('ABCD'), machine('W', { witness: true })], 'ABC', 'ABCDW'],
    ['dead 9 s: wait', [...many('ABD'), machine('C', dead(9_000))], 'ABC', null],
    ['dead 10 s: replaced by the learner', [...many('ABD'), machine('C', dead(10_000))], 'ABC', 'ABD'],
    [
      'dead, but the learner is behind: wait',
      [...many('AB'), machine('D', { caughtUp: false }), machine('C', dead(60_000))],
      'ABC',
      null,
    ],
    ['three, one dead for good: the vote is left to one', [...many('AB'), machine('C', dead(10_000))], 'ABC', 'A'],
    [
      'no majority of the present set: nothing can be committed',
      [machine('A'), machine('B', dead(60_000)), machine('C', dead(60_000))],
      'ABC',
      null,
    ],
    ['a removed peer leaves at once', many('ABD'), 'ABC', 'ABD'],
    ['a draining voter makes room', [...many('ABD'), machine('C', { availability: 'drain' })], 'ABC', 'ABD'],
    ['draining with no successor: it stays', [...many('AB'), machine('C', { availability: 'drain' })], 'ABC', null],
    ['its log lost: it leaves first', [...many('AB'), machine('C', { logLost: true })], 'ABC', 'A'],
    ['its log lost, and a successor', [...many('ABD'), machine('C', { logLost: true })], 'ABC', 'ABD'],
    ['caught up again as a learner: it comes back', [...many('AB'), machine('C', { logLost: true })], 'A', 'ABC'],
  ])('%s', (_name, admitted, current, expected) => {
    expect(choose(admitted, current)).toBe(expected);
  });

  test('spread over zones', () => {
    const admitted = [
      machine('A', { zone: 'x' }),
      machine('B', { zone: 'x', rank: 9 }),
      machine('C', { zone: 'y' }),
      machine('D', { zone: 'z' }),
    ];
    expect(choose(admitted, 'A')).toBe('ACD');
  });

  test('shrinking keeps the leader', () => {
    expect(choose([...many('AB'), machine('C', dead(20_000))], 'ABC', 'B')).toBe('B');
  });

  test('always odd, committable, made of admitted peers, and stable once taken', () => {
    const candidate = fc.record({
      witness: fc.boolean(),
      zone: fc.constantFrom('', 'x', 'y'),
      rank: fc.integer({ min: 0, max: 3 }),
      healthy: fc.boolean(),
      since: fc.constantFrom(0, 95_000, 99_000),
      caughtUp: fc.boolean(),
      availability: fc.constantFrom('active' as const, 'drain' as const),
      logLost: fc.boolean(),
      votes: fc.boolean(),
    });
    fc.assert(
      fc.property(fc.array(candidate, { minLength: 1, maxLength: 9 }), (list) => {
        const admitted = list.map(({ votes: _, since, ...m }, i) => machine(`N${i}`, { ...m, since: since as MonoMs }));
        const current = admitted.filter((_, i) => list[i]?.votes).map((m) => m.id);
        const next = chooseVoters({ admitted, current, now: NOW });
        if (next === null) return;
        const well = (id: NodeId) => admitted.some((m) => m.id === id && m.healthy);
        expect(next.length % 2).toBe(1);
        expect(new Set(next).size).toBe(next.length);
        expect(next.filter(well).length * 2).toBeGreaterThan(next.length);
        expect(current.filter(well).length * 2).toBeGreaterThan(current.length);
        for (const id of next)
          if (!current.includes(id))
            expect(admitted.find((m) => m.id === id)).toMatchObject({ healthy: true, caughtUp: true });
        const after = admitted.map((m) => ({ ...m, logLost: false }));
        const again = chooseVoters({ admitted: after, current: next, now: NOW });
        if (!admitted.some((m) => m.logLost)) expect(again).toBe(null);
      }),
      { numRuns: 300 },
    );
  });
});

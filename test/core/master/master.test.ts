import { describe, expect, test } from 'vitest';
import { granterWaitMs } from '../../../src/core/lease/keys.ts';
import { DEFAULT_LEASE_CONFIG } from '../../../src/core/lease/types.ts';
import type { Command } from '../../../src/model/commands.ts';
import { monoMs, type NodeId, nodeId, taskId, wallMs } from '../../../src/model/ids.ts';
import { A, B, C, gen, key } from '../lease/fixtures.ts';
import { harness, nodeFacts, submission, words } from './harness.ts';

const WAIT = granterWaitMs(DEFAULT_LEASE_CONFIG);
const meta = { by: A, at: wallMs(0) };
const proposals = (effects: ReturnType<ReturnType<typeof harness>['decide']>): Command[] =>
  effects.flatMap((e) => (e.type === 'propose' ? e.commands : []));
const drain = (id: NodeId): Command => ({ type: 'peer.update', ...meta, nodeId: id, patch: { availability: 'drain' } });

describe('placing', () => {
  test('decides only as an established leader, and only once while a proposal is in flight', () => {
    const h = harness([A, B, C]);
    h.lead(null);
    h.submit({ replicas: 3 });
    expect(h.decide()).toEqual([]);
    h.lead(2);
    const first = proposals(h.decide());
    expect(first.map(words).sort()).toEqual(['assign t.0 g1 A', 'assign t.1 g1 B', 'assign t.2 g1 C']);
    expect(proposals(h.decide())).toEqual([]);
    h.master.mark({ all: true });
    expect(proposals(h.decide())).toEqual([]);
    h.apply(first);
    h.master.mark({ all: true });
    expect(proposals(h.decide())).toEqual([]);
  });

  test('every assignment says why, with evidence', () => {
    const h = harness([A, B]);
    h.submit();
    const [c] = proposals(h.decide());
    expect(c).toMatchObject({ type: 'slot.assign', by: A });
    if (c?.type !== 'slot.assign') throw new Error('no assignment');
    expect(c.reason).toContain('2 machines');
    expect(c.evidence.length).toBeGreaterThan(0);
  });

  test('two hundred slots go out as one batch', () => {
    const h = harness([A, B, C]);
    h.submit({ replicas: 200 });
    const effects = h.decide();
    expect(effects.filter((e) => e.type === 'propose')).toHaveLength(1);
    expect(proposals(effects)).toHaveLength(200);
  });

  test('a failed proposal is decided again; one never seen applied too, after its time', () => {
    const h = harness([A, B]);
    h.submit();
    expect(proposals(h.decide())).toHaveLength(1);
    h.master.proposalDone(false);
    expect(proposals(h.decide())).toHaveLength(1);
    expect(h.master.nextWake()).toBeLessThanOrEqual(h.now + 5000);
    expect(h.at(h.now + 5000)).toEqual(['assign t.0 g1 A']);
  });

  test('reservations in flight count, and are let go when the proposal failed', () => {
    const h = harness([A]);
    h.submit({ cpus: 3 }, 'x');
    const first = proposals(h.decide());
    h.submit({ cpus: 3 }, 'y');
    expect(proposals(h.decide())).toEqual([]);
    expect(h.master.waiting().get(taskId('y'))?.reason).toContain('cores');
    h.apply(first);
    expect(h.settle()).toEqual([]);
    h.apply([{ type: 'task.remove', ...meta, taskId: taskId('x') }]);
    expect(h.at(h.now + 1000)).toEqual(['assign y.0 g1 A']);
    expect(h.master.waiting().size).toBe(0);
  });

  test('what fits nowhere waits with its reason, and is placed when a machine changes', () => {
    const h = harness([A, B]);
    h.submit({ constraints: ['node.labels.zone==eu'] });
    expect(h.settle()).toEqual([]);
    expect(h.master.waiting().get(taskId('t'))).toMatchObject({ slots: [0], rejections: [{ node: A }, { node: B }] });
    h.fact(B, { load: { ...nodeFacts(B).load, cpuUsage: 0.5 } });
    expect(h.at(h.now + 1000)).toEqual([]);
    h.fact(B, { labels: { zone: 'eu' } });
    expect(h.at(h.now + 2000)).toEqual(['assign t.0 g1 B']);
  });

  test('higher priority first when not all fit', () => {
    const h = harness([A]);
    h.submit({ cpus: 3, priority: 0 }, 'low');
    h.submit({ cpus: 3, priority: 5 }, 'high');
    expect(h.settle()).toEqual(['assign high.0 g1 A']);
  });

  test('a bounded number at a time; the rest follow', () => {
    const h = harness([A, B], { placeAtOnce: 10 });
    h.submit({ replicas: 25 });
    expect(proposals(h.decide())).toHaveLength(10);
    expect(h.master.nextWake()).toBe(h.now + 1);
    expect(h.settle()).toHaveLength(15);
  });
});

describe('a machine is lost', () => {
  test('available slots: closed and assigned anew in one batch, with the evidence of the death', () => {
    const h = harness([A, B, C]);
    h.submit({ replicas: 6 });
    h.settle();
    h.status(B, 'suspect');
    expect(h.settle()).toEqual([]);
    h.status(B, 'dead');
    const effects = h.decide();
    expect(effects.filter((e) => e.type === 'propose')).toHaveLength(1);
    const commands = proposals(effects);
    expect(commands.map((c) => c.type)).toEqual(['slot.close', 'slot.assign', 'slot.close', 'slot.assign']);
    expect(commands[1]).toMatchObject({ reason: expect.stringContaining('node-B is dead') });
    expect(commands[1]).toMatchObject({ evidence: expect.arrayContaining(['no ack from B']) });
    expect(h.apply(commands)).toEqual([true, true, true, true]);
    expect(h.settle()).toEqual([]);
  });

  test('with nowhere to go the slot stays where it is, so that its machine may come back to it', () => {
    const h = harness([A, B]);
    h.submit({ constraints: ['node.id==B'] });
    h.settle();
    h.status(B, 'dead');
    expect(h.settle()).toEqual([]);
    expect(h.where()).toBe('assigned B g1');
    expect(h.master.waiting().get(taskId('t'))?.reason).toContain('node-B is dead');
    h.status(B, 'alive');
    expect(h.settle()).toEqual([]);
    expect(h.master.waiting().size).toBe(0);
  });

  test('agent-down: nothing for agentDownMs, then as lost; back in time: nothing at all', () => {
    const h = harness([A, B]);
    h.submit({ constraints: ['node.id!=A'] }, 'x');
    h.submit();
    h.settle();
    h.fact(A, { labels: { spare: '1' } });
    h.status(B, 'agent-down');
    expect(h.settle()).toEqual([]);
    expect(h.at(h.now + 4999)).toEqual([]);
    h.status(B, 'alive');
    expect(h.at(h.now + 10_000)).toEqual([]);
    h.submit({ onNodeLoss: 'reschedule', replicas: 2 }, 'y');
    h.settle();
    const slot = [0, 1].find((s) => h.where(s, 'y').includes(' B '));
    h.status(B, 'agent-down');
    h.settle();
    expect(h.master.nextWake()).toBeLessThanOrEqual(h.now + 5000);
    expect(h.at(h.now + 5000)).toContain(`assign y.${slot} g2 A`);
  });

  test('onNodeLoss wait: left where it is, unless the machine is removed for good', () => {
    const h = harness([A, B]);
    h.submit({ onNodeLoss: 'wait', constraints: ['node.labels.x==1'] });
    h.fact(B, { labels: { x: '1' } });
    h.settle();
    h.fact(A, { labels: { x: '1' } });
    h.status(B, 'dead');
    expect(h.settle()).toEqual([]);
    expect(h.master.waiting().get(taskId('t'))?.reason).toContain('onNodeLoss: wait');
    h.apply([{ type: 'peer.remove', ...meta, nodeId: B }]);
    // the records' own rules close what a removed peer held
    expect(h.settle()).toEqual(['assign t.0 g2 A']);
  });
});

describe('exclusive slots', () => {
  const lost = () => {
    const h = harness([A, B]);
    h.fact(A, { labels: {} });
    h.submit({ onPartition: 'stop', constraints: ['node.labels.x==1'] });
    h.fact(B, { labels: { x: '1' } });
    h.settle();
    h.fact(A, { labels: { x: '1' } });
    h.settle();
    return h;
  };
  const renew = (h: ReturnType<typeof harness>, released: number[] = [], g = 1) => {
    const k = { ...key(g), generation: gen(g, 0) };
    h.granter.onRenew(
      B,
      { type: 'lease-renew', seq: h.now, leases: [k], released: released.map(() => k) },
      monoMs(h.now),
    );
  };

  test('closed at once, granted again L(1+r) after the last renewal, not before', () => {
    const h = lost();
    h.at(h.now + 60_000);
    renew(h);
    const renewedAt = h.now;
    h.at(h.now + 300);
    h.status(B, 'dead');
    expect(h.settle()).toEqual(['close t.0 g1']);
    expect(h.where()).toBe('closed B g1');
    expect(h.master.waiting().get(taskId('t'))?.reason).toContain('lease');
    expect(h.master.nextWake()).toBeLessThanOrEqual(renewedAt + WAIT);
    expect(h.at(renewedAt + WAIT - 1)).toEqual([]);
    expect(h.at(renewedAt + WAIT)).toEqual(['assign t.0 g2 A']);
  });

  test('a new master waits from its own beginning', () => {
    const h = lost();
    h.status(B, 'dead');
    h.lead(null);
    h.at(h.now + 60_000);
    h.lead(2);
    const since = h.now;
    expect(h.settle()).toEqual(['close t.0 g1']);
    expect(h.at(since + WAIT - 1)).toEqual([]);
    expect(h.at(since + WAIT)).toEqual(['assign t.0 g2 A']);
  });

  test('proven dead by its holder: at once', () => {
    const h = lost();
    renew(h);
    h.fact(B, { labels: {} });
    h.apply([drain(B)]);
    expect(h.settle()).toEqual(['close t.0 g1']);
    h.at(h.now + 10);
    renew(h, [1]);
    h.master.mark({ tasks: [taskId('t')] });
    expect(h.settle()).toEqual(['assign t.0 g2 A']);
  });

  test('given up by its holder while assigned: closed and assigned anew', () => {
    const h = lost();
    renew(h, [1]);
    h.master.mark({ tasks: [taskId('t')] });
    const said = h.settle();
    expect(said[0]).toBe('close t.0 g1');
    expect(said[1]).toMatch(/^assign t\.0 g2 [AB]$/);
  });

  test('stopped and started again: its last lease is waited for', () => {
    const h = lost();
    h.at(h.now + 60_000);
    renew(h);
    const renewedAt = h.now;
    h.apply([{ type: 'task.desire', ...meta, taskId: taskId('t'), desired: 'stopped', restart: false }]);
    expect(h.settle()).toEqual([]);
    h.apply([{ type: 'task.desire', ...meta, taskId: taskId('t'), desired: 'running', restart: false }]);
    expect(h.settle()).toEqual([]);
    expect(h.at(renewedAt + WAIT)).toHaveLength(1);
  });

  test('drained: not closed before another machine would take it', () => {
    const h = harness([A, B]);
    h.submit({ onPartition: 'stop', constraints: ['node.id==B'] });
    h.settle();
    h.apply([drain(B)]);
    expect(h.settle()).toEqual([]);
    expect(h.where()).toBe('assigned B g1');
  });
});

describe('drain', () => {
  test('one slot at a time: the next when the last one runs elsewhere, or after a while', () => {
    const h = harness([A, B], { drainStepMs: 10_000 as never });
    h.submit({ replicas: 6 });
    h.settle();
    const onB = [0, 1, 2, 3, 4, 5].filter((s) => h.where(s).includes(' B '));
    h.apply([drain(B)]);
    expect(h.settle()).toEqual([`close t.${onB[0]} g1`, `assign t.${onB[0]} g2 A`]);
    expect(h.at(h.now + 5000)).toEqual([]);
    h.copy(A, onB[0] as number, 2, { state: 'running' });
    expect(h.settle()).toEqual([`close t.${onB[1]} g1`, `assign t.${onB[1]} g2 A`]);
    expect(h.at(h.now + 10_000)).toEqual([`close t.${onB[2]} g1`, `assign t.${onB[2]} g2 A`]);
  });
});

describe('a machine that cannot run it', () => {
  const blocked = { state: 'failed', startedAt: null, error: 'image x is not here' } as const;
  test('another one is tried, that one avoided for a while; with no other it stays and says why', () => {
    const h = harness([A, B]);
    h.submit();
    h.settle();
    expect(h.where()).toBe('assigned A g1');
    h.copy(A, 0, 1, blocked);
    const commands = proposals(h.decide());
    expect(commands.map(words)).toEqual(['close t.0 g1', 'assign t.0 g2 B']);
    expect(commands[1]).toMatchObject({ reason: expect.stringContaining('node-A cannot run it: image x is not here') });
    h.apply(commands);
    h.copy(B, 0, 2, blocked);
    expect(h.settle()).toEqual([]);
    expect(h.where()).toBe('assigned B g2');
    expect(h.master.waiting().get(taskId('t'))?.reason).toContain('cannot run it');
    expect(h.at(h.now + 29_000)).toEqual([]);
    expect(h.at(h.now + 1000)).toEqual(['close t.0 g2', 'assign t.0 g3 A']);
  });

  test('a run that failed is not that: it has a start time', () => {
    const h = harness([A, B]);
    h.submit();
    h.settle();
    h.copy(A, 0, 1, { state: 'failed', startedAt: wallMs(5), error: 'exit 1' });
    expect(h.settle()).toEqual([]);
  });
});

describe('submissions', () => {
  test('each is proposed once at a time; expired ones are refused; settled ones are left', () => {
    const h = harness([A]);
    h.settle();
    h.pending.set(taskId('x'), submission('x', {}, h.now));
    h.pending.set(taskId('y'), submission('y', {}, h.now - 86_400_001));
    expect(proposals(h.decide()).map(words)).toEqual(['submit x', 'refuse y']);
    h.pending.set(taskId('z'), submission('z', {}, h.now));
    const z = proposals(h.decide());
    expect(z.map(words)).toEqual(['submit z']);
    h.master.proposalDone(false);
    const again = proposals(h.decide());
    expect(again.map(words)).toEqual(['submit x', 'refuse y', 'submit z']);
    h.apply(again);
    h.master.mark({ submissions: true });
    expect(h.settle()).toEqual(['assign x.0 g1 A', 'assign z.0 g1 A']);
  });
});

describe('voters and mastery', () => {
  const roles = (effects: ReturnType<ReturnType<typeof harness>['decide']>) =>
    effects.filter((e) => e.type !== 'propose');
  test('voters follow the machines, once per change', () => {
    const h = harness([A, B, C]);
    expect(roles(h.decide())).toEqual([{ type: 'change-voters', voters: [A, B, C] }]);
    h.master.mark({ nodes: [B] });
    expect(roles(h.decide())).toEqual([]);
    h.voters = [A, B, C];
    h.master.mark({ all: true });
    expect(roles(h.decide())).toEqual([]);
  });

  test('the highest-ranked healthy caught-up voter takes over after ten stable seconds; not again at once', () => {
    const h = harness([A, B, C]);
    h.voters = [A, B, C];
    h.fact(C, { resources: { ...nodeFacts(C).resources, cpus: 64 } });
    expect(roles(h.decide())).toEqual([]);
    const start = h.now;
    h.at(start + 9000);
    h.match.set(C, -1000 as never);
    h.fact(C, { images: ['x'] });
    h.at(start + 9500);
    h.match.set(C, 0 as never);
    h.fact(C, { images: ['y'] });
    h.at(start + 10_500);
    expect(roles(h.decide())).toEqual([]);
    const due = h.master.nextWake() as number;
    expect(due).toBe(start + 20_500);
    const said: unknown[] = [];
    h.at(due - 1);
    for (const t of [due, due + 1000, due + 30_000]) {
      h.at(t - 1);
      h.master.mark({ nodes: [C] });
      // time moves on by one for the evaluation itself
      said.push(...roles(h.master.evaluate(h.contextAt(t), monoMs(t))));
    }
    expect(said).toEqual([{ type: 'transfer', to: C, reason: 'higher rank, healthy and caught up' }]);
  });

  test('a slow master hands over to the best other voter', () => {
    const h = harness([A, B, C]);
    h.voters = [A, B, C];
    h.decide();
    h.health = 4;
    expect(roles(h.decide())).toEqual([{ type: 'transfer', to: C, reason: expect.stringContaining('local health 4') }]);
    expect(roles(h.decide())).toEqual([]);
    const alone = harness([nodeId('X')]);
    alone.health = 8;
    expect(roles(alone.decide())).toEqual([]);
  });
});

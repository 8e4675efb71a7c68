import { describe, expect, test } from 'vitest';
import { formatResult } from '../../src/scenario/print.ts';
import { runScenario } from '../../src/scenario/runner.ts';
import { parseScenario, type ScenarioDocument } from '../../src/scenario/schema.ts';
import { FakeStage, type Flaws, RECOVERY_MS } from './fake-stage.ts';

const scenario = (
  faults: string,
  expectations = 'tasksLost: 0, tasksDoubled: 0, noHealthyMoved: true',
  load = '{ at: 0s, run: { name: web }, count: 4 }',
): ScenarioDocument =>
  parseScenario(
    `
name: a-test
description: for the tests
topology: { peers: 4, joining: 1, runtime: process }
load: [${load}]
faults: [${faults}]
expectations: { ${expectations} }
`,
    'a-test.yaml',
  );

const KILL = "{ at: 2s, do: kill, target: 'holder:web-2', whenSettled: true }";
const play = async (document: ScenarioDocument, flaws: Flaws = {}) => {
  const stage = new FakeStage(flaws);
  const result = await runScenario(document, stage);
  expect(stage.stopped).toBe(1);
  return {
    result,
    verdict: result.verdict,
    stage,
    failed: result.verdict.findings.filter((one) => !one.held).map((one) => one.what),
  };
};

describe('the runner', () => {
  test('measures recovery from the fault to the next witnessed start', async () => {
    const { verdict, failed, stage } = await play(
      scenario(
        KILL,
        'tasksLost: 0, tasksDoubled: 0, recoveries: 1, recoveryP50Ms: 800ms, recoveryMaxMs: 800ms, settledWithinMs: 800ms, noHealthyMoved: true, peersAlive: 3',
      ),
    );
    expect(failed).toEqual([]);
    expect(verdict.recoveries).toEqual([
      { task: 'web-2', slot: 0, from: 2, to: expect.any(Number), elapsedMs: RECOVERY_MS },
    ]);
    expect(stage.done).toEqual([{ do: 'kill', nodes: [2] }]);
  });

  test('says so when it was slower than expected', async () => {
    const { failed, verdict } = await play(scenario(KILL, 'recoveryP99Ms: 799ms, recoveries: 2'));
    expect(failed).toEqual(['recoveries seen', 'recovery p99']);
    expect(verdict.held).toBe(false);
  });

  test('limits of time can be shown only; what never recovered, and all else, is judged', async () => {
    const shown = async (document: ScenarioDocument, flaws: Flaws = {}) => {
      const result = await runScenario(document, new FakeStage(flaws), { times: 'shown' });
      return { held: result.verdict.held, text: formatResult(result) };
    };
    const slow = await shown(scenario(KILL, 'recoveryMaxMs: 799ms, tasksLost: 0'));
    expect(slow.held).toBe(true);
    expect(slow.text).toMatch(/slower recovery max +<= 799 ms +800 ms/);
    expect((await shown(scenario(KILL, 'recoveryMaxMs: 5s'), { loses: true })).held).toBe(false);
    expect((await shown(scenario(KILL, 'settledWithinMs: 5s'), { loses: true })).held).toBe(false);
    expect((await shown(scenario(KILL, 'tasksLost: 0'), { loses: true })).held).toBe(false);
  });

  test('finds a lost task, a doubled one, a healthy one moved, a refused one', async () => {
    expect((await play(scenario(KILL), { loses: true })).failed).toEqual(['tasks lost']);
    const cut = "{ at: 2s, do: cut, target: 'holder:web-2', whenSettled: true, undoAfter: 5s }";
    expect((await play(scenario(cut))).failed).toEqual([]);
    expect((await play(scenario(cut), { doubles: true })).failed).toEqual(['tasks doubled']);
    expect((await play(scenario(KILL), { movesHealthy: true })).failed).toEqual(['copies moved off healthy machines']);
    expect((await play(scenario('', 'tasksRefused: 0'), { refuses: 'web-3' })).failed).toEqual(['tasks refused']);
  });

  test('unchanged holds only if node, generation and start stay', async () => {
    const agent = "{ at: 2s, do: kill-agent, target: 'holder:web-2', whenSettled: true }";
    expect((await play(scenario(agent, 'unchanged: true'))).failed).toEqual([]);
    expect((await play(scenario(KILL, 'unchanged: true'))).failed).toEqual([
      'slots changed (node, generation or start)',
    ]);
  });

  test('repeats a fault over every peer in turn, undoing each before the next', async () => {
    const { stage, failed, verdict } = await play(
      scenario(
        '{ at: 1s, do: kill, target: next, whenSettled: true, undoAfter: 2s, repeat: 6, every: 1s }',
        'tasksLost: 0, recoveries: 6',
      ),
    );
    expect(failed).toEqual([]);
    expect(stage.done.map((fault) => `${fault.do} ${fault.do === 'partition' ? '' : fault.nodes.join()}`)).toEqual(
      [1, 2, 3, 4, 1, 2].flatMap((node) => [`kill ${node}`, `start ${node}`]),
    );
    expect(verdict.recoveries.length).toBeGreaterThanOrEqual(6);
  });

  test('random targets differ from those named beside them, and follow the seed', async () => {
    const two = scenario("{ at: 2s, do: kill, target: ['holder:web-2', random], whenSettled: true }");
    const kills = async (seed: string) => {
      const stage = new FakeStage();
      await runScenario(two, stage, { seed });
      return stage.done[0]?.do === 'kill' ? stage.done[0].nodes : [];
    };
    const seen = await Promise.all(['a', 'a', 'b', 'c', 'd', 'e'].map(kills));
    expect(seen.every((nodes) => nodes.length === 2 && nodes[0] === 2 && nodes[1] !== 2)).toBe(true);
    expect(seen[0]).toEqual(seen[1]);
    expect(new Set(seen.map(String)).size).toBeGreaterThan(1);
  });

  test('every machine down at once and back', async () => {
    const { stage } = await play(
      scenario('{ at: 2s, do: kill, target: all, whenSettled: true }, { at: 4s, do: start, target: down }', ''),
    );
    expect(stage.done).toEqual([
      { do: 'kill', nodes: [1, 2, 3, 4] },
      { do: 'start', nodes: [1, 2, 3, 4] },
    ]);
  });

  test('refuses, before it starts anything, what the stage cannot do', async () => {
    const stage = new FakeStage({}, ['kill']);
    await expect(runScenario(scenario('{ at: 1s, do: kill, target: 1, undoAfter: 1s }'), stage)).rejects.toThrow(
      /needs start, which the stage 'simulated' cannot do/,
    );
    expect(stage.stopped).toBe(0);
  });

  test('the result reads as a verdict', async () => {
    const { result } = await play(scenario(KILL, 'tasksLost: 0, recoveryMaxMs: 500ms'));
    const text = formatResult(result);
    expect(text).toMatch(/held {3}tasks lost/);
    expect(text).toMatch(/FAILED recovery max +<= 500 ms +800 ms/);
    expect(text).toMatch(/recoveries: 1; p50 800 ms, p99 800 ms, max 800 ms/);
    expect(text).toMatch(/NOT all expectations held/);
  });
});

import { describe, expect, test } from 'vitest';
import { listScenarios, scenarioMain } from '../../src/scenario/main.ts';
import { parseScenario } from '../../src/scenario/schema.ts';

const good = `name: good
description: d
topology: { peers: 3, runtime: docker }
load: [{ at: 0s, run: { name: web } }]
faults: []
expectations: {}
`;

describe('scenario files', () => {
  test('those that come with the program are all there and all right', () => {
    const all = listScenarios();
    const named = [
      'agent-crash',
      'cold-start',
      'cut-and-heal',
      'engine-crash',
      'join-under-load',
      'kill-master',
      'kill-one',
      'kill-two-of-five',
      'rolling-kill',
    ];
    expect(all.map((one) => one.name)).toEqual(expect.arrayContaining(named));
    for (const one of all) expect(Object.keys(one.expectations).length, one.name).toBeGreaterThan(2);
  });

  test.each([
    ['topology.peers (line 3)', good.replace('peers: 3', 'peers: many')],
    ["topology.wings (line 3): unknown field 'wings'", good.replace('peers: 3', 'peers: 3, wings: 2')],
    ["load[0].at (line 4): expected a duration such as 300ms, 1.5s or 2m, found 'soon'", good.replace('0s', 'soon')],
    ['expectations (line 1): is required', good.replace('expectations: {}\n', '')],
    ['faults[0].target (line 5): kill needs a target', good.replace('[]', '[{ at: 1s, do: kill }]')],
    [
      "faults[0].target (line 5): no load publishes a task 'db'",
      good.replace('[]', "[{ at: 1s, do: kill, target: 'holder:db' }]"),
    ],
    ['faults[0].target (line 5): there is no node 4', good.replace('[]', '[{ at: 1s, do: kill, target: 4 }]')],
    ['faults[0].groups (line 5): a partition needs its groups', good.replace('[]', '[{ at: 1s, do: partition }]')],
    [
      'faults[0].undoAfter (line 5): join cannot be undone',
      good.replace('[]', '[{ at: 1s, do: join, target: 3, undoAfter: 1s }]'),
    ],
    ['topology.witnesses (line 3): must leave a peer', good.replace('peers: 3', 'peers: 3, witnesses: 3')],
    ['line 4: Flow map', good.replace('{ peers: 3, runtime: docker }', '{ peers: 3')],
  ])('%s', (message, text) => {
    expect(() => parseScenario(text, 'x.yaml')).toThrow(message);
  });

  test('the command says what to do next', async () => {
    const said: string[] = [];
    const io = { out: (text: string) => void said.push(text), err: (text: string) => void said.push(text) };
    expect(await scenarioMain(['run', 'no-such'], io)).toBe(2);
    expect(said.join()).toMatch(/no scenario no-such[\s\S]*kill-one/);
    expect(await scenarioMain(['run', 'kill-one', '--stage', 'moon'], io)).toBe(2);
    expect(said.at(-1)).toMatch(/no stage 'moon': processes, hosts/);
    expect(await scenarioMain(['run', 'cut-and-heal', '--runtime', 'process'], io)).toBe(2);
    expect(said.at(-1)).toMatch(/needs cut, heal, partition/);
  });
});

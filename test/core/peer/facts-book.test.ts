import { describe, expect, it } from 'vitest';
import { createFactsBook } from '../../../src/core/peer/facts-book.ts';
import type { HostFacts } from '../../../src/core/peer/types.ts';
import type { CopyFact } from '../../../src/model/facts.ts';
import { incarnation, nodeId, taskId } from '../../../src/model/ids.ts';

// Anti-entropy (Demers et al. 1987): last writer wins per (incarnation, version); whoever misses a delta asks for all.

const A = nodeId('A');
const B = nodeId('B');
const head = (cpuUsage: number): HostFacts => ({
  name: 'a',
  addresses: ['/x'],
  bootProbe: [],
  agentVersion: '0',
  wireVersion: 1,
  os: 'linux',
  arch: 'x64',
  runtimes: ['process'],
  problems: [],
  canFence: true,
  resources: { cpus: 2, memoryBytes: 1, diskBytes: 1, gpus: [], devices: [] },
  load: {
    cpuUsage,
    cpuFrequencyMHz: null,
    memoryUsedBytes: 0,
    diskUsedBytes: 0,
    temperatureC: null,
    battery: null,
    fansRpm: [],
    gpus: [],
  },
  labels: {},
  priority: 0,
  witness: false,
  images: [],
});
const copy = (n: number, state: CopyFact['state'] = 'running'): CopyFact => ({
  taskId: taskId(`t${n}`),
  slot: 0,
  generation: { epoch: 1, g: 1 },
  state,
  health: 'none',
  startedAt: null,
  exitCode: null,
  restarts: 0,
  error: '',
  handle: '',
  ports: [],
});
const all = () => true;

function pair() {
  const a = createFactsBook(A, incarnation(1));
  const b = createFactsBook(B, incarnation(1));
  const give = (deltas: ReturnType<typeof a.updateOwn>) =>
    deltas.map((delta) => b.receive({ type: 'facts-delta', delta }, all));
  return { a, b, give };
}

describe('facts book', () => {
  it('deltas in order rebuild the document, removed copies included', () => {
    const { a, b } = pair();
    a.updateOwn({ head: head(0.1) });
    const own = a.own();
    if (own) b.receive({ type: 'facts-full', facts: own }, all);
    for (const deltas of [
      a.updateOwn({ copies: [copy(1), copy(2)] }),
      a.updateOwn({ copies: [copy(2, 'stopping')] }),
      a.updateOwn({ head: head(0.9) }),
    ])
      for (const delta of deltas) expect(b.receive({ type: 'facts-delta', delta }, all).changed).toEqual([A]);
    expect(b.all.get(A)).toEqual(a.own());
  });

  it('a change too large for one frame travels in parts that join on', () => {
    const { a, b } = pair();
    a.updateOwn({ head: head(0) });
    const own = a.own();
    if (own) b.receive({ type: 'facts-full', facts: own }, all);
    const deltas = a.updateOwn({ copies: Array.from({ length: 200 }, (_, i) => copy(i)) });
    expect(deltas.length).toBe(4);
    for (const delta of deltas) b.receive({ type: 'facts-delta', delta }, all);
    expect(b.all.get(A)?.copies.length).toBe(200);
  });

  it('a gap is noticed and asked for, not applied', () => {
    const { a, b } = pair();
    a.updateOwn({ head: head(0) });
    const own = a.own();
    if (own) b.receive({ type: 'facts-full', facts: own }, all);
    a.updateOwn({ copies: [copy(1)] });
    const [later] = a.updateOwn({ copies: [copy(1), copy(2)] });
    expect(later && b.receive({ type: 'facts-delta', delta: later }, all)).toEqual({
      changed: [],
      replies: [{ type: 'facts-want', nodes: [A] }],
    });
    const [full] = a.receive({ type: 'facts-want', nodes: [A] }, all).replies;
    if (full) b.receive(full, all);
    expect(b.all.get(A)).toEqual(a.own());
  });

  it('an older document never replaces a newer one; a higher incarnation does', () => {
    const { a, b, give } = pair();
    give(a.updateOwn({ head: head(0.5) }));
    const old = a.own();
    give(a.updateOwn({ head: head(0.6) }));
    if (a.own()) b.receive({ type: 'facts-full', facts: a.own() as NonNullable<typeof old> }, all);
    if (old) expect(b.receive({ type: 'facts-full', facts: old }, all).changed).toEqual([]);
    const reborn = createFactsBook(A, incarnation(2));
    reborn.updateOwn({ head: head(0.1) });
    expect(b.receive({ type: 'facts-full', facts: reborn.own() as NonNullable<typeof old> }, all).changed).toEqual([A]);
    expect(b.all.get(A)?.load.cpuUsage).toBe(0.1);
  });

  it('nobody speaks for this peer, and strangers are not listened to', () => {
    const { a, b } = pair();
    a.updateOwn({ head: head(0.1) });
    b.updateOwn({ head: head(0.2) });
    const forged = { ...(a.own() as NonNullable<ReturnType<typeof a.own>>), nodeId: B, version: 99 };
    expect(b.receive({ type: 'facts-full', facts: forged }, all).changed).toEqual([]);
    expect(
      b.receive({ type: 'facts-full', facts: a.own() as NonNullable<ReturnType<typeof a.own>> }, () => false).changed,
    ).toEqual([]);
  });

  it('a digest gives what the other lacks and asks for what it has newer', () => {
    const { a, b } = pair();
    a.updateOwn({ head: head(0.1) });
    b.updateOwn({ head: head(0.2) });
    const { replies } = b.receive(a.digest(false), all);
    expect(replies.map((r) => r.type).sort()).toEqual(['facts-full', 'facts-want']);
  });
});

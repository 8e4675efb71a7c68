import { Type } from 'typebox';
import { describe, expect, it } from 'vitest';
import { createState } from '../../src/core/state/state.ts';
import { TaskOrgError } from '../../src/model/errors.ts';
import type { CopyFact, NodeFacts } from '../../src/model/facts.ts';
import { nodeId, taskId, wallMs } from '../../src/model/ids.ts';
import type { TaskRecord } from '../../src/model/records.ts';
import { compileValidator, query, TaskDocumentBody } from '../../src/services/api/openapi.ts';
import { type Look, look, named, viewTask } from '../../src/services/api/views.ts';
import { decodeFrames, encodeError, errorOfFrame, FRAME } from '../../src/services/remote/stream-frames.ts';
import { taskSpec } from '../model/fixtures.ts';

const NODES = ['n1', 'n2', 'n3'].map(nodeId);
const TASKS = 5000;

/** A peer of three machines that run all tasks. */
function crowd(): { readonly peer: Look['peer']; readonly tasks: readonly TaskRecord[] } {
  const generation = { epoch: 1, g: 1 };
  const tasks = Array.from({ length: TASKS }, (_, i) => ({
    id: taskId(`t${i}`),
    spec: taskSpec({ name: `task-${i}` }),
    specVersion: 1,
    desired: 'running',
    acceptedAt: wallMs(1),
    decisions: [],
    slots: [{ slot: 0, generation, state: { kind: 'assigned', node: NODES[i % 3] } }],
  })) as unknown as TaskRecord[];
  const copy = (t: TaskRecord): CopyFact =>
    ({
      taskId: t.id,
      slot: 0,
      generation,
      state: 'running',
      health: 'none',
      startedAt: wallMs(2),
      exitCode: null,
      restarts: 0,
      error: '',
      handle: 'pid:1',
      ports: [],
    }) as CopyFact;
  const facts = new Map(
    NODES.map((id, n) => [
      id,
      { name: id, copies: tasks.filter((_, i) => i % 3 === n).map(copy) } as unknown as NodeFacts,
    ]),
  );
  const state = createState();
  const members = new Map(NODES.map((id) => [id, { status: 'alive' }]));
  return {
    peer: { self: NODES[0], state: () => state, facts: () => facts, members: () => members } as unknown as Look['peer'],
    tasks,
  };
}

describe('task views', () => {
  it('of 5,000 tasks index the copies once: they are not searched for each', () => {
    const { peer, tasks } = crowd();
    let read = 0;
    const counted = [...peer.facts()].map(([id, facts]) => {
      const { copies } = facts;
      const get = () => {
        read += 1;
        return copies;
      };
      return [id, Object.defineProperty({ ...facts }, 'copies', { get })] as const;
    });
    const l = look({ ...peer, facts: () => new Map(counted) }, new Map());
    const views = tasks.map((t) => viewTask(l, t));
    expect(views.every((v) => v.state === 'running')).toBe(true);
    expect(views[4999]).toMatchObject({ node: 'n2', startedAt: 2 });
    expect(read).toBeLessThanOrEqual(2 * counted.length);
  });

  it('put names in the place of peer ids in recorded words', () => {
    const id = `12D3KooW${'a'.repeat(44)}`;
    const peer = {
      state: () => ({ peers: new Map([[id, { name: 'attic' }]]) }),
      facts: () => new Map(),
    } as unknown as Parameters<typeof named>[0];
    expect(named(peer, `2 of 2 peers agree: ${id}, ${id}`)).toBe('2 of 2 peers agree: attic, attic');
  });
});

describe('validation of requests', () => {
  const flags = query({ all: Type.Optional(Type.Boolean()), tail: Type.Optional(Type.Integer({ minimum: 0 })) });

  it('converts query strings, and refuses what does not convert or is unknown', () => {
    const validate = compileValidator({ schema: flags, httpPart: 'querystring' });
    expect(validate({ all: 'true', tail: '20' })).toEqual({ value: { all: true, tail: 20 } });
    expect(validate({ all: 'false' })).toEqual({ value: { all: false } });
    for (const wrong of [{ all: 'maybe' }, { tail: '-1' }, { tail: '1.5' }, { al: 'true' }])
      expect(validate(wrong), JSON.stringify(wrong)).toHaveProperty('error');
  });

  it('takes bodies as they are, and leaves task documents to their own checker', () => {
    expect(compileValidator({ schema: flags, httpPart: 'body' })({ all: 'true' })).toHaveProperty('error');
    expect(compileValidator({ schema: TaskDocumentBody, httpPart: 'body' })({ anything: 1 })).toBe(true);
    expect(JSON.stringify(TaskDocumentBody)).not.toMatch(/"(aliases|expected|unit|names)":/);
  });
});

it('an error crosses a stream with its code and hint', async () => {
  const bytes = encodeError(new TaskOrgError('not_found', 'no copy', { hint: 'look elsewhere' }));
  async function* source() {
    yield bytes.subarray(0, 3);
    yield bytes.subarray(3);
  }
  for await (const frame of decodeFrames(source())) {
    expect(frame.kind).toBe(FRAME.error);
    expect(errorOfFrame(frame.body)).toMatchObject({ code: 'not_found', message: 'no copy', hint: 'look elsewhere' });
  }
  expect(errorOfFrame(new TextEncoder().encode('plain words'))).toMatchObject({
    code: 'runtime_failed',
    message: 'plain words',
  });
});

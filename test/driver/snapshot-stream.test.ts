import { describe, expect, it } from 'vitest';
import { dumpState } from '../../src/core/state/state.ts';
import type { StatePut } from '../../src/core/state/types.ts';
import { decodeSnapshot, encodeSnapshot } from '../../src/driver/snapshot-stream.ts';
import { logIndex, nodeId, term } from '../../src/model/ids.ts';
import { checkStatePair } from '../../src/model/state-schemas.ts';
import { formCluster, makeSpec, makeWorld } from '../../src/sim/campaign.ts';
import type { Machine } from '../../src/sim/machine.ts';
import { admit, assign, close, end, init, release, remove, story, submit, update } from '../core/state/fixtures.ts';

const header = {
  index: logIndex(9),
  term: term(2),
  membership: { voters: [nodeId('a')], outgoing: null },
};

async function* byBytes(parts: Iterable<Uint8Array>, size: number): AsyncGenerator<Uint8Array> {
  for (const part of parts) for (let at = 0; at < part.length; at += size) yield part.subarray(at, at + size);
}
const received = (pairs: readonly StatePut[], size = 7) => decodeSnapshot(byBytes(encodeSnapshot(header, pairs), size));

describe('snapshot stream', () => {
  it('carries every record that peers of a living cluster keep, in pieces of any size', async () => {
    const world = makeWorld('snapshot', 3);
    formCluster(world);
    for (let i = 0; i < 5; i++)
      world.submit(world.machines[0] as Machine, makeSpec(`task${i}`, i % 2 === 0, 1 + (i % 3)));
    world.run(world.now + 5000);
    world.machines[2]?.powerOff();
    world.run(world.now + 15_000);
    const pairs = [...dumpState((world.machines[0] as Machine).peer?.state() as never)];
    expect(pairs.length).toBeGreaterThan(20);
    expect(await received(pairs)).toMatchObject({ ...header, pairs: JSON.parse(JSON.stringify(pairs)) });
    expect((await received(pairs, 1)).pairs).toHaveLength(pairs.length);
  });

  it('knows every kind of record', () => {
    const { state } = story(
      init,
      admit('n2'),
      submit('a'),
      submit('b', { replicas: 2 }),
      assign('a', 0, 1, 'n2'),
      assign('b', 0, 1, 'n2'),
      close('b', 0, 1),
      release('b', 0, 1),
      end('a', 0, 1, 'failed'),
      update('b', { replicas: 1 }),
      submit('c'),
      remove('c'),
    );
    const kinds = new Set<string>();
    for (const { key, value } of dumpState(state)) {
      expect(checkStatePair(key, value), key).toMatchObject({ ok: true });
      kinds.add(key.split('/')[0] as string);
    }
    expect(kinds).toEqual(new Set(['cluster', 'decision', 'event', 'peer', 'slot', 'task', 'verdict']));
  });

  it.each([
    ['a record of an unknown kind', { key: 'secret/1', value: 1 }],
    ['a record of another shape', { key: 'peer/n1', value: { nodeId: 'n1' } }],
    ['a record that is nothing', { key: 'task/a', value: null }],
  ])('is refused for %s: a peer that kept it could not start again', async (_what, pair) => {
    await expect(received([pair])).rejects.toMatchObject({ code: 'refused', retryable: true });
  });

  it('is refused when it is cut short, or says too much of a part', async () => {
    const [first] = [...encodeSnapshot(header, [])] as [Uint8Array];
    await expect(decodeSnapshot(byBytes([first.subarray(0, -1)], 9))).rejects.toMatchObject({ code: 'refused' });
    await expect(decodeSnapshot(byBytes([], 9))).rejects.toMatchObject({ code: 'refused' });
    await expect(decodeSnapshot(byBytes([Uint8Array.of(255, 0, 0, 0)], 9))).rejects.toMatchObject({
      code: 'too_large',
    });
  });
});

import { readdirSync, readFileSync } from 'node:fs';
import { encode } from '@ipld/dag-cbor';
import { describe, expect, it } from 'vitest';
import { runHostileMember } from '../../src/fuzz/hostile-member.ts';
import { failureOf, judge, noTally, runChunk } from '../../src/fuzz/run-target.ts';
import { shrink } from '../../src/fuzz/shrink.ts';
import { type FuzzTarget, LIMIT_MS } from '../../src/fuzz/target.ts';
import { allTargets } from '../../src/fuzz/targets.ts';
import { encodeMessage } from '../../src/model/message-schemas.ts';

// A short turn of `npm run fuzz` (ten million inputs take longer), and every input that once failed.

const INPUTS_BY_WEIGHT = 40;
const targets = allTargets();
const named = (name: string): FuzzTarget => {
  const found = targets.find((t) => t.name === name);
  if (found === undefined) throw new Error(`no target ${name}`);
  return found;
};

const corpus = new URL('./corpus/', import.meta.url);
const once = readdirSync(corpus)
  .filter((file) => file.endsWith('.hex'))
  .flatMap((file) =>
    readFileSync(new URL(file, corpus), 'utf8')
      .split('\n')
      .filter((line) => line !== '' && !line.startsWith('#'))
      .map((hex, i) => ({ name: file.slice(0, -'.hex'.length), i, hex })),
  );

describe('decoders', () => {
  it.each(once)('$name: what once failed ($i) is refused or taken', async ({ name, hex }) => {
    expect(await failureOf(named(name), Uint8Array.from(Buffer.from(hex, 'hex')))).toBeUndefined();
  });

  it.each(targets.map((t) => [t.name, t] as const))(
    '%s takes its sound inputs and survives broken ones',
    async (_n, t) => {
      const verdicts: string[] = [];
      for (const seed of t.seeds) verdicts.push(await judge(t, t.seal ? t.seal.wrap(seed) : seed));
      // Nobody is admitted by frames that were made before the other side's nonce.
      if (t.name !== 'admission-frames') expect(verdicts).toContain('accepted');
      const tally = noTally();
      const failure = await runChunk(
        t,
        { seed: 'test', index: 0, inputs: Math.ceil(t.weight * INPUTS_BY_WEIGHT) },
        tally,
      );
      expect(failure).toBeUndefined();
    },
  );
});

// Too long to stand in the corpus.
describe('whole frames of what no honest peer sends', () => {
  const slow = async (name: string, bytes: Uint8Array): Promise<void> =>
    expect(await failureOf(named(name), bytes)).toBeUndefined();

  it('a hundred thousand unknown fields in a command are refused without a list of them', async () => {
    const spec = Object.fromEntries(Array.from({ length: 60_000 }, (_, i) => [`k${i}`, 1]));
    const command = { type: 'task.update', by: 'n1', at: 1, taskId: 't', spec };
    await slow('channel-control', encodeMessage('control', { type: 'propose', requestId: 1, command }));
  });

  it('a transfer in frames of a byte each', async () => {
    const body = encode({ m: 'x', p: new Uint8Array(0) });
    const frames = 170_000;
    const bytes = new Uint8Array(5 + body.length + frames * 6);
    bytes.set([0, 0, 0, 0, body.length]);
    bytes.set(body, 5);
    for (let i = 0; i < frames; i++) bytes.set([1, 0, 0, 0, 1, 7], 5 + body.length + i * 6);
    await slow('bulk-stream', bytes);
  });
});

describe('a member gone bad', () => {
  it('says what fits every schema and is not true; no peer throws, no queue outgrows its limit', () => {
    const { told } = runHostileMember('test', 1500);
    expect(told).toBeGreaterThanOrEqual(1500);
  });
});

describe('the fuzzer', () => {
  const flawed: FuzzTarget = {
    name: 'flawed',
    grammar: 'bytes',
    seeds: [Uint8Array.from({ length: 64 }, (_, i) => i)],
    weight: 1,
    maxBytes: 1024,
    limitMs: LIMIT_MS,
    decode: (bytes) => {
      if (bytes.includes(0xff)) throw new TypeError('planted');
      return 'accepted';
    },
  };

  it('finds a planted bug, and its smallest input', async () => {
    const failure = await runChunk(flawed, { seed: 'a', index: 0, inputs: 10_000 }, noTally());
    expect(failure).toMatchObject({ target: 'flawed', hex: 'ff' });
  });

  it('gives the same inputs for the same seed', async () => {
    const tried = async (): Promise<string[]> => {
      const seen: string[] = [];
      await runChunk(named('channel-raft'), { seed: 's', index: 3, inputs: 50 }, noTally(), (bytes) =>
        seen.push(Buffer.from(bytes).toString('hex')),
      );
      return seen;
    };
    expect(await tried()).toEqual(await tried());
  });

  it('shrinks what lies under a seal, and seals it again', async () => {
    const target = named('join-token');
    const sealed = target.seal as NonNullable<FuzzTarget['seal']>;
    const body = Uint8Array.from({ length: 40 }, (_, i) => (i === 20 ? 0xee : 1));
    const small = await shrink(target, sealed.wrap(body), async (bytes) => sealed.open(bytes).includes(0xee));
    expect([...sealed.open(small)]).toEqual([0xee]);
  });
});

import { afterEach, describe, expect, test } from 'vitest';
import { TaskOrgError } from '../../src/model/errors.ts';
import { nodeId } from '../../src/model/ids.ts';
import { LIMITS } from '../../src/model/limits.ts';
import { BULK_WINDOW_BYTES } from '../../src/model/wire.ts';
import type { KnownPeer, Transport } from '../../src/ports/transport.ts';
import { Recorder } from './transport-recorder.ts';

// What every Transport promises. Run on each adapter.

export interface ContractPeer {
  readonly transport: Transport;
  readonly recorder: Recorder;
}
/** Makes transports of one cluster that trust the same secret. `create` twice with one index: the same identity again. */
export interface ContractWorld {
  create(index: number): Promise<Transport>;
}

const never = new AbortController().signal;
const bytes = (...values: number[]): Uint8Array => Uint8Array.from(values);
const codeOf = async (promise: Promise<unknown>): Promise<string> => {
  try {
    await promise;
    return 'no error';
  } catch (cause) {
    return cause instanceof TaskOrgError ? cause.code : String(cause);
  }
};

export function transportContract(name: string, makeWorld: () => ContractWorld): void {
  describe(`transport contract: ${name}`, () => {
    const running: Transport[] = [];
    afterEach(async () => {
      await Promise.all(running.splice(0).map((transport) => transport.stop()));
    });

    const start = async (world: ContractWorld, index: number): Promise<ContractPeer> => {
      const transport = await world.create(index);
      const recorder = new Recorder();
      await transport.start(recorder, never);
      running.push(transport);
      return { transport, recorder };
    };
    const known = (peers: readonly ContractPeer[]): KnownPeer[] =>
      peers.map(({ transport }) => ({ id: transport.self, addresses: transport.addresses() }));
    const introduce = (peers: readonly ContractPeer[]): void => {
      for (const { transport } of peers) transport.setPeers(known(peers));
    };
    const connect = async (a: ContractPeer, b: ContractPeer): Promise<void> => {
      await a.transport.dial(b.transport.self, never);
      await b.recorder.until('connected', () => b.transport.connected().includes(a.transport.self));
    };
    const pair = async (): Promise<[ContractPeer, ContractPeer]> => {
      const world = makeWorld();
      const both: [ContractPeer, ContractPeer] = [await start(world, 0), await start(world, 1)];
      introduce(both);
      await connect(...both);
      return both;
    };

    test('both ends hear of a connection once, also when both dial at once', async () => {
      const world = makeWorld();
      const [a, b] = [await start(world, 0), await start(world, 1)];
      introduce([a, b]);
      await Promise.all([a.transport.dial(b.transport.self, never), b.transport.dial(a.transport.self, never)]);
      await a.transport.request(b.transport.self, 'echo', bytes(1), { timeoutMs: 5_000 });
      await b.transport.request(a.transport.self, 'echo', bytes(1), { timeoutMs: 5_000 });
      expect([a.recorder.count('connected'), b.recorder.count('connected')]).toEqual([1, 1]);
      expect([a.recorder.count('disconnected'), b.recorder.count('disconnected')]).toEqual([0, 0]);
      expect(a.transport.connected()).toEqual([b.transport.self]);
    });

    test('messages of one channel arrive in the order sent', async () => {
      const [a, b] = await pair();
      const count = 2_000;
      for (let i = 0; i < count; i++) a.transport.send(b.transport.self, 'raft', bytes(i >> 8, i & 255));
      await b.recorder.until(
        'all messages',
        (heard) => heard.filter((event) => event.type === 'message').length === count,
      );
      const order = b.recorder.heard.flatMap((event) =>
        event.type === 'message' ? [((event.payload[0] ?? 0) << 8) | (event.payload[1] ?? 0)] : [],
      );
      expect(order).toEqual(Array.from({ length: count }, (_, i) => i));
    });

    test('requests are answered, pipelined, whatever the order of the answers', async () => {
      const [a, b] = await pair();
      const gates = Array.from({ length: 8 }, () => Promise.withResolvers<void>());
      b.recorder.serve = async (_from, method, payload) => {
        await gates[payload[0] ?? 0]?.promise;
        return Uint8Array.from([...payload, method.length]);
      };
      const answers = gates.map((_, i) =>
        a.transport.request(b.transport.self, 'slow', bytes(i), { timeoutMs: 5_000 }),
      );
      for (const gate of [...gates].reverse()) gate.resolve();
      expect((await Promise.all(answers)).map((answer) => [...answer])).toEqual(gates.map((_, i) => [i, 4]));
    });

    test('a request fails by code: the remote error, timeout, abort, unreachable, too large', async () => {
      const [a, b] = await pair();
      const cancelled = Promise.withResolvers<void>();
      b.recorder.serve = async (_from, method, _payload, signal) => {
        if (method === 'wrong') throw new TaskOrgError('not_found', 'no such thing', { hint: 'look elsewhere' });
        if (method === 'bug') throw new Error('a bug');
        signal.addEventListener('abort', () => cancelled.resolve());
        return new Promise(() => {});
      };
      const request = (method: string, timeoutMs = 5_000, signal?: AbortSignal): Promise<Uint8Array> =>
        a.transport.request(b.transport.self, method, bytes(), { timeoutMs, ...(signal ? { signal } : {}) });
      await expect(request('wrong')).rejects.toMatchObject({
        code: 'not_found',
        message: 'no such thing',
        hint: 'look elsewhere',
      });
      expect(await codeOf(request('bug'))).toBe('internal');
      expect(await codeOf(request('stuck', 50))).toBe('timeout');
      await cancelled.promise;
      const controller = new AbortController();
      const aborted = codeOf(request('stuck', 5_000, controller.signal));
      controller.abort();
      expect(await aborted).toBe('aborted');
      expect(
        await codeOf(
          a.transport.request(b.transport.self, 'big', new Uint8Array(LIMITS.rpcFrameBytes + 1), { timeoutMs: 1_000 }),
        ),
      ).toBe('too_large');
      const pending = codeOf(request('stuck'));
      await b.transport.stop();
      expect(await pending).toBe('unreachable');
      expect(await codeOf(request('stuck'))).toBe('unreachable');
      // Nothing of this hurts: dropped and counted.
      a.transport.send(b.transport.self, 'raft', bytes(1));
      expect(a.transport.counters().send_unreachable).toBe(1);
    });

    test('more requests than may be in flight are refused as busy', async () => {
      const [a, b] = await pair();
      const gate = Promise.withResolvers<Uint8Array>();
      b.recorder.serve = () => gate.promise;
      const codes = Array.from({ length: LIMITS.rpcInFlight + 5 }, () =>
        codeOf(a.transport.request(b.transport.self, 'hold', bytes(), { timeoutMs: 20_000 })),
      );
      await b.recorder.until(
        'requests',
        (heard) => heard.filter((event) => event.type === 'request').length >= LIMITS.rpcInFlight,
      );
      gate.resolve(bytes());
      const settled = await Promise.all(codes);
      expect(settled.filter((code) => code === 'busy').length).toBe(5);
      expect(settled.filter((code) => code === 'no error').length).toBe(LIMITS.rpcInFlight);
    });

    test('bulk streams carry bytes both ways and end', async () => {
      const [a, b] = await pair();
      b.recorder.stream = async (_from, method, payload, stream) => {
        expect([method, [...payload]]).toEqual(['echo', [7]]);
        for await (const chunk of stream.source) await stream.write(chunk);
      };
      const stream = await a.transport.openStream(b.transport.self, 'echo', bytes(7), never);
      const total = 5 * BULK_WINDOW_BYTES + 12_345;
      const writing = (async () => {
        for (let sent = 0; sent < total; ) {
          const size = Math.min(100_000, total - sent);
          await stream.write(new Uint8Array(size).fill(sent % 251));
          sent += size;
        }
        await stream.end();
      })();
      let received = 0;
      for await (const chunk of stream.source) {
        expect(chunk[0]).toBe((received - (received % 100_000)) % 251);
        received += chunk.length;
      }
      await writing;
      expect(received).toBe(total);
    });

    test('a writer waits for its reader and is never in the way of messages', async () => {
      const [a, b] = await pair();
      const go = Promise.withResolvers<void>();
      let read = 0;
      b.recorder.stream = async (_from, _method, _payload, stream) => {
        await go.promise;
        for await (const chunk of stream.source) read += chunk.length;
      };
      const stream = await a.transport.openStream(b.transport.self, 'slow', bytes(), never);
      let written = 0;
      const size = BULK_WINDOW_BYTES / 8;
      const writing = (async () => {
        for (; written < 64 * size; written += size) await stream.write(new Uint8Array(size));
        await stream.end();
      })();
      for (let i = 0; i < 20; i++) await a.transport.request(b.transport.self, 'echo', bytes(1), { timeoutMs: 5_000 });
      expect(written).toBeLessThanOrEqual(BULK_WINDOW_BYTES);
      expect(written).toBeGreaterThan(0);
      go.resolve();
      await writing;
      for await (const _ of stream.source) expect.unreachable();
      expect(read).toBe(64 * size);
    });

    test('a stream fails by the handler’s code; leaving it or aborting it stops the other end', async () => {
      const [a, b] = await pair();
      const stopped = Promise.withResolvers<void>();
      b.recorder.stream = async (_from, method, _payload, stream, signal) => {
        if (method === 'wrong') throw new TaskOrgError('not_found', 'no such log');
        signal.addEventListener('abort', () => stopped.resolve());
        for (;;) await stream.write(new Uint8Array(1_000));
      };
      const wrong = await a.transport.openStream(b.transport.self, 'wrong', bytes(), never);
      const read = async (): Promise<void> => {
        for await (const _ of wrong.source) expect.unreachable();
      };
      expect(await codeOf(read())).toBe('not_found');
      const endless = await a.transport.openStream(b.transport.self, 'endless', bytes(), never);
      for await (const chunk of endless.source) {
        expect(chunk.length).toBeGreaterThan(0);
        break;
      }
      await stopped.promise;
      expect(await codeOf(a.transport.request(b.transport.self, 'echo', bytes(1), { timeoutMs: 5_000 }))).toBe(
        'no error',
      );
    });

    test('a stream is cut when the peer goes', async () => {
      const [a, b] = await pair();
      b.recorder.stream = () => new Promise(() => {});
      const stream = await a.transport.openStream(b.transport.self, 'hang', bytes(), never);
      const reading = codeOf(
        (async () => {
          for await (const _ of stream.source) expect.unreachable();
        })(),
      );
      await b.transport.stop();
      expect(await reading).toBe('unreachable');
    });

    test('gossip reaches all, signed by its publisher; an oversized one is refused', async () => {
      const world = makeWorld();
      const peers = [await start(world, 0), await start(world, 1), await start(world, 2)] as const;
      introduce(peers);
      const [a, b, c] = peers;
      // A line, not a triangle: c hears a through b.
      await connect(a, b);
      await connect(b, c);
      // Publishing before the subscriptions have arrived may be lost (that is anti-entropy's part): repeat until heard.
      const gossiped = (peer: ContractPeer): boolean =>
        peer.recorder.heard.some(
          (event) => event.type === 'gossip' && event.from === a.transport.self && event.topic === 'tasks',
        );
      const repeat = setInterval(() => void a.transport.publish('tasks', bytes(1, 2, 3)), 50);
      try {
        await Promise.all([b, c].map((peer) => peer.recorder.until('gossip', () => gossiped(peer))));
      } finally {
        clearInterval(repeat);
      }
      expect(gossiped(a)).toBe(false);
      expect(await codeOf(a.transport.publish('log', new Uint8Array(LIMITS.gossipFrameBytes + 1)))).toBe('too_large');
    });

    test('a peer struck from the list is cut at once, at both ends, and stays out', async () => {
      const [a, b] = await pair();
      a.transport.setPeers(known([a]));
      await Promise.all([
        a.recorder.until('cut', () => a.recorder.count('disconnected') === 1),
        b.recorder.until('cut', () => b.recorder.count('disconnected') === 1),
      ]);
      expect(a.transport.connected()).toEqual([]);
      expect(await codeOf(a.transport.dial(b.transport.self, never))).toBe('not_admitted');
      expect(await codeOf(b.transport.dial(a.transport.self, AbortSignal.timeout(300)))).toBe('unreachable');
      expect(a.recorder.count('connected')).toBe(1);
    });

    test('a connection that is hung up ends at both ends, and is dialled again while it is wanted', async () => {
      const [a, b] = await pair();
      a.transport.setWanted([b.transport.self]);
      b.transport.setWanted([a.transport.self]);
      a.transport.hangUp(b.transport.self);
      await Promise.all(
        [a, b].map(({ recorder }) =>
          recorder.until('back', () => recorder.count('disconnected') === 1 && recorder.count('connected') === 2),
        ),
      );
      a.transport.hangUp(nodeId('nobody'));
      expect(a.transport.connected()).toEqual([b.transport.self]);
    });

    test('a peer that the other does not know yet is held until it does', async () => {
      const world = makeWorld();
      const [a, b] = [await start(world, 0), await start(world, 1)];
      a.transport.setPeers(known([a, b]));
      const dialling = a.transport.dial(b.transport.self, never);
      setTimeout(() => b.transport.setPeers(known([a, b])), 50);
      await dialling;
      await b.recorder.until('connected', () => b.recorder.count('connected') === 1);
    });

    test('a refused port is told apart; wanted peers come back after a restart', async () => {
      const world = makeWorld();
      const [a, b] = [await start(world, 0), await start(world, 1)];
      introduce([a, b]);
      for (const { transport } of [a, b]) transport.setWanted(known([a, b]).map((peer) => peer.id));
      await Promise.all(
        [a, b].map((peer) => peer.recorder.until('connected', () => peer.recorder.count('connected') === 1)),
      );
      await b.transport.stop();
      await a.recorder.until('disconnected', () => a.recorder.count('disconnected') === 1, 1_000);
      await a.recorder.until('refused', (heard) =>
        heard.some((event) => event.type === 'dial-failed' && event.peer === b.transport.self && event.refused),
      );
      expect(await codeOf(a.transport.dial(b.transport.self, never))).toBe('unreachable');
      const again = await start(world, 1);
      introduce([a, again]);
      await a.recorder.until('reconnected', () => a.recorder.count('connected') === 2);
      await again.recorder.until('reconnected', () => again.recorder.count('connected') === 1);
      expect(await codeOf(a.transport.request(again.transport.self, 'echo', bytes(1), { timeoutMs: 5_000 }))).toBe(
        'no error',
      );
    });
  });
}

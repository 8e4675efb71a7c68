import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { afterEach, describe, expect, test } from 'vitest';
import type { KnownPeer } from '../../../src/ports/transport.ts';
import { CLUSTER, never, Rig } from './harness.ts';

const CHILD = fileURLToPath(new URL('../../fixtures/transport-child.ts', import.meta.url));

describe('two processes', () => {
  let rig = new Rig();
  let child: ChildProcess | null = null;
  afterEach(async () => {
    child?.kill('SIGKILL');
    child = null;
    await rig.stop();
    rig = new Rig();
  });

  test('a killed process is heard of within milliseconds, and its port refuses', async () => {
    const peer = await rig.peer();
    child = spawn(process.execPath, [CHILD, rig.secret.toString('hex'), CLUSTER], {
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    const [line] = (await once(createInterface({ input: child.stdout as NodeJS.ReadableStream }), 'line')) as [string];
    const other = JSON.parse(line) as KnownPeer;
    child.stdin?.write(`${JSON.stringify({ id: peer.transport.self, addresses: [] })}\n`);
    peer.transport.setPeers([other]);
    await peer.transport.dial(other.id, never);
    expect([...(await peer.transport.request(other.id, 'echo', Uint8Array.of(5), { timeoutMs: 5_000 }))]).toEqual([5]);
    const killedAt = performance.now();
    child.kill('SIGKILL');
    await peer.recorder.until('disconnected', () => peer.recorder.count('disconnected') === 1, 1_000);
    // Some milliseconds when idle; the bound allows for a busy test machine.
    expect(performance.now() - killedAt).toBeLessThan(500);
    // Its sockets close one after another; once it is reaped all of them are.
    if (child.exitCode === null && child.signalCode === null) await once(child, 'exit');
    await expect(peer.transport.dial(other.id, never)).rejects.toMatchObject({
      code: 'unreachable',
      cause: { message: expect.stringContaining('refused') },
    });
    expect(peer.recorder.heard.some((event) => event.type === 'dial-failed' && event.refused)).toBe(true);
  });
});

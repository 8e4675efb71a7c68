import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { createInterface } from 'node:readline';
import { once } from 'node:events';
import { generateKeyPair } from '@libp2p/crypto/keys';
import { createLibp2pTransport } from '../../../src/adapters/libp2p/transport.ts';
import { Recorder } from '../../contract/transport-recorder.ts';
const secret = randomBytes(32);
const child = spawn(process.execPath, ['test/fixtures/transport-child.ts', secret.toString('hex'), 'bench'], { stdio: ['pipe', 'pipe', 'inherit'] });
const [line] = await once(createInterface({ input: child.stdout }), 'line') as any;
const t0 = performance.now();
const t = createLibp2pTransport({ privateKey: await generateKeyPair('Ed25519'), clusterId: 'bench' as any, secrets: { current: secret, previous: [] }, listen: ['/ip4/127.0.0.1/tcp/0'], mdns: false });
await t.start(new Recorder(), new AbortController().signal);
const other = JSON.parse(line);
child.stdin.write(JSON.stringify({ id: t.self, addresses: [] }) + '\n');
t.setPeers([other]);
const t1 = performance.now();
await t.dial(other.id, new AbortController().signal);
console.log('start', (t1 - t0).toFixed(1), 'dial..up', (performance.now() - t1).toFixed(1), 'ms');
const payload = new Uint8Array(100);
for (const inflight of [] as number[]) {
  const total = inflight === 1 ? 3000 : 40000; let sent = 0; const lat: number[] = [];
  const s = performance.now();
  await Promise.all(Array.from({ length: inflight }, async () => { while (sent < total) { sent++; const a = performance.now(); await t.request(other.id, 'echo', payload, { timeoutMs: 5000 }); lat.push(performance.now() - a); } }));
  const d = performance.now() - s; lat.sort((a, b) => a - b);
  console.log(inflight, 'in flight:', Math.round(total / d * 1000), '/s p50', lat[lat.length >> 1]!.toFixed(3), 'p99', lat[Math.floor(lat.length * .99)]!.toFixed(3));
}
const n = 1 << 28; const h = new Uint8Array(4); new DataView(h.buffer).setUint32(0, n);
for (let i = 0; i < 3; i++) {
const s2 = performance.now();
const st = await t.openStream(other.id, 'source', h, new AbortController().signal);
let got = 0; for await (const c of st.source) got += c.length;
await st.end();
console.log('bulk down', (got / 1048576 / ((performance.now() - s2) / 1000)).toFixed(0), 'MiB/s', got);
const s3 = performance.now();
const up = await t.openStream(other.id, 'sink', h, new AbortController().signal);
const chunk = new Uint8Array(262144); for (let k = 0; k < n; k += chunk.length) await up.write(chunk); await up.end(); for await (const _ of up.source);
console.log('bulk up', (n / 1048576 / ((performance.now() - s3) / 1000)).toFixed(0), 'MiB/s');
}
console.log('rss', (process.memoryUsage().rss / 1048576).toFixed(0));
t.setPeers([]);
child.kill('SIGKILL'); await t.stop();

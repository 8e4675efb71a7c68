import { type ClientHttp2Session, connect as connectHttp2 } from 'node:http2';
import { connect as connectSocket } from 'node:net';
import { join } from 'node:path';
import { followFile } from '../../scenario/follow-file.ts';
import { requireTool } from '../../scenario/hosts/requirements.ts';
import type { HostLab } from '../../scenario/hosts/types.ts';
import { until } from '../../scenario/until.ts';

// etcd as the reference for election and commit: one member per host, data on the host's disk, fsync as it comes.

export interface EtcdSettings {
  /** Milliseconds; null = etcd's defaults (100 and 1000). */
  readonly heartbeatMs: number | null;
  readonly electionMs: number | null;
}
export const ETCD_DEFAULTS: EtcdSettings = { heartbeatMs: null, electionMs: null };

const START_TIMEOUT_MS = 30_000;
/** etcd wants `host:port` in a unix URL too, and takes it as a file name in its working directory (/run). */
const SOCKET = 'etcd.sock:1';

export class EtcdCluster {
  readonly #lab: HostLab;
  readonly #hosts: readonly number[];
  readonly #settings: EtcdSettings;
  readonly #logs = new Map<number, string>();
  readonly #ids = new Map<string, number>();

  constructor(lab: HostLab, hosts: readonly number[], settings: EtcdSettings) {
    requireTool('etcd', 'etcd-server');
    this.#lab = lab;
    this.#hosts = hosts;
    this.#settings = settings;
  }

  /** All members up and a leader known to each. */
  async start(): Promise<void> {
    await Promise.all(this.#hosts.map((host) => this.startMember(host)));
  }

  async startMember(host: number): Promise<void> {
    const url = (one: number, port: number): string => `http://${this.#lab.address(one)}:${port}`;
    const cluster = this.#hosts.map((one) => `${this.#lab.hostname(one)}=${url(one, 2380)}`).join(',');
    const { heartbeatMs, electionMs } = this.#settings;
    const member = await this.#lab.spawn(
      host,
      'etcd',
      [
        'etcd',
        ...['--name', this.#lab.hostname(host), '--data-dir', `${this.#lab.homeInside}/etcd`],
        ...['--listen-peer-urls', url(host, 2380), '--initial-advertise-peer-urls', url(host, 2380)],
        ...['--listen-client-urls', `${url(host, 2379)},unix://${SOCKET}`, '--advertise-client-urls', url(host, 2379)],
        ...[
          '--initial-cluster',
          cluster,
          '--initial-cluster-state',
          'new',
          '--logger',
          'zap',
          '--log-outputs',
          'stderr',
        ],
        ...(heartbeatMs === null ? [] : ['--heartbeat-interval', String(heartbeatMs)]),
        ...(electionMs === null ? [] : ['--election-timeout', String(electionMs)]),
      ],
      { cwd: '/run' },
    );
    this.#logs.set(host, member.logFile);
    await until(`etcd on ${this.#lab.hostname(host)} answers a linearizable write`, START_TIMEOUT_MS, async () => {
      const client = this.client(host);
      try {
        await client.put('started', this.#lab.hostname(host));
        return true;
      } finally {
        client.close();
      }
    });
  }

  /** The leader's host, by asking every member that is up. */
  async leader(): Promise<number> {
    return await until('etcd has one leader that a majority agrees on', START_TIMEOUT_MS, async () => {
      const votes = new Map<string, number>();
      for (const host of this.#hosts.filter((one) => this.#lab.isUp(one))) {
        const client = this.client(host);
        try {
          const { member, leader } = await client.status();
          this.#ids.set(member, host);
          votes.set(leader, (votes.get(leader) ?? 0) + 1);
        } finally {
          client.close();
        }
      }
      const won = [...votes].find(([leader, count]) => leader !== '0' && count > this.#hosts.length / 2);
      return won ? this.#ids.get(won[0]) : undefined;
    });
  }

  /** Kills the leader's host; milliseconds until the first survivor's log says that a leader was elected. */
  async timeElection(timeoutMs = 60_000): Promise<{ readonly elapsedMs: number; readonly victim: number }> {
    const victim = await this.leader();
    let killedAt = Number.POSITIVE_INFINITY;
    const stops: (() => void)[] = [];
    let timer: NodeJS.Timeout | undefined;
    const elected = new Promise<number>((resolve, reject) => {
      timer = setTimeout(() => reject(new Error(`etcd elected nobody within ${timeoutMs} ms`)), timeoutMs);
      for (const host of this.#hosts.filter((one) => one !== victim)) {
        const stop = followFile(this.#logs.get(host) ?? '', (line) => {
          const now = Date.now();
          if (now >= killedAt && /became leader at term|elected leader [0-9a-f]+ at term/.test(line)) resolve(now);
        });
        stops.push(stop);
      }
    });
    // Lines written before the kill were all read while following began; only what comes from here on counts.
    killedAt = Date.now();
    try {
      const [at, electedAt] = await Promise.all([this.#lab.kill(victim), elected]);
      return { elapsedMs: electedAt - at, victim };
    } finally {
      clearTimeout(timer);
      for (const stop of stops) stop();
    }
  }

  client(host: number): EtcdClient {
    return new EtcdClient(join(this.#lab.paths(host).run, SOCKET));
  }
}

/** Just enough of etcd's own protocol (gRPC on HTTP/2) to write and to ask who leads: no slower than its own client. */
export class EtcdClient {
  readonly #session: ClientHttp2Session;

  constructor(socketPath: string) {
    this.#session = connectHttp2('http://localhost', { createConnection: () => connectSocket(socketPath) });
    this.#session.on('error', () => {}); // each call reports it
  }

  /** Resolves when the write is committed. */
  async put(key: string, value: string): Promise<void> {
    await this.#call('/etcdserverpb.KV/Put', Buffer.concat([bytesField(1, key), bytesField(2, value)]));
  }

  async status(): Promise<{ readonly member: string; readonly leader: string }> {
    const fields = decodeFields(await this.#call('/etcdserverpb.Maintenance/Status', Buffer.alloc(0)));
    const header = decodeFields(fields.get(1) as Buffer);
    return { member: String(header.get(2) ?? 0n), leader: String(fields.get(4) ?? 0n) };
  }

  close(): void {
    this.#session.destroy();
  }

  #call(path: string, message: Buffer, timeoutMs = 10_000): Promise<Buffer> {
    const frame = Buffer.alloc(5 + message.length);
    frame.writeUInt32BE(message.length, 1);
    message.copy(frame, 5);
    return new Promise((resolve, reject) => {
      const stream = this.#session.request({
        ':method': 'POST',
        ':path': path,
        'content-type': 'application/grpc',
        te: 'trailers',
      });
      const parts: Buffer[] = [];
      let status: string | undefined;
      stream.setTimeout(timeoutMs, () => stream.destroy(new Error(`etcd ${path}: no answer within ${timeoutMs} ms`)));
      stream.on('response', (headers) => {
        if (headers['grpc-status'] !== undefined)
          status = `${headers['grpc-status']} ${headers['grpc-message'] ?? ''}`.trim();
      });
      stream.on('trailers', (headers) => {
        status = `${headers['grpc-status']} ${headers['grpc-message'] ?? ''}`.trim();
      });
      stream.on('data', (part: Buffer) => parts.push(part));
      stream.on('error', reject);
      stream.on('close', () => {
        if (status === '0') resolve(Buffer.concat(parts).subarray(5));
        else reject(new Error(`etcd ${path}: ${status ?? 'connection closed'}`));
      });
      stream.end(frame);
    });
  }
}

function varint(value: number): Buffer {
  const bytes: number[] = [];
  let left = value;
  while (left > 127) {
    bytes.push((left & 127) | 128);
    left >>>= 7;
  }
  return Buffer.from([...bytes, left]);
}

function bytesField(field: number, text: string): Buffer {
  const data = Buffer.from(text);
  return Buffer.concat([varint((field << 3) | 2), varint(data.length), data]);
}

/** Last value of each field: varints as bigint, length-delimited ones as bytes. */
function decodeFields(data: Buffer): Map<number, bigint | Buffer> {
  const fields = new Map<number, bigint | Buffer>();
  let at = 0;
  const next = (): bigint => {
    let value = 0n;
    for (let shift = 0n; ; shift += 7n) {
      const byte = data[at++] ?? 0;
      value |= BigInt(byte & 127) << shift;
      if (byte < 128) return value;
    }
  };
  while (at < data.length) {
    const tag = Number(next());
    if ((tag & 7) === 0) fields.set(tag >>> 3, next());
    else {
      const length = Number(next());
      fields.set(tag >>> 3, data.subarray(at, at + length));
      at += length;
    }
  }
  return fields;
}

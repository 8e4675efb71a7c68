import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, rmSync, watch } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { request } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

// Three real peers on this machine's loopback, and the built program as its user runs it.

const dist = new URL('../../../dist', import.meta.url).pathname;

export interface Ran {
  readonly code: number | null;
  readonly out: string;
  readonly err: string;
}

export interface CliCluster {
  readonly dir: string;
  /** Runs task-org against peer `n` (1..3). */
  cli(
    n: number,
    args: readonly string[],
    options?: { readonly stdin?: string; readonly env?: Record<string, string> },
  ): Promise<Ran>;
  /** A program that goes on; the caller ends it. */
  follow(n: number, args: readonly string[]): ChildProcess;
  http(
    n: number,
    method: string,
    path: string,
    body?: string,
    type?: string,
  ): Promise<{ readonly status: number; readonly body: string }>;
  stop(): Promise<void>;
}

async function appears(dir: string, name: string): Promise<void> {
  const watcher = watch(dir);
  const seen = new Promise<void>((resolve) => {
    watcher.on('change', (_type, file) => {
      if (file === name && existsSync(join(dir, name))) resolve();
    });
    if (existsSync(join(dir, name))) resolve();
  });
  await seen;
  watcher.close();
}

export async function startCluster(): Promise<CliCluster> {
  const dir = mkdtempSync(join(tmpdir(), 'task-org-cli-'));
  const peers: ChildProcess[] = [];
  const home = (n: number): string => join(dir, `n${n}`);

  const start = async (n: number, more: readonly string[]): Promise<void> => {
    await mkdir(home(n), { recursive: true, mode: 0o700 });
    const args = [
      '--data-dir',
      home(n),
      '--name',
      `n${n}`,
      '--listen',
      '/ip4/127.0.0.1/tcp/0',
      '--no-mdns',
      '--runtime',
      'process',
      '--label',
      `zone=z${n}`,
      ...more,
    ];
    peers.push(spawn(process.execPath, [join(dist, 'task-org-peer.js'), ...args], { stdio: 'ignore', cwd: dir }));
    await appears(home(n), 'api.sock');
  };

  const run = (n: number, args: readonly string[], env: Record<string, string> = {}): ChildProcess => {
    const { TASKORG_HOST: _host, TASKORG_DATA_DIR: _dir, ...clean } = process.env;
    return spawn(process.execPath, [join(dist, 'task-org.js'), ...args], {
      env: { ...clean, TASKORG_DATA_DIR: home(n), ...env },
      cwd: dir,
    });
  };

  const cluster: CliCluster = {
    dir,
    follow: run,
    cli: async (n, args, options = {}) => {
      const child = run(n, args, options.env);
      let out = '';
      let err = '';
      child.stdout?.setEncoding('utf8').on('data', (text: string) => {
        out += text;
      });
      child.stderr?.setEncoding('utf8').on('data', (text: string) => {
        err += text;
      });
      child.stdin?.on('error', () => {});
      child.stdin?.end(options.stdin ?? '');
      const [code] = (await once(child, 'close')) as [number | null];
      return { code, out, err };
    },
    http: (n, method, path, body, type = 'application/json') =>
      new Promise((resolve, reject) => {
        const req = request(
          {
            socketPath: join(home(n), 'api.sock'),
            method,
            path,
            agent: false,
            ...(body === undefined ? {} : { headers: { 'content-type': type } }),
          },
          (res) => {
            let text = '';
            res.setEncoding('utf8').on('data', (part: string) => {
              text += part;
            });
            res.on('end', () => resolve({ status: res.statusCode ?? 0, body: text }));
          },
        );
        req.on('error', reject);
        req.end(body);
      }),
    stop: async () => {
      await Promise.all(
        peers.map(async (peer) => {
          if (peer.exitCode !== null || peer.signalCode !== null) return;
          const exited = once(peer, 'exit');
          peer.kill('SIGTERM');
          await exited;
        }),
      );
      rmSync(dir, { recursive: true, force: true });
    },
  };
  await start(1, []);
  const token = (await cluster.cli(1, ['token', '--uses', '2', '--expires', '10m'])).out.trim();
  await Promise.all([start(2, ['--join', token]), start(3, ['--join', token])]);
  return cluster;
}

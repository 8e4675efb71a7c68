import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, openSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { request } from 'node:http';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import Docker from 'dockerode';
import { ApiClient } from '../cli/client.ts';
import { Fleet, nodeName } from '../scenario/fleet.ts';
import { apiSocket, peerProgram } from '../scenario/peer-command.ts';
import { killPeer, STAGE_MARK } from '../scenario/processes-of-peer.ts';
import type { EventView, TaskView } from '../services/api/schemas.ts';
import { LEDGER_PROGRAM } from './ledger.ts';
import { DEMO_IMAGE, ensureDemoImage } from './node-image.ts';

const PEERS = 5;
const TASK = 'ledger';
const RECOVERY_TIMEOUT_MS = 30_000;
const LOOK_MS = 5;

export interface DemoOptions {
  /** Leave when the recovery was shown, instead of keeping the cluster open. */
  readonly exit: boolean;
  readonly runtime: 'auto' | 'docker' | 'process';
  readonly print: (line: string) => void;
}

interface Step {
  readonly atMs: number;
  readonly text: string;
}

/** Five peers on this machine, one is killed with what it runs, its task comes back. Resolves to the exit code. */
export class Demo {
  readonly #options: DemoOptions;
  readonly #children = new Map<number, ChildProcess>();
  readonly #ports = new Map<number, number>();
  #dir = '';
  #docker: Docker | undefined;
  #fleet: Fleet | undefined;
  #stopped = false;

  constructor(options: DemoOptions) {
    this.#options = options;
  }

  async run(): Promise<number> {
    const { print } = this.#options;
    this.#dir = await mkdtemp(join(tmpdir(), 'task-org-demo-'));
    this.#docker = await this.#engine();
    print(
      this.#docker
        ? 'A Docker Engine answers: the task will be a container.'
        : 'No Docker Engine is used: the task will be a process.',
    );
    if (this.#docker && (await ensureDemoImage(this.#docker)))
      print(`Made the image ${DEMO_IMAGE} from this machine's Node (no registry).`);
    const fleet = new Fleet({
      socketPath: (node) => apiSocket(this.#dataDir(node)),
      launch: (node, o) => this.#launch(node, o.token),
    });
    this.#fleet = fleet;
    const from = performance.now();
    await fleet.form({
      peers: PEERS,
      joining: 0,
      witnesses: 0,
      runtime: this.#docker ? 'docker' : 'process',
      seed: 'demo',
    });
    print(
      `${PEERS} peers found each other and elected node${await fleet.master()} master in ${seconds(performance.now() - from)}.`,
    );

    const before = await this.#startTask();
    const holder = Number(before.node.slice('node'.length));
    print(`Task "${TASK}" runs on ${before.node}, generation ${before.generation}. Its ledger takes lines:`);
    const port = before.slots[0]?.ports[0]?.host ?? 0;
    await untilAnswers(port);
    for (let i = 0; i < 3; i++) print(`  POST /append -> ${(await ask(port, 'POST')).trim()}`);

    const { after, steps } = await this.#pullThePlug(holder, before);
    print('');
    print(`Pulled the plug on ${before.node}: its peer and everything it ran were killed outright.`);
    print('');
    for (const step of steps) print(`  ${String(Math.round(step.atMs)).padStart(6)} ms  ${step.text}`);
    print('');
    const recoveredMs = steps.at(-1)?.atMs ?? 0;
    print(
      `"${TASK}" runs again on ${after.node}, generation ${after.generation}, ${Math.round(recoveredMs)} ms after the plug was pulled. (Its data stays behind in this version.)`,
    );
    if (this.#options.exit) return 0;
    this.#invite(holder);
    return 0;
  }

  async #engine(): Promise<Docker | undefined> {
    if (this.#options.runtime === 'process') return undefined;
    const docker = new Docker();
    try {
      await Promise.race([
        docker.ping(),
        new Promise((_, reject) => setTimeout(() => reject(new Error('no answer')), 1500).unref()),
      ]);
      return docker;
    } catch (error) {
      if (this.#options.runtime === 'docker') throw new Error(`no Docker Engine answers: ${String(error)}`);
      return undefined;
    }
  }

  #dataDir(node: number): string {
    return join(this.#dir, nodeName(node));
  }

  async #launch(node: number, token: string | undefined): Promise<void> {
    const port = this.#ports.get(node) ?? (await freePort());
    this.#ports.set(node, port);
    const log = openSync(join(this.#dir, `${nodeName(node)}.log`), 'a');
    const args = [
      peerProgram(),
      '--data-dir',
      this.#dataDir(node),
      '--name',
      nodeName(node),
      '--listen',
      `/ip4/127.0.0.1/tcp/${port}`,
      '--no-mdns',
      '--runtime',
      this.#docker ? 'both' : 'process',
    ];
    if (token !== undefined) args.push('--join', token);
    const child = spawn(process.execPath, args, {
      detached: true,
      stdio: ['ignore', log, log],
      env: { ...process.env, [STAGE_MARK]: this.#dataDir(node) },
    });
    closeSync(log);
    child.unref();
    this.#children.set(node, child);
  }

  #client(node: number): ApiClient {
    return new ApiClient({ host: `unix:${apiSocket(this.#dataDir(node))}` });
  }

  async #startTask(): Promise<TaskView> {
    const ports = [`0:8080`];
    const document = this.#docker
      ? {
          name: TASK,
          image: DEMO_IMAGE,
          command: ['node'],
          args: ['-e', LEDGER_PROGRAM],
          ports,
          env: { LEDGER_DIR: '/data' },
        }
      : { name: TASK, runtime: 'process', command: [process.execPath, '-e', LEDGER_PROGRAM], ports };
    await this.#client(1).json('POST', '/v1/tasks', document);
    return this.#until(1, (task) => task.state === 'running' && (task.slots[0]?.ports.length ?? 0) > 0);
  }

  async #until(node: number, holds: (task: TaskView) => boolean): Promise<TaskView> {
    const until = Date.now() + RECOVERY_TIMEOUT_MS;
    for (;;) {
      const task = await this.#client(node)
        .get<TaskView>(`/v1/tasks/${TASK}`)
        .catch(() => undefined);
      if (task && holds(task)) return task;
      if (Date.now() > until)
        throw new Error(
          `task ${TASK} is ${task?.state ?? 'unknown'} (${task?.error ?? ''}) after ${RECOVERY_TIMEOUT_MS / 1000} s; logs are in ${this.#dir}`,
        );
      await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
    }
  }

  /** Kills a peer with all it runs, and gathers what the survivors say of it, in milliseconds since the kill. */
  async #pullThePlug(holder: number, before: TaskView): Promise<{ after: TaskView; steps: Step[] }> {
    const survivors = Array.from({ length: PEERS }, (_, i) => i + 1).filter((n) => n !== holder);
    const watcher = survivors[0] as number;
    const masterKilled = (await this.#fleet?.master()) === holder;
    const steps: Step[] = [];
    const seen = new Set<string>();
    let killedAt = Number.POSITIVE_INFINITY;
    const note = (atMs: number, key: string, text: string): void => {
      if (seen.has(key)) return;
      seen.add(key);
      steps.push({ atMs: atMs - killedAt, text });
    };
    const streams = await Promise.all(
      survivors.map(async (node) => {
        const response = await this.#client(node).stream('GET', `/v1/events?since=${Date.now()}&follow=true`);
        createInterface({ input: response }).on('line', (line) => {
          const e = JSON.parse(line) as EventView;
          if (e.at < killedAt - 50) return;
          if (e.type === 'node.suspect')
            note(
              e.at,
              'suspect',
              `${nodeName(node)} is the first to suspect ${e.subject}: ${e.message.replace(/^[^(]*\(|\)$/g, '').replace(/; asked .*$/, '')}`,
            );
          if (e.type === 'node.dead') note(e.at, `dead${node}`, `${nodeName(node)} holds ${e.subject} dead`);
          if (masterKilled && e.type === 'role' && e.message.includes('is leader'))
            note(e.at, 'master', `${nodeName(node)} is the new master`);
        });
        return response;
      }),
    );
    killedAt = Date.now();
    await Promise.all([killPeer(this.#children.get(holder)?.pid, this.#dataDir(holder)), this.#killContainer(before)]);
    this.#children.delete(holder);
    const after = await this.#until(
      watcher,
      (task) => task.generation !== before.generation && task.state === 'running',
    );
    const runsAt = Date.now();
    const why = await this.#client(watcher).get<{
      decisions: { at: number; what: string; node: string | null; generation: string | null; by: string }[];
    }>(`/v1/tasks/${TASK}/why`);
    for (const d of why.decisions)
      if (d.what === 'assigned' && d.generation === after.generation)
        note(d.at, 'assigned', `${d.by} assigns "${TASK}" to ${d.node}, generation ${d.generation}`);
    const port = after.slots[0]?.ports[0]?.host ?? 0;
    note(runsAt, 'runs', `"${TASK}" is reported running on ${after.node}`);
    const answer = await untilAnswers(port);
    note(Date.now(), 'answers', `its ledger answers there: ${answer.trim()}`);
    for (const s of streams) s.destroy();
    return { after, steps: steps.sort((a, b) => a.atMs - b.atMs) };
  }

  /** A machine takes its containers with it; here they share one engine, so this one is killed by hand. */
  async #killContainer(task: TaskView): Promise<void> {
    const id = task.slots[0]?.handle;
    if (this.#docker && id)
      await this.#docker
        .getContainer(id)
        .kill()
        .catch(() => {});
  }

  #invite(killed: number): void {
    const { print } = this.#options;
    const socket = apiSocket(this.#dataDir(killed === 1 ? 2 : 1));
    print('');
    print('The cluster stays open. In another terminal:');
    print(`  export TASKORG_HOST=unix:${socket}`);
    for (const line of [
      'npx task-org node ls',
      'npx task-org ps',
      `npx task-org why ${TASK}`,
      `npx task-org logs ${TASK}`,
      'npx task-org run --runtime process --name tick -- sh -c "while :; do date; sleep 1; done"',
    ])
      print(`  ${line}`);
    print('Ctrl-C ends it.');
  }

  async stop(): Promise<void> {
    if (this.#stopped) return;
    this.#stopped = true;
    this.#fleet?.close();
    for (const [node, child] of this.#children) await killPeer(child.pid, this.#dataDir(node));
    if (this.#docker) {
      for (const c of await this.#docker
        .listContainers({ all: true, filters: { ancestor: [DEMO_IMAGE], label: ['org.task-org.task'] } })
        .catch(() => []))
        await this.#docker
          .getContainer(c.Id)
          .remove({ force: true })
          .catch(() => {});
    }
    if (this.#dir !== '') await rm(this.#dir, { recursive: true, force: true });
  }
}

const seconds = (ms: number): string => `${(ms / 1000).toFixed(1)} s`;

function ask(port: number, method: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const req = request(
      { host: '127.0.0.1', port, method, path: method === 'POST' ? '/append' : '/', agent: false, timeout: 1000 },
      (response) => {
        let text = '';
        response
          .setEncoding('utf8')
          .on('data', (chunk: string) => {
            text += chunk;
          })
          .on('end', () => resolve(text));
      },
    );
    req.on('error', reject).on('timeout', () => req.destroy(new Error('no answer')));
    req.end();
  });
}

async function untilAnswers(port: number): Promise<string> {
  const until = Date.now() + RECOVERY_TIMEOUT_MS;
  for (;;) {
    const answer = await ask(port, 'GET').catch(() => undefined);
    if (answer !== undefined) return answer;
    if (Date.now() > until) throw new Error(`the task does not answer on port ${port}`);
    await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
  }
}

function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.once('error', reject);
    server.listen(0, '127.0.0.1', () => {
      const address = server.address();
      server.close(() =>
        typeof address === 'object' && address ? resolve(address.port) : reject(new Error('no free port')),
      );
    });
  });
}

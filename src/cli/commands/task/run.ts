import type { Command } from 'commander';
import type { SubmitView } from '../../../services/api/schemas.ts';
import { collect, examples, pairs, whole, withClient } from '../../command.ts';
import { print } from '../../output.ts';
import { waitForTask } from './wait.ts';

interface RunOptions {
  name?: string;
  runtime?: string;
  env: string[];
  publish: string[];
  volume: string[];
  cpus?: string;
  memory?: string;
  workdir?: string;
  user?: string;
  restart?: string;
  replicas?: string;
  constraint: string[];
  label: string[];
  stopSignal?: string;
  stopTimeout?: string;
  healthCmd?: string;
  healthHttp?: string;
  healthTcp?: string;
  healthInterval?: string;
  healthTimeout?: string;
  healthRetries?: string;
  onPartition?: string;
  onNodeLoss?: string;
  priority?: string;
  gpus?: string;
  device: string[];
  entrypoint?: string;
  id?: string;
  wait?: boolean;
  waitTimeout: number;
}

/** Short names for tasks the user did not name. */
function generatedName(what: string): string {
  const base =
    (what.split('/').at(-1) ?? 'task')
      .replace(/[:@].*$/, '')
      .replace(/[^a-zA-Z0-9_.-]/g, '-')
      .replace(/^[^a-zA-Z0-9]+/, '') || 'task';
  return `${base.slice(0, 40)}-${Math.floor(Math.random() * 0xffffff)
    .toString(16)
    .padStart(6, '0')}`;
}

/** A number where it is one; else as written, so that the error names what the user wrote. */
const number = (text: string | undefined): number | string | undefined =>
  text !== undefined && /^-?\d+(\.\d+)?$/.test(text) ? Number(text) : text;

/** Docker's option names to the fields of a task document. */
export function documentOf(words: readonly string[], o: RunOptions): Record<string, unknown> {
  const process = o.runtime === 'process';
  const [first, ...rest] = words;
  const health =
    o.healthCmd !== undefined
      ? { command: o.healthCmd }
      : o.healthHttp !== undefined
        ? { http: o.healthHttp }
        : o.healthTcp !== undefined
          ? { tcp: o.healthTcp }
          : undefined;
  const restart = /^(always|on-failure|no|unless-stopped)(?::(\d+))?$/.exec(o.restart ?? '');
  const document: Record<string, unknown> = {
    name: o.name ?? generatedName(first ?? 'task'),
    runtime: o.runtime,
    ...(process
      ? { command: words }
      : { image: first, args: rest, command: o.entrypoint === undefined ? undefined : [o.entrypoint] }),
    env: o.env,
    ports: o.publish,
    volumes: o.volume,
    devices: o.device,
    constraints: o.constraint,
    labels: pairs('--label', o.label),
    cpus: number(o.cpus),
    memory: o.memory,
    workdir: o.workdir,
    user: o.user,
    gpus: number(o.gpus),
    replicas: number(o.replicas),
    restart:
      o.restart === undefined
        ? undefined
        : restart
          ? {
              policy: restart[1] === 'unless-stopped' ? 'always' : restart[1],
              ...(restart[2] === undefined ? {} : { maxAttempts: Number(restart[2]) }),
            }
          : { policy: o.restart },
    stopSignal: o.stopSignal,
    stopGrace:
      o.stopTimeout === undefined ? undefined : /^\d+$/.test(o.stopTimeout) ? `${o.stopTimeout}s` : o.stopTimeout,
    healthCheck: health && {
      ...health,
      interval: o.healthInterval,
      timeout: o.healthTimeout,
      retries: number(o.healthRetries),
    },
    onPartition: o.onPartition,
    onNodeLoss: o.onNodeLoss,
    priority: number(o.priority),
  };
  return prune(document);
}

/** Leaves out what was not given, so that defaults stand and error paths name only what the user wrote. */
function prune(value: Record<string, unknown>): Record<string, unknown> {
  const out: Record<string, unknown> = {};
  for (const [key, v] of Object.entries(value)) {
    if (v === undefined || (Array.isArray(v) && v.length === 0)) continue;
    if (v !== null && typeof v === 'object' && !Array.isArray(v)) {
      const inner = prune(v as Record<string, unknown>);
      if (Object.keys(inner).length > 0) out[key] = inner;
    } else out[key] = v;
  }
  return out;
}

export function runCommand(program: Command): void {
  const command = program
    .command('run')
    .description('run a task: a container, or with --runtime process a command of the machine')
    .argument('<words...>', 'IMAGE [CMD...], or with --runtime process the command after --')
    .passThroughOptions()
    .option('--name <name>', 'name of the task')
    .option('--runtime <runtime>', 'docker or process')
    .option('-e, --env <K=V>', 'environment', collect, [])
    .option('-p, --publish <[host:]port[/udp]>', 'publish a port', collect, [])
    .option('-v, --volume <name:/path[:ro]>', 'named volume', collect, [])
    .option('--cpus <n>', 'cores; a whole number pins them')
    .option('-m, --memory <size>', 'memory, e.g. 64m')
    .option('-w, --workdir <dir>', 'working directory')
    .option('-u, --user <user>', 'user')
    .option('--entrypoint <command>', "instead of the image's")
    .option('--restart <policy>', 'always, on-failure[:n] or no')
    .option('--replicas <n>', 'copies')
    .option('--constraint <expr>', 'e.g. node.labels.zone==lab', collect, [])
    .option('-l, --label <k=v>', 'label of the task', collect, [])
    .option('--stop-signal <signal>', 'signal that asks it to stop')
    .option('--stop-timeout <duration>', 'grace before it is killed')
    .option('--health-cmd <command>', 'health check by a command')
    .option('--health-http <port/path>', 'by an HTTP GET, e.g. 8080/healthz')
    .option('--health-tcp <port>', 'by a TCP connect')
    .option('--health-interval <duration>', 'between two checks')
    .option('--health-timeout <duration>', 'a check that takes longer has failed')
    .option('--health-retries <n>', 'failures in a row')
    .option('--on-partition <stop|keep>', 'stop: never two copies; keep: any side revives it')
    .option('--on-node-loss <reschedule|wait>', 'when its machine dies: run elsewhere, or wait for it')
    .option('--priority <n>', 'higher first')
    .option('--gpus <n>', 'GPUs wanted')
    .option('--device <class>', 'device class the machine must have', collect, [])
    .option('--id <id>', 'own submission id: the same id twice is one task')
    .option('--wait', 'return when it runs')
    .option('--wait-timeout <seconds>', 'for --wait', whole(1), 60)
    .option('-d, --detach', 'as in Docker; always so');
  command.addHelpText(
    'after',
    examples(
      'task-org run --name web -p 8080:80 nginx:1',
      'task-org run --name db -v data:/data redis:7',
      'task-org run --runtime process --name ticker -- sh -c "while :; do date; sleep 1; done"',
    ),
  );
  command.action(
    withClient(command, async (client, words: string[], options: RunOptions) => {
      const submitted = await client.json<SubmitView>(
        'POST',
        `/v1/tasks${options.id === undefined ? '' : `?id=${encodeURIComponent(options.id)}`}`,
        documentOf(words, options),
      );
      print(submitted.id);
      if (options.wait) await waitForTask(client, submitted.id, options.waitTimeout * 1000);
    }),
  );
}

import { Compile } from 'typebox/compile';
import { parseConstraint } from './constraint.ts';
import type { FieldIssue } from './errors.ts';
import { parseBytes, parseDurationMs } from './human-units.ts';
import { LIMITS } from './limits.ts';
import { checkValue, isRecord, joinPath } from './schema-check.ts';
import { shellWords } from './shell-words.ts';
import { didYouMean } from './suggest.ts';
import { TaskDocument } from './task-document-schema.ts';
import { NAME_PATTERN, TaskSpec } from './task-spec.ts';

// From the task document that people write to the TaskSpec that the cluster keeps: units resolved, defaults filled in,
// and everything that is wrong said at once.

export type TaskDocumentResult =
  | { readonly ok: true; readonly spec: TaskSpec }
  | { readonly ok: false; readonly issues: FieldIssue[] };

const SIGNALS = [
  'SIGTERM',
  'SIGINT',
  'SIGQUIT',
  'SIGHUP',
  'SIGKILL',
  'SIGUSR1',
  'SIGUSR2',
  'SIGWINCH',
  'SIGABRT',
  'SIGALRM',
  'SIGCONT',
  'SIGSTOP',
  'SIGPWR',
];
/** Docker's own minimum. */
const DOCKER_MEMORY_MIN = 6 * 1024 * 1024;

const specValidator = Compile(TaskSpec);

/**
 * Reads one task document (already parsed from YAML or JSON). `source` names where it came from and is put after each
 * message. Never throws.
 */
export function parseTaskDocument(input: unknown, source?: string): TaskDocumentResult {
  const issues = checkValue(TaskDocument, input);
  if (isRecord(input)) {
    // Fields whose shape is wrong are already reported; the others are read all the same, so that all is said at once.
    const spec = readDocument(soundFields(input, issues), input, issues);
    if (issues.length === 0) {
      for (const e of specValidator.Errors(spec))
        issues.push({ path: pointerPath(e.instancePath), message: e.message });
      if (new TextEncoder().encode(JSON.stringify(spec)).length > LIMITS.taskSpecBytes) {
        issues.push({
          path: '',
          message: `is too large: a task document may hold ${LIMITS.taskSpecBytes / 1024} KiB; put larger data into the image or a volume`,
        });
      }
    }
    if (issues.length === 0) return { ok: true, spec };
  }
  return {
    ok: false,
    issues: source === undefined ? issues : issues.map((i) => ({ ...i, message: `${i.message} (${source})` })),
  };
}

/** The document's JSON Schema, for the documentation and OpenAPI. */
export function taskDocumentSchemaJson(): Readonly<Record<string, unknown>> {
  return JSON.parse(JSON.stringify(TaskDocument)) as Record<string, unknown>;
}

type Doc = Partial<TaskDocument>;

/** The fields without shape issues; of lists, the entries without (the others become null, so that places stay right). */
function soundFields(input: Record<string, unknown>, issues: readonly FieldIssue[]): Doc {
  const wrong = new Set(issues.map((i) => /^[^.[]*(?:\[\d+\])?/.exec(i.path)?.[0] ?? ''));
  const entries = Object.entries(input).filter(([key]) => !wrong.has(key));
  return Object.fromEntries(
    entries.map(([key, value]) => [
      key,
      Array.isArray(value) ? value.map((v: unknown, i) => (wrong.has(`${key}[${i}]`) ? null : v)) : value,
    ]),
  ) as Doc;
}

/** `raw` is the document with its wrong fields: what decides a default must not be reported twice. */
function readDocument(doc: Doc, raw: Record<string, unknown>, issues: FieldIssue[]): TaskSpec {
  const runtime = doc.runtime ?? (raw.image === undefined ? 'process' : 'docker');
  const volumes = readVolumes(doc, issues);
  const command = readWords(doc.command, 'command', issues);
  const healthCheck = doc.healthCheck === undefined ? undefined : readHealthCheck(doc.healthCheck, issues);
  const memoryBytes = parseBytes(doc.memory ?? 0) ?? 0;
  checkWhatRuns(runtime, raw, command, memoryBytes, issues);
  return {
    name: doc.name ?? '',
    runtime,
    image: doc.image?.trim() ?? '',
    command,
    args: readWords(doc.args, 'args', issues),
    env: readEnv(doc.env, issues),
    workdir: doc.workdir ?? '',
    user: String(doc.user ?? ''),
    cpus: Number(doc.cpus ?? 0),
    memoryBytes,
    gpus: doc.gpus ?? 0,
    devices: doc.devices ?? [],
    ports: readPorts(doc, issues),
    volumes,
    replicas: doc.replicas ?? 1,
    restart: readRestart(doc.restart, issues),
    stopSignal: readSignal(doc.stopSignal, issues),
    stopGraceMs: parseDurationMs(doc.stopGrace ?? '10s') ?? 0,
    ...(healthCheck === undefined ? {} : { healthCheck }),
    onPartition: doc.onPartition ?? (Array.isArray(raw.volumes) && raw.volumes.length > 0 ? 'stop' : 'keep'),
    onNodeLoss: doc.onNodeLoss ?? 'reschedule',
    constraints: readConstraints(doc, issues),
    priority: doc.priority ?? 0,
    labels: mapValues(doc.labels ?? {}, String),
  };
}

function checkWhatRuns(
  runtime: string,
  raw: Record<string, unknown>,
  command: readonly string[],
  memoryBytes: number,
  issues: FieldIssue[],
): void {
  const hasCommand =
    raw.command !== undefined && (command.length > 0 || issues.some((i) => i.path.startsWith('command')));
  if (runtime === 'docker') {
    if (raw.image === undefined)
      issues.push({
        path: 'image',
        message: 'is required: expected an image such as nginx:1.27 (the runtime is docker)',
      });
    if (memoryBytes > 0 && memoryBytes < DOCKER_MEMORY_MIN)
      issues.push({ path: 'memory', message: 'expected at least 6m (Docker refuses less) or 0 for no limit' });
    return;
  }
  if (raw.image !== undefined) issues.push({ path: 'image', message: 'expected no image: the runtime is process' });
  if (!hasCommand) {
    const hint =
      raw.runtime === undefined
        ? 'an image (to run a container) or a command (to run a process)'
        : 'a command line or a list of texts (the runtime is process)';
    issues.push({ path: 'command', message: `is required: expected ${hint}` });
  }
}

function readWords(value: string | string[] | undefined, path: string, issues: FieldIssue[]): string[] {
  if (value === undefined) return [];
  if (typeof value !== 'string') return value.filter((v) => v !== null);
  const split = shellWords(value);
  if (split.ok) return split.words;
  issues.push({ path, message: `expected a command line or a list of texts: ${split.error}` });
  return [];
}

function readEnv(env: Doc['env'], issues: FieldIssue[]): Record<string, string> {
  if (!Array.isArray(env)) return mapValues(env ?? {}, String);
  const out: Record<string, string> = {};
  for (const [i, line] of env.entries()) {
    if (line === null) continue;
    const at = line.indexOf('=');
    const name = at < 0 ? line : line.slice(0, at);
    const path = joinPath('env', i);
    if (at < 0)
      issues.push({
        path,
        message: `expected NAME=VALUE, found '${line}'; values of your own environment are not passed on`,
      });
    else if (!/^[A-Za-z_][A-Za-z0-9_]{0,127}$/.test(name))
      issues.push({ path, message: `expected a name of letters, digits and _, found '${name}'` });
    else if (Object.hasOwn(out, name)) issues.push({ path, message: `${name} is given twice` });
    else out[name] = line.slice(at + 1);
  }
  return out;
}

function readPorts(doc: Doc, issues: FieldIssue[]): TaskSpec['ports'] {
  const ports: TaskSpec['ports'] = [];
  const taken = new Set<string>();
  for (const [i, value] of (doc.ports ?? []).entries()) {
    if (value === null) continue;
    const path = joinPath('ports', i);
    const port = isRecord(value)
      ? { container: value.container, host: value.host ?? 0, protocol: value.protocol ?? ('tcp' as const) }
      : readPort(String(value));
    if (typeof port === 'string') {
      issues.push({ path, message: port });
      continue;
    }
    const key = port.host === 0 ? `->${port.container}/${port.protocol}` : `${port.host}/${port.protocol}`;
    if (taken.has(key))
      issues.push({
        path,
        message:
          port.host === 0
            ? `port ${port.container}/${port.protocol} is given twice`
            : `host port ${key} is given twice`,
      });
    taken.add(key);
    ports.push(port);
  }
  return ports;
}

function readPort(text: string): TaskSpec['ports'][number] | string {
  const m = /^\s*(?:(\d{1,5}):)?(\d{1,5})(?:\/(tcp|udp))?\s*$/i.exec(text);
  if (!m) {
    if (/\d-\d/.test(text)) return `expected one port, found the range '${text}'; write a line for each`;
    if ((text.match(/:/g)?.length ?? 0) > 1)
      return `expected HOST:CONTAINER, found '${text}'; an address to bind is not supported`;
    return `expected a port such as 80, 8080:80 or 8080:80/udp, found '${text}'`;
  }
  const host = Number(m[1] ?? 0);
  const container = Number(m[2]);
  if (host > 65535 || container < 1 || container > 65535) return `expected ports from 1 to 65535, found '${text}'`;
  return { container, host, protocol: m[3]?.toLowerCase() === 'udp' ? 'udp' : 'tcp' };
}

function readVolumes(doc: Doc, issues: FieldIssue[]): TaskSpec['volumes'] {
  const volumes: TaskSpec['volumes'] = [];
  const paths = new Set<string>();
  for (const [i, value] of (doc.volumes ?? []).entries()) {
    if (value === null) continue;
    const at = joinPath('volumes', i);
    const volume =
      typeof value === 'string'
        ? readVolume(value)
        : { name: value.name, path: value.path, readOnly: value.readOnly ?? false };
    const problem = typeof volume === 'string' ? volume : volumeProblem(volume);
    if (typeof volume === 'string' || problem !== undefined) {
      issues.push({ path: at, message: problem ?? '' });
      continue;
    }
    if (paths.has(volume.path)) issues.push({ path: at, message: `two volumes at ${volume.path}` });
    paths.add(volume.path);
    volumes.push(volume);
  }
  return volumes;
}

function readVolume(text: string): TaskSpec['volumes'][number] | string {
  const parts = text.split(':');
  const [name = '', path = '', mode = 'rw'] = parts;
  if (parts.length === 1) {
    return name.startsWith('/')
      ? `expected NAME:PATH, found '${text}'; give the volume a name, such as data:${name}`
      : `expected NAME:PATH, found '${text}'; say where the task sees it, such as ${name || 'data'}:/data`;
  }
  if (parts.length > 3 || (mode !== 'ro' && mode !== 'rw'))
    return `expected NAME:PATH, NAME:PATH:ro or NAME:PATH:rw, found '${text}'`;
  return { name, path, readOnly: mode === 'ro' };
}

function volumeProblem(volume: TaskSpec['volumes'][number]): string | undefined {
  if (/^[./~\\]|^[A-Za-z]:\\|\//.test(volume.name)) {
    return `the path of the machine '${volume.name}' is refused: it would not move with the task; use a named volume such as data:${volume.path.startsWith('/') ? volume.path : '/data'}`;
  }
  if (!new RegExp(NAME_PATTERN).test(volume.name))
    return `expected a volume name of letters, digits, _ . and -, found '${volume.name}'`;
  if (!volume.path.startsWith('/') || volume.path === '/' || volume.path.split('/').includes('..')) {
    return `expected an absolute path other than / and without .., found '${volume.path}'`;
  }
  return undefined;
}

function readRestart(value: Doc['restart'], issues: FieldIssue[]): TaskSpec['restart'] {
  const policy = {
    policy: 'always' as TaskSpec['restart']['policy'],
    maxAttempts: 0,
    backoffMs: 100,
    backoffCapMs: 30_000,
  };
  if (value === undefined) return policy;
  if (value === false) return { ...policy, policy: 'no' };
  if (typeof value === 'string') {
    const m = /^(always|no|on-failure)(?::(\d{1,6}))?$/.exec(value.trim());
    if (m && (m[2] === undefined || m[1] === 'on-failure'))
      return { ...policy, policy: m[1] as 'always', maxAttempts: Number(m[2] ?? 0) };
    const hint =
      value === 'unless-stopped'
        ? ' (write always: a stopped task stays stopped)'
        : didYouMean(value, ['always', 'no', 'on-failure']);
    issues.push({
      path: 'restart',
      message: `expected always, on-failure, on-failure:N or no, found '${value}'${hint}`,
    });
    return policy;
  }
  const backoffMs = parseDurationMs(value.backoff ?? '100ms') ?? 100;
  const cap = value.backoffCap === undefined ? Math.max(30_000, backoffMs) : (parseDurationMs(value.backoffCap) ?? 0);
  if (cap < backoffMs) issues.push({ path: 'restart.backoffCap', message: 'expected at least the back-off' });
  return {
    policy: value.policy === false ? 'no' : (value.policy ?? 'always'),
    maxAttempts: value.maxAttempts ?? 0,
    backoffMs,
    backoffCapMs: cap,
  };
}

function readSignal(value: string | undefined, issues: FieldIssue[]): string {
  if (value === undefined) return 'SIGTERM';
  const upper = value.trim().toUpperCase();
  const name = upper.startsWith('SIG') ? upper : `SIG${upper}`;
  if (SIGNALS.includes(name) || /^SIGRTM(IN(\+\d{1,2})?|AX(-\d{1,2})?)$/.test(name)) return name;
  issues.push({
    path: 'stopSignal',
    message: `expected a signal such as SIGTERM, found '${value}'${didYouMean(name, SIGNALS)}`,
  });
  return 'SIGTERM';
}

function readHealthCheck(doc: NonNullable<Doc['healthCheck']>, issues: FieldIssue[]): TaskSpec['healthCheck'] {
  const path = 'healthCheck';
  const given = (['command', 'http', 'tcp'] as const).filter((k) => doc[k] !== undefined);
  if (given.length !== 1) {
    issues.push({
      path,
      message: `expected one of command, http and tcp, found ${given.length === 0 ? 'none' : given.join(' and ')}`,
    });
    return undefined;
  }
  const check = readCheck(doc, issues);
  if (check === undefined) return undefined;
  return {
    check,
    intervalMs: parseDurationMs(doc.interval ?? '10s') ?? 0,
    timeoutMs: parseDurationMs(doc.timeout ?? '3s') ?? 0,
    retries: doc.retries ?? 3,
    startPeriodMs: parseDurationMs(doc.startPeriod ?? 0) ?? 0,
  };
}

function readCheck(
  doc: NonNullable<Doc['healthCheck']>,
  issues: FieldIssue[],
): NonNullable<TaskSpec['healthCheck']>['check'] | undefined {
  if (doc.command !== undefined) {
    const before = issues.length;
    const command = readWords(doc.command, 'healthCheck.command', issues);
    if (command.length === 0 && issues.length === before)
      issues.push({ path: 'healthCheck.command', message: 'expected a command, found nothing' });
    if (command.length > 64) issues.push({ path: 'healthCheck.command', message: 'expected at most 64 words' });
    return { type: 'command', command };
  }
  if (doc.tcp !== undefined) return { type: 'tcp', port: typeof doc.tcp === 'number' ? doc.tcp : doc.tcp.port };
  if (typeof doc.http === 'object') return { type: 'http', port: doc.http.port, path: doc.http.path ?? '/' };
  const m = /^:?(\d{1,5})(\/\S*)?$/.exec(String(doc.http ?? ''));
  const port = Number(m?.[1] ?? 0);
  if (m && port >= 1 && port <= 65535) return { type: 'http', port, path: m[2] ?? '/' };
  issues.push({
    path: 'healthCheck.http',
    message: `expected a port and path such as '80/health', found '${doc.http}'`,
  });
  return undefined;
}

function readConstraints(doc: Doc, issues: FieldIssue[]): string[] {
  const constraints: string[] = [];
  for (const [i, text] of (doc.constraints ?? []).entries()) {
    if (text === null) continue;
    const parsed = parseConstraint(text);
    if (parsed.ok) constraints.push(parsed.constraint.text);
    else issues.push({ path: joinPath('constraints', i), message: parsed.error });
  }
  for (const [name, value] of Object.entries(doc.nodeLabels ?? {})) {
    const parsed = parseConstraint(`node.labels.${name}==${value}`);
    if (parsed.ok) constraints.push(parsed.constraint.text);
    else issues.push({ path: joinPath('nodeLabels', name), message: 'expected a value that is not empty' });
  }
  if (constraints.length > 32)
    issues.push({ path: 'constraints', message: 'expected at most 32, nodeLabels included' });
  return constraints;
}

function mapValues<T>(map: Readonly<Record<string, T>>, f: (value: T) => string): Record<string, string> {
  return Object.fromEntries(Object.entries(map).map(([k, v]) => [k, f(v)]));
}

/** `/ports/0/host` -> `ports[0].host`. */
function pointerPath(pointer: string): string {
  return pointer
    .split('/')
    .slice(1)
    .reduce((path, part) => joinPath(path, /^\d+$/.test(part) ? Number(part) : part), '');
}

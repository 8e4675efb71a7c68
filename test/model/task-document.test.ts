import fc from 'fast-check';
import { Compile } from 'typebox/compile';
import { describe, expect, it } from 'vitest';
import { parseTaskDocument, taskDocumentSchemaJson } from '../../src/model/task-document.ts';
import { parseTaskDocuments } from '../../src/model/task-document-text.ts';
import { TaskSpec } from '../../src/model/task-spec.ts';
import { taskSpec } from './fixtures.ts';

const spec = (doc: unknown): TaskSpec => {
  const r = parseTaskDocument(doc);
  if (!r.ok) throw new Error(JSON.stringify(r.issues));
  return r.spec;
};
const issues = (doc: unknown): string[] => {
  const r = parseTaskDocument(doc);
  return r.ok ? [] : r.issues.map((i) => `${i.path}: ${i.message}`);
};
const base = { name: 'web', command: 'sleep 60' };

describe('defaults', () => {
  it('of a process', () => expect(spec(base)).toEqual(taskSpec()));
  it('of a container', () =>
    expect(spec({ name: 'web', image: 'nginx' })).toEqual(
      taskSpec({ runtime: 'docker', image: 'nginx', command: [] }),
    ));
  it('volumes make it exclusive, unless said otherwise', () => {
    expect(spec({ name: 'db', image: 'pg', volumes: ['data:/data'] }).onPartition).toBe('stop');
    expect(spec({ name: 'db', image: 'pg', volumes: ['data:/data'], onPartition: 'keep' }).onPartition).toBe('keep');
    expect(spec({ name: 'db', image: 'pg', volumes: [] }).onPartition).toBe('keep');
  });
});

describe('what people may write', () => {
  it.each<[string, object, Partial<TaskSpec>]>([
    ['command line', { command: "sh -c 'a b'" }, { command: ['sh', '-c', 'a b'] }],
    ['list', { command: ['a b'], args: 'x y' }, { command: ['a b'], args: ['x', 'y'] }],
    ['env map', { env: { A: 1, B: true, C: 'x' } }, { env: { A: '1', B: 'true', C: 'x' } }],
    ['env list', { env: ['A=1', 'B=x=y', 'C='] }, { env: { A: '1', B: 'x=y', C: '' } }],
    [
      'ports',
      { ports: ['8080:80/udp', 81, '82', { container: 83, host: 8083 }] },
      {
        ports: [
          { container: 80, host: 8080, protocol: 'udp' },
          { container: 81, host: 0, protocol: 'tcp' },
          { container: 82, host: 0, protocol: 'tcp' },
          { container: 83, host: 8083, protocol: 'tcp' },
        ],
      },
    ],
    [
      'volumes',
      { onPartition: 'keep', volumes: ['a:/a', 'b:/b:ro', { name: 'c', path: '/c', readOnly: true }] },
      {
        volumes: [
          { name: 'a', path: '/a', readOnly: false },
          { name: 'b', path: '/b', readOnly: true },
          { name: 'c', path: '/c', readOnly: true },
        ],
      },
    ],
    [
      'sizes and times',
      { memory: '1.5g', cpus: '0.5', stopGrace: '1.5s' },
      { memoryBytes: 1_610_612_736, cpus: 0.5, stopGraceMs: 1500 },
    ],
    [
      'restart by name',
      { restart: 'on-failure:5' },
      { restart: { policy: 'on-failure', maxAttempts: 5, backoffMs: 100, backoffCapMs: 30_000 } },
    ],
    [
      'restart: no',
      { restart: false },
      { restart: { policy: 'no', maxAttempts: 0, backoffMs: 100, backoffCapMs: 30_000 } },
    ],
    [
      'restart',
      { restart: { policy: 'no', backoff: '1m' } },
      { restart: { policy: 'no', maxAttempts: 0, backoffMs: 60_000, backoffCapMs: 60_000 } },
    ],
    ['signal', { stopSignal: 'int' }, { stopSignal: 'SIGINT' }],
    [
      'placement',
      { constraints: ['node.name != a'], nodeLabels: { ssd: true } },
      { constraints: ['node.name!=a', 'node.labels.ssd==true'] },
    ],
    [
      'health by http',
      { healthCheck: { http: '80/up', interval: '1s' } },
      {
        healthCheck: {
          check: { type: 'http', port: 80, path: '/up' },
          intervalMs: 1000,
          timeoutMs: 3000,
          retries: 3,
          startPeriodMs: 0,
        },
      },
    ],
    [
      'health by tcp',
      { healthCheck: { tcp: 5432, startPeriod: '2s' } },
      {
        healthCheck: {
          check: { type: 'tcp', port: 5432 },
          intervalMs: 10_000,
          timeoutMs: 3000,
          retries: 3,
          startPeriodMs: 2000,
        },
      },
    ],
    [
      'health by command',
      { healthCheck: { command: 'pg_isready -q' } },
      {
        healthCheck: {
          check: { type: 'command', command: ['pg_isready', '-q'] },
          intervalMs: 10_000,
          timeoutMs: 3000,
          retries: 3,
          startPeriodMs: 0,
        },
      },
    ],
    ['user by number', { user: 1000, labels: { team: 7 } }, { user: '1000', labels: { team: '7' } }],
  ])('%s', (_name, doc, expected) => expect(spec({ ...base, ...doc })).toEqual(taskSpec(expected)));
});

describe('what is refused', () => {
  it.each<[string, object, string]>([
    ['a mistyped field', { imgae: 'x' }, "imgae: unknown field 'imgae' (did you mean image?)"],
    ["compose's words", { environment: {} }, "environment: unknown field 'environment' (write env)"],
    [
      'a mistyped field within',
      { restart: { polcy: 'no' } },
      "restart.polcy: unknown field 'polcy' (did you mean policy?)",
    ],
    [
      'a path of the machine',
      { volumes: ['/etc:/etc'] },
      "volumes[0]: the path of the machine '/etc' is refused: it would not move with the task; use a named volume such as data:/etc",
    ],
    [
      'a path of the machine, relative',
      { volumes: [{ name: './x', path: '/x' }] },
      "volumes[0]: the path of the machine './x' is refused: it would not move with the task; use a named volume such as data:/x",
    ],
    [
      'a way out of the container',
      { volumes: ['a:/x/../../etc'] },
      "volumes[0]: expected an absolute path other than / and without .., found '/x/../../etc'",
    ],
    ['two volumes in one place', { volumes: ['a:/x', 'b:/x'] }, 'volumes[1]: two volumes at /x'],
    [
      'a duration without unit',
      { stopGrace: 10 },
      'stopGrace: expected a duration with its unit, such as 250ms or 1.5s from 0ms to 10m, found 10',
    ],
    ['a wrong size', { memory: '64q' }, "memory: expected a size such as 64m or 1.5g, found '64q'"],
    ['a number out of range', { replicas: 501 }, 'replicas: expected a whole number from 0 to 500, found 501'],
    [
      'a port range',
      { ports: ['1-2:1-2'] },
      "ports[0]: expected one port, found the range '1-2:1-2'; write a line for each",
    ],
    [
      'an address to bind',
      { ports: ['127.0.0.1:80:80'] },
      "ports[0]: expected HOST:CONTAINER, found '127.0.0.1:80:80'; an address to bind is not supported",
    ],
    ['a host port twice', { ports: ['80:1', '80:2'] }, 'ports[1]: host port 80/tcp is given twice'],
    [
      'two health checks',
      { healthCheck: { tcp: 1, http: 1 } },
      'healthCheck: expected one of command, http and tcp, found http and tcp',
    ],
    [
      'a signal',
      { stopSignal: 'SIGTREM' },
      "stopSignal: expected a signal such as SIGTERM, found 'SIGTREM' (did you mean SIGTERM?)",
    ],
    [
      'a constraint',
      { constraints: ['node.name==a', 'x'] },
      "constraints[1]: expected KEY==VALUE or KEY!=VALUE, such as node.labels.zone==eu, found 'x'",
    ],
    [
      'an open quote',
      { command: 'a "b' },
      'command: expected a command line or a list of texts: a double quote is not closed',
    ],
    ['a wrong kind', { env: 'A=1' }, "env: expected a map of names to values, or a list of NAME=VALUE, found 'A=1'"],
    ['a wrong word', { onPartition: 'halt' }, "onPartition: expected one of stop, keep, found 'halt'"],
    ['an image for a process', { image: 'x', runtime: 'process' }, 'image: expected no image: the runtime is process'],
    [
      'a cap below the back-off',
      { restart: { backoff: '2s', backoffCap: '1s' } },
      'restart.backoffCap: expected at least the back-off',
    ],
  ])('%s', (_name, doc, expected) => expect(issues({ ...base, ...doc })).toEqual([expected]));

  it('a document of another kind, or with nothing to run', () => {
    expect(issues('x')).toEqual(["expected an object, found 'x'"].map((m) => `: ${m}`));
    expect(issues({ name: 'a' })).toEqual([
      'command: is required: expected an image (to run a container) or a command (to run a process)',
    ]);
    expect(issues({ name: 'a', runtime: 'docker' })).toEqual([
      'image: is required: expected an image such as nginx:1.27 (the runtime is docker)',
    ]);
    expect(issues({ command: 'x' })).toEqual([
      'name: is required: expected a name of 1 to 63 letters, digits, _ . and -, the first a letter or digit',
    ]);
  });
  it('everything at once, shapes and meanings alike', () => {
    const paths = issues({
      ...base,
      name: '-',
      replicas: 'x',
      ports: [{ container: 0 }, '1:2:3', 80],
      volumes: ['/a:/b'],
      restart: 'never',
      env: ['A'],
      foo: 1,
    }).map((i) => i.split(':')[0]);
    expect(paths.sort()).toEqual([
      'env[0]',
      'foo',
      'name',
      'ports[0].container',
      'ports[1]',
      'replicas',
      'restart',
      'volumes[0]',
    ]);
  });
  it('what does not fit into a frame', () => {
    expect(
      issues({ ...base, env: Object.fromEntries(Array.from({ length: 4 }, (_, i) => [`V${i}`, 'x'.repeat(20_000)])) }),
    ).toEqual([': is too large: a task document may hold 48 KiB; put larger data into the image or a volume']);
  });
  it('with its source', () =>
    expect(parseTaskDocument({ name: 'a', command: 'x', y: 1 }, 'web.yaml')).toMatchObject({
      issues: [{ path: 'y', message: "unknown field 'y' (web.yaml)" }],
    }));
});

it('never throws, and what it takes fits the schema of the cluster', () => {
  const fits = Compile(TaskSpec);
  const key = fc.constantFrom(
    'name',
    'image',
    'command',
    'env',
    'ports',
    'volumes',
    'restart',
    'healthCheck',
    'memory',
    'cpus',
    'constraints',
    'nodeLabels',
    'stopSignal',
    'labels',
    '__proto__',
    'x',
  );
  const value = fc.oneof(
    fc.jsonValue(),
    fc.constantFrom<unknown>(
      'a',
      'a b',
      '80:80',
      'data:/x',
      'always',
      '64m',
      1,
      ['a:/b'],
      [80],
      ['A=1'],
      { http: 80 },
      { A: 'x' },
      { policy: 'no' },
      [{ container: 1 }],
      ['node.name==x'],
      'SIGINT',
    ),
  );
  fc.assert(
    fc.property(fc.dictionary(key, value), fc.boolean(), (doc, sound) => {
      const r = parseTaskDocument(sound ? { ...doc, ...base } : doc);
      if (r.ok) expect(fits.Errors(r.spec)).toEqual([]);
      else expect(r.issues.length).toBeGreaterThan(0);
    }),
    { numRuns: 500 },
  );
});

it('is documented by the same schema', () => {
  const schema = taskDocumentSchemaJson() as {
    type: string;
    required: string[];
    properties: Record<string, { description?: string }>;
  };
  expect(schema).toMatchObject({ type: 'object', required: ['name'] });
  expect(
    Object.entries(schema.properties)
      .filter(([, p]) => !p.description)
      .map(([k]) => k),
  ).toEqual([]);
});

describe('files', () => {
  it('of several documents, or a list', () => {
    const yaml = parseTaskDocuments(
      'name: a\ncommand: x\n---\n- {name: b, command: x}\n- {name: c, command: x}\n---\n',
      'yaml',
    );
    expect(yaml.ok && yaml.specs.map((s) => s.name)).toEqual(['a', 'b', 'c']);
    const json = parseTaskDocuments('[{"name":"a","command":"x"}]', 'json');
    expect(json.ok && json.specs.map((s) => s.name)).toEqual(['a']);
  });
  it.each<[string, 'yaml' | 'json', number, string, string]>([
    ['name: a\ncommand: x\nports:\n  - 80\n  - 80:80:80\n', 'yaml', 5, 'ports[1]', 'web.yaml:5'],
    ['name: a\ncommand: x\nenv:\n  a.b: 1\n', 'yaml', 4, 'env.a.b', "found 'a.b'"],
    ['name: a\n---\nname: b\ncommand: x\nrepliccas: 3', 'yaml', 1, 'command', 'is required'],
    ['[{"name": "a", "command": "x"},\n {"name": "b",\n  "command": 3}]', 'json', 3, '[1].command', 'found 3'],
    ['name: a\ncommand: [x\nport: 1\n', 'yaml', 3, '', 'web.yaml:3'],
    ['{"name": "a",\n "command": }', 'json', 2, '', 'web.yaml:2, column 13'],
    ['name: a\nname: b\ncommand: x', 'yaml', 2, '', 'unique'],
    ['{name: a, command: x}\n---\n{name: a, command: y}', 'yaml', 3, 'name', 'given twice, first at web.yaml:1'],
    ['# nothing\n', 'yaml', 1, '', 'holds no task'],
  ])('say where: %j', (text, format, line, path, message) => {
    const r = parseTaskDocuments(text, format, 'web.yaml');
    expect(r.ok ? [] : r.issues).toContainEqual(
      expect.objectContaining({ line, path, message: expect.stringContaining(message) }),
    );
  });
  it('cannot blow up by aliases', () => {
    const bomb = `a: &a [x,x,x,x,x,x,x,x,x]\n${['b', 'c', 'd', 'e', 'f', 'g', 'h'].map((k, i) => `${k}: &${k} [${Array(9).fill(`*${'abcdefg'[i]}`).join(',')}]`).join('\n')}`;
    expect(parseTaskDocuments(bomb, 'yaml').ok).toBe(false);
  });
});

import { describe, expect, it } from 'vitest';
import { DEFAULT_CONSENSUS_CONFIG } from '../../src/core/consensus/types.ts';
import { DEFAULT_LEASE_CONFIG } from '../../src/core/lease/types.ts';
import { DEFAULT_MEMBERSHIP_CONFIG } from '../../src/core/membership/types.ts';
import { configSchemaJson, resolveConfig, showConfig } from '../../src/model/config.ts';

const file = (text: string, path = 'peer.yaml'): { path: string; text: string } => ({ path, text });
const messages = (sources: Parameters<typeof resolveConfig>[0]): string[] => {
  const r = resolveConfig(sources);
  return r.ok ? [] : r.issues.map((i) => `${i.path}: ${i.message}`);
};

it("has the cores' defaults", () => {
  const r = resolveConfig({});
  if (!r.ok) throw new Error(JSON.stringify(r.issues));
  expect(r.config.membership).toEqual(DEFAULT_MEMBERSHIP_CONFIG);
  expect(r.config.consensus).toEqual(DEFAULT_CONSENSUS_CONFIG);
  expect(r.config.lease).toEqual(DEFAULT_LEASE_CONFIG);
  expect(new Set(Object.values(r.origins))).toEqual(new Set(['default']));
});

it('flags > environment > file > defaults, each value with its origin', () => {
  const r = resolveConfig({
    flags: { name: 'f', mdns: undefined },
    env: { TASKORG_NAME: 'e', TASKORG_LOG_LEVEL: 'debug', TASKORG_MEMBERSHIP_PROBE_INTERVAL: '100ms', PATH: '/bin' },
    file: file(
      'name: x\nlogLevel: warn\npriority: 7\nmembership:\n  probeInterval: 300ms\n  monitors: 9\nreserved: {memory: 1g}\n',
    ),
  });
  expect(r).toMatchObject({
    ok: true,
    config: {
      name: 'f',
      logLevel: 'debug',
      priority: 7,
      mdns: true,
      membership: { probeIntervalMs: 100, monitors: 9, ackTimeoutMs: 250 },
      reserved: { memoryBytes: 1024 ** 3, cpus: 0 },
    },
    origins: {
      name: 'flag',
      logLevel: 'env',
      priority: 'peer.yaml:3',
      mdns: 'default',
      'membership.probeInterval': 'env',
      'membership.monitors': 'peer.yaml:6',
      'reserved.memory': 'peer.yaml:7',
    },
  });
});

it('text from flags and environment becomes what its key wants', () => {
  const r = resolveConfig({
    flags: { labels: ['zone=eu', 'ssd'], priority: '5', witness: true },
    env: {
      TASKORG_LISTEN: '/ip4/1.1.1.1/tcp/0, /ip4/2.2.2.2/tcp/1',
      TASKORG_MDNS: 'off',
      TASKORG_RESERVED_CPUS: '0.5',
    },
  });
  expect(r).toMatchObject({
    ok: true,
    config: {
      labels: { zone: 'eu', ssd: 'true' },
      priority: 5,
      witness: true,
      listen: ['/ip4/1.1.1.1/tcp/0', '/ip4/2.2.2.2/tcp/1'],
      mdns: false,
      reserved: { cpus: 0.5 },
    },
  });
});

describe('what is wrong is said, all at once, with its line and a suggestion', () => {
  it.each<[string, Parameters<typeof resolveConfig>[0], string[]]>([
    [
      'unknown keys',
      { file: file('priorty: 1\nheartbeat: 1s\nlease: {leese: 1s}\n') },
      [
        "priorty: unknown field 'priorty' (did you mean priority?) (peer.yaml:1)",
        "heartbeat: unknown field 'heartbeat' (did you mean consensus.heartbeat?) (peer.yaml:2)",
        "lease.leese: unknown field 'leese' (did you mean lease?) (peer.yaml:3)",
      ],
    ],
    [
      'wrong values',
      { file: file('mdns: maybe\nlisten: [localhost]\nreserved:\n  memory: 1q\n') },
      [
        "mdns: expected true or false, found 'maybe' (peer.yaml:1)",
        "listen[0]: expected an address such as /ip4/0.0.0.0/tcp/7420, found 'localhost' (peer.yaml:2)",
        "reserved.memory: expected a size such as 64m or 1.5g, found '1q' (peer.yaml:4)",
      ],
    ],
    [
      'environment',
      { env: { TASKORG_LOGLEVEL: 'x', TASKORG_PRIORITY: 'high' } },
      [
        'TASKORG_LOGLEVEL: unknown environment variable TASKORG_LOGLEVEL (did you mean TASKORG_LOG_LEVEL?)',
        "priority: expected a whole number from -1000 to 1000, found 'high' (TASKORG_PRIORITY)",
      ],
    ],
    [
      'flags',
      { flags: { nmae: 'x', 'consensus.heartbeat': '5' } },
      [
        'nmae: unknown setting nmae (did you mean name?)',
        "consensus.heartbeat: expected a duration with its unit, such as 250ms or 1.5s from 5ms to 1h, found '5' (flag consensus.heartbeat)",
      ],
    ],
    [
      'syntax',
      { file: file('a: [1\nb: 2') },
      [': Flow sequence in block collection must be sufficiently indented and end with a ] (peer.yaml:2, column 1)'],
    ],
    [
      'values that contradict each other',
      { file: file('consensus: {heartbeat: 300ms}\nlease:\n  stopAllowance: 4s\n') },
      [
        "consensus.heartbeat: expected at most a third of consensus.electionTimeoutMin, found '300ms' (peer.yaml:1)",
        "lease.stopAllowance: expected less than lease.lease times (1 - lease.clockRateError): nothing could ever run, found '4s' (peer.yaml:3)",
      ],
    ],
    ['a document of another kind', { file: file('- a\n') }, [': expected an object, found a list of 1 (peer.yaml:1)']],
  ])('%s', (_name, sources, expected) => {
    const found = messages(sources);
    for (const message of expected) expect(found).toContain(message);
    expect(found).toHaveLength(_name === 'syntax' ? found.length : expected.length);
  });
  it("but other programs' variables are not", () =>
    expect(messages({ env: { TASKORG_TOKEN: 'x' }, otherEnv: ['TASKORG_TOKEN'] })).toEqual([]));
  it('and an empty file is no error', () => expect(messages({ file: file('# nothing yet\n') })).toEqual([]));
});

it('is shown with origins, and without the token', () => {
  const r = resolveConfig({
    flags: { join: 'torg1_secret', 'lease.lease': '5s' },
    env: { TASKORG_RESERVED_MEMORY: '512m' },
  });
  if (!r.ok) throw new Error('refused');
  const lines = showConfig(r.config, r.origins);
  expect(lines).toContainEqual(expect.objectContaining({ key: 'lease.lease', value: '5s', origin: 'flag' }));
  expect(lines).toContainEqual(expect.objectContaining({ key: 'reserved.memory', value: '512 MiB', origin: 'env' }));
  expect(JSON.stringify(lines)).not.toContain('torg1_secret');
  expect(lines.filter((l) => l.description === '')).toEqual([]);
  expect(JSON.stringify(configSchemaJson())).not.toContain('"required"');
});

import { stringify } from 'yaml';
import { resolveConfig, showConfig } from '../../model/config.ts';
import { decodeGossip, encodeGossip } from '../../model/message-schemas.ts';
import { parseTaskDocuments } from '../../model/task-document-text.ts';
import { parseTaskDocument } from '../../model/task-document.ts';
import type { TaskSpec } from '../../model/task-spec.ts';
import { DOCUMENTS, submission } from '../samples.ts';
import { bytesOf, FuzzFailure, type FuzzTarget, LIMIT_MS, sameValue, textOf, type Verdict } from '../target.ts';

// What people write: task documents and settings. Accepted tasks must be fit to travel.

/** Longest document tried: a file is read once, by the person's own program; on the network they come as JSON of this size. */
const DOCUMENT_BYTES = 64 * 1024;

const WORDS = [
  'name:',
  'image:',
  'command:',
  'env:',
  'ports:',
  'volumes:',
  'memory:',
  'replicas:',
  'restart:',
  'healthCheck:',
  'labels:',
  'onPartition:',
  'constraints:',
  'always',
  'on-failure:3',
  'stop',
  'keep',
  '8080:80/udp',
  'data:/data:ro',
  '64m',
  '10s',
  '~',
];

/** The cluster takes what the document's reader has accepted, and keeps it as it is. */
function travels(spec: TaskSpec): void {
  const sent = submission(spec);
  const got = decodeGossip('tasks', encodeGossip({ topic: 'tasks', message: sent }));
  if (!got.ok) throw new FuzzFailure(`a task document is accepted, and its submission refused: ${got.error}`);
  const heard = (got.value.message as { readonly spec: TaskSpec }).spec;
  if (!sameValue(heard, spec)) throw new FuzzFailure('a task is another one when it has travelled');
}

function taskFile(format: 'yaml' | 'json'): (text: string) => Verdict {
  return (text) => {
    const read = parseTaskDocuments(text, format, 'tasks');
    if (!read.ok) return 'refused';
    for (const spec of read.specs) travels(spec);
    return 'accepted';
  };
}

const json: FuzzTarget = {
  name: 'task-document-json',
  grammar: 'json',
  seeds: DOCUMENTS.map((d) => bytesOf(JSON.stringify(d))),
  weight: 8,
  maxBytes: DOCUMENT_BYTES,
  limitMs: LIMIT_MS,
  decode: (bytes) => {
    let value: unknown;
    try {
      value = JSON.parse(textOf(bytes));
    } catch {
      return 'refused';
    }
    const read = parseTaskDocument(value);
    if (!read.ok) return 'refused';
    travels(read.spec);
    return 'accepted';
  },
};

const yaml: FuzzTarget = {
  name: 'task-document-yaml',
  grammar: 'text',
  words: WORDS,
  seeds: [
    ...DOCUMENTS.map((d) => bytesOf(stringify(d))),
    bytesOf(DOCUMENTS.map((d) => stringify(d)).join('---\n')),
    bytesOf('base: &b {LANG: C}\nname: x\ncommand: "true"\nenv: *b\n'),
  ],
  weight: 1,
  maxBytes: 8 * 1024,
  limitMs: LIMIT_MS,
  decode: (bytes) => taskFile('yaml')(textOf(bytes)),
};

const jsonFile: FuzzTarget = {
  name: 'task-file-json',
  grammar: 'json',
  seeds: [bytesOf(JSON.stringify(DOCUMENTS)), bytesOf(JSON.stringify(DOCUMENTS[0], null, 2))],
  weight: 0.5,
  maxBytes: 8 * 1024,
  limitMs: LIMIT_MS,
  decode: (bytes) => taskFile('json')(textOf(bytes)),
};

const CONFIG = {
  name: 'node1',
  listen: ['/ip4/0.0.0.0/tcp/7420'],
  labels: { zone: 'attic', gpu: 'true' },
  priority: 10,
  witness: false,
  runtime: 'docker',
  mdns: true,
  membership: { probeInterval: '200ms', suspicionMin: '60ms' },
  consensus: { heartbeat: '150ms' },
  lease: { lease: '5s', clockRateError: 0.01 },
};
const CONFIG_WORDS = [
  'name:',
  'listen:',
  'labels:',
  'membership:',
  'probeInterval:',
  'lease:',
  '1ms',
  '10h',
  '-1',
  '0',
  '[]',
  '{}',
];

function configTarget(): FuzzTarget {
  return {
    name: 'config-file',
    grammar: 'text',
    words: CONFIG_WORDS,
    seeds: [bytesOf(stringify(CONFIG)), bytesOf(JSON.stringify(CONFIG)), bytesOf('')],
    weight: 1,
    maxBytes: 8 * 1024,
    limitMs: LIMIT_MS,
    decode: (bytes) => {
      const resolved = resolveConfig({ file: { path: 'peer.yaml', text: textOf(bytes) } });
      if (!resolved.ok) return 'refused';
      showConfig(resolved.config, resolved.origins);
      return 'accepted';
    },
  };
}

/** Flags and environment: a list of [name, text]; names that are ours, or nearly. */
const configArguments: FuzzTarget = {
  name: 'config-flags-env',
  grammar: 'json',
  seeds: [
    {
      flags: { name: 'node1', labels: ['zone=attic', 'gpu'], 'membership.probeInterval': '200ms', witness: 'yes' },
      env: {},
    },
    {
      flags: {},
      env: {
        TASKORG_NAME: 'n',
        TASKORG_LABELS: 'a=b,c',
        TASKORG_PRIORITY: '-3',
        TASKORG_LEASE_LEASE: '5s',
        PATH: '/bin',
      },
    },
  ].map((v) => bytesOf(JSON.stringify(v))),
  weight: 4,
  maxBytes: 8 * 1024,
  limitMs: LIMIT_MS,
  decode: (bytes) => {
    let given: { flags?: unknown; env?: unknown } | null;
    try {
      given = JSON.parse(textOf(bytes)) as typeof given;
    } catch {
      return 'refused';
    }
    const flags = isMap(given?.flags) ? given.flags : {};
    // An environment holds texts only.
    const env = Object.fromEntries(
      Object.entries(isMap(given?.env) ? given.env : {}).map(([k, v]) => [
        k,
        typeof v === 'string' ? v : JSON.stringify(v),
      ]),
    );
    const resolved = resolveConfig({ flags, env });
    if (!resolved.ok) return 'refused';
    showConfig(resolved.config, resolved.origins);
    return 'accepted';
  },
};
const isMap = (v: unknown): v is Record<string, unknown> => typeof v === 'object' && v !== null && !Array.isArray(v);

export const documentTargets = (): FuzzTarget[] => [json, yaml, jsonFile, configTarget(), configArguments];

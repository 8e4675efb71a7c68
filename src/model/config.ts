import type { TSchema } from 'typebox';
import { PeerConfigSchema, type PeerSettings } from './config-schema.ts';
import type { FieldIssue } from './errors.ts';
import { formatBytes, formatDuration, parseBytes, parseDurationMs } from './human-units.ts';
import { checkValue, describeValue, isRecord, joinPath } from './schema-check.ts';
import { didYouMean } from './suggest.ts';
import { readSource, type SourceDocument } from './yaml-source.ts';

// The peer's config: flags before environment (TASKORG_*) before file before defaults. Every wrong or unknown key is an
// error, all are said at once, each with where it stands.

export { PeerConfigSchema, type PeerSettings } from './config-schema.ts';

/** `flag`, `env`, `default`, or the file's path and line, `peer.yaml:12`. */
export type ConfigOrigin = string;

export interface ConfigSources {
  /** By dotted key (`membership.probeInterval`); undefined = not given. Lists: an array, or text with commas; labels: also `a=b`. */
  readonly flags?: Readonly<Record<string, unknown>>;
  /** The process's environment; only names that begin with TASKORG_ are read. */
  readonly env?: Readonly<Record<string, string | undefined>>;
  readonly file?: { readonly path: string; readonly text: string };
  /** TASKORG_ names that other programs read (the client's, say): not errors. */
  readonly otherEnv?: readonly string[];
}

export interface ConfigIssue extends FieldIssue {
  readonly origin: ConfigOrigin;
}

export type ConfigResult =
  | { readonly ok: true; readonly config: PeerSettings; readonly origins: Readonly<Record<string, ConfigOrigin>> }
  | { readonly ok: false; readonly issues: readonly ConfigIssue[] };

const ENV_PREFIX = 'TASKORG_';

interface Key {
  /** Dotted, as written: `membership.probeInterval`. */
  readonly key: string;
  readonly env: string;
  readonly schema: TSchema & {
    readonly default?: unknown;
    readonly unit?: 'bytes' | 'duration';
    readonly description?: string;
  };
}

const KEYS: readonly Key[] = keysOf(PeerConfigSchema, '');
const BY_KEY = new Map(KEYS.map((k) => [k.key, k]));
const BY_ENV = new Map(KEYS.map((k) => [k.env, k]));

function keysOf(schema: TSchema, path: string): Key[] {
  const properties = (schema as { properties?: Record<string, TSchema> }).properties ?? {};
  return Object.entries(properties).flatMap(([name, node]) => {
    const key = joinPath(path, name);
    if ('properties' in node) return keysOf(node, key);
    return [
      {
        key,
        env:
          ENV_PREFIX +
          key
            .replaceAll(/([a-z])([A-Z])/g, '$1_$2')
            .replaceAll('.', '_')
            .toUpperCase(),
        schema: node,
      },
    ];
  });
}

/** Pure: reads nothing but its arguments. */
export function resolveConfig(sources: ConfigSources): ConfigResult {
  const issues: ConfigIssue[] = [];
  const values = new Map<string, { readonly value: unknown; readonly origin: ConfigOrigin }>();
  for (const k of KEYS) values.set(k.key, { value: k.schema.default, origin: 'default' });
  readFile(sources.file, values, issues);
  readEnv(sources, values, issues);
  readFlags(sources.flags ?? {}, values, issues);
  const config = build(values);
  if (issues.length === 0) relations(config, values, issues);
  if (issues.length > 0) return { ok: false, issues };
  return { ok: true, config, origins: Object.fromEntries([...values].map(([key, v]) => [key, v.origin])) };
}

type Values = Map<string, { readonly value: unknown; readonly origin: ConfigOrigin }>;

function readFile(file: ConfigSources['file'], values: Values, issues: ConfigIssue[]): void {
  if (file === undefined) return;
  const read = readSource(file.text, file.path.endsWith('.json') ? 'json' : 'yaml');
  if (!read.ok) {
    for (const e of read.errors)
      issues.push({
        path: '',
        origin: `${file.path}:${e.line}`,
        message: `${e.message} (${file.path}:${e.line}, column ${e.column})`,
      });
    return;
  }
  const [document, second] = read.documents;
  if (second !== undefined)
    issues.push({ path: '', origin: file.path, message: `holds more than one document (${file.path})` });
  if (document === undefined) return;
  const at = (path: string): string => `${file.path}:${document.lineOf(path)}`;
  const wrong = checkValue(PeerConfigSchema, document.value).filter((i) => !isMissing(i, document.value));
  for (const issue of wrong)
    issues.push({
      ...issue,
      origin: at(issue.path),
      message: `${issue.message}${elsewhere(issue)} (${at(issue.path)})`,
    });
  for (const k of KEYS) {
    const value = lookUp(document, k.key);
    if (
      value !== undefined &&
      !wrong.some((i) => i.path === k.key || i.path.startsWith(`${k.key}.`) || i.path.startsWith(`${k.key}[`))
    )
      values.set(k.key, { value, origin: at(k.key) });
  }
}

/** Every key has a default, so a missing one is not an issue. */
function isMissing(issue: FieldIssue, document: unknown): boolean {
  return issue.message.startsWith('is required') && isRecord(document);
}

/** An unknown key may stand in the wrong section. */
function elsewhere(issue: FieldIssue): string {
  if (!issue.message.startsWith('unknown field') || issue.message.includes('did you mean')) return '';
  const name = issue.path.split('.').at(-1) ?? '';
  const home = KEYS.find((k) => k.key.split('.').at(-1) === name);
  return home === undefined ? '' : ` (did you mean ${home.key}?)`;
}

function lookUp(document: SourceDocument, key: string): unknown {
  return key
    .split('.')
    .reduce<unknown>(
      (node, name) => (isRecord(node) && Object.hasOwn(node, name) ? node[name] : undefined),
      document.value,
    );
}

function readEnv(sources: ConfigSources, values: Values, issues: ConfigIssue[]): void {
  for (const [name, text] of Object.entries(sources.env ?? {})) {
    if (!name.startsWith(ENV_PREFIX) || text === undefined || sources.otherEnv?.includes(name)) continue;
    const known = BY_ENV.get(name);
    if (known === undefined)
      issues.push({
        path: name,
        origin: 'env',
        message: `unknown environment variable ${name}${didYouMean(name, BY_ENV.keys())}`,
      });
    else take(known, fromText(known, text), 'env', name, values, issues);
  }
}

function readFlags(flags: Readonly<Record<string, unknown>>, values: Values, issues: ConfigIssue[]): void {
  for (const [key, value] of Object.entries(flags)) {
    if (value === undefined) continue;
    const known = BY_KEY.get(key);
    if (known === undefined)
      issues.push({ path: key, origin: 'flag', message: `unknown setting ${key}${didYouMean(key, BY_KEY.keys())}` });
    else take(known, fromText(known, value), 'flag', key, values, issues);
  }
}

function take(k: Key, value: unknown, origin: ConfigOrigin, name: string, values: Values, issues: ConfigIssue[]): void {
  const wrong = checkValue(k.schema, value, k.key);
  for (const issue of wrong)
    issues.push({ ...issue, origin, message: `${issue.message} (${origin === 'env' ? name : `flag ${name}`})` });
  if (wrong.length === 0) values.set(k.key, { value, origin });
}

/** Text from a flag or the environment as the kind of value its key has; what does not fit is left for the check to name. */
function fromText(k: Key, given: unknown): unknown {
  const type = (k.schema as { type?: unknown }).type;
  if (type === 'object') return Array.isArray(given) || typeof given === 'string' ? labelsOf(given) : given;
  if (type === 'array' && typeof given === 'string')
    return given
      .split(',')
      .map((s) => s.trim())
      .filter((s) => s !== '');
  if (typeof given !== 'string') return given;
  if (type === 'boolean')
    return /^(1|true|yes|on)$/i.test(given) ? true : /^(0|false|no|off)$/i.test(given) ? false : given;
  if ((type === 'integer' || type === 'number') && /^-?\d+(\.\d+)?$/.test(given)) return Number(given);
  return given;
}

function labelsOf(given: string | readonly unknown[]): unknown {
  const texts = typeof given === 'string' ? given.split(',') : given;
  // Left for the check to name.
  if (!texts.every((p) => typeof p === 'string')) return given;
  const parts = texts.map((p) => p.trim()).filter((p) => p !== '');
  return Object.fromEntries(
    parts.map((p) => (p.includes('=') ? [p.slice(0, p.indexOf('=')), p.slice(p.indexOf('=') + 1)] : [p, 'true'])),
  );
}

function build(values: Values): PeerSettings {
  const config: Record<string, unknown> = {};
  for (const k of KEYS) {
    const value = values.get(k.key)?.value;
    const path = k.key.split('.');
    const name = path.pop() ?? '';
    let node = config;
    for (const part of path) {
      node[part] ??= {};
      node = node[part] as Record<string, unknown>;
    }
    if (k.schema.unit === 'duration') node[`${name}Ms`] = parseDurationMs(value);
    else if (k.schema.unit === 'bytes') node[`${name}Bytes`] = parseBytes(value);
    else node[name] = structuredCopy(value);
  }
  return config as unknown as PeerSettings;
}

const structuredCopy = (value: unknown): unknown =>
  Array.isArray(value) ? [...(value as unknown[])] : isRecord(value) ? { ...value } : value;

/** What the values must be to each other. */
function relations(c: PeerSettings, values: Values, issues: ConfigIssue[]): void {
  const must = (holds: boolean, key: string, message: string): void => {
    const origin = values.get(key)?.origin ?? 'default';
    if (!holds)
      issues.push({
        path: key,
        origin,
        message: `${message}, found ${describeValue(values.get(key)?.value)} (${origin})`,
      });
  };
  const { membership: m, consensus, lease } = c;
  must(m.suspicionMinMs <= m.suspicionMaxMs, 'membership.suspicionMin', 'expected at most membership.suspicionMax');
  must(
    consensus.electionTimeoutMinMs <= consensus.electionTimeoutMaxMs,
    'consensus.electionTimeoutMin',
    'expected at most consensus.electionTimeoutMax',
  );
  must(
    consensus.heartbeatMs * 3 <= consensus.electionTimeoutMinMs,
    'consensus.heartbeat',
    'expected at most a third of consensus.electionTimeoutMin',
  );
  const usable = lease.leaseMs * (1 - lease.clockRateError) - lease.stopAllowanceMs;
  must(
    usable > 0,
    'lease.stopAllowance',
    'expected less than lease.lease times (1 - lease.clockRateError): nothing could ever run',
  );
  must(
    usable <= 0 || lease.renewEveryMs * 2 <= usable,
    'lease.renewEvery',
    `expected at most half of what a lease leaves for running, ${formatDuration(usable)}`,
  );
  must(
    !c.witness || c.runtime === 'auto' || c.runtime === 'none',
    'runtime',
    'expected auto or none, since a witness runs nothing',
  );
}

export interface ConfigLine {
  readonly key: string;
  /** As it would be written in the file. */
  readonly value: string;
  readonly origin: ConfigOrigin;
  readonly description: string;
}

/** What `task-org config show` prints. The join token is not shown. */
export function showConfig(config: PeerSettings, origins: Readonly<Record<string, ConfigOrigin>>): ConfigLine[] {
  return KEYS.map((k) => {
    const path = k.key.split('.');
    const name = path.pop() ?? '';
    const suffix = k.schema.unit === 'duration' ? 'Ms' : k.schema.unit === 'bytes' ? 'Bytes' : '';
    const node = path.reduce<Record<string, unknown>>(
      (n, part) => n[part] as Record<string, unknown>,
      config as unknown as Record<string, unknown>,
    );
    const value = node[name + suffix];
    return {
      key: k.key,
      value: showValue(k, value),
      origin: origins[k.key] ?? 'default',
      description: k.schema.description ?? '',
    };
  });
}

function showValue(k: Key, value: unknown): string {
  if (k.key === 'join' && value !== '') return '(hidden)';
  if (k.schema.unit === 'duration') return formatDuration(Number(value));
  if (k.schema.unit === 'bytes') return formatBytes(Number(value));
  return typeof value === 'string' ? value : JSON.stringify(value);
}

/** The config's JSON Schema, for the documentation. Nothing is required: every key has a default. */
export function configSchemaJson(): Readonly<Record<string, unknown>> {
  return JSON.parse(
    JSON.stringify(PeerConfigSchema, (key, value: unknown) => (key === 'required' ? undefined : value)),
  ) as Record<string, unknown>;
}

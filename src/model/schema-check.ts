import type { TSchema } from 'typebox';
import type { FieldIssue } from './errors.ts';
import { formatBytes, formatDuration, parseBytes, parseDurationMs } from './human-units.ts';
import { didYouMean } from './suggest.ts';

// Checks what people write against a TypeBox schema and says everything that is wrong, each with its path and what was
// expected. For messages between peers use a compiled validator: it is faster, and nobody reads what it says.
//
// Besides JSON Schema's words, a few annotations of ours are understood, the main ones being:
//   expected: 'a port such as 8080:80/udp'   the words used when a value is of a wrong shape
//   unit: 'bytes' | 'duration'               the value is written in human units; minimum and maximum are in bytes or ms

interface Node {
  readonly type?: string;
  readonly anyOf?: readonly Node[];
  readonly const?: unknown;
  readonly properties?: Readonly<Record<string, Node>>;
  readonly patternProperties?: Readonly<Record<string, Node>>;
  readonly required?: readonly string[];
  readonly additionalProperties?: unknown;
  readonly items?: Node;
  readonly minItems?: number;
  readonly maxItems?: number;
  readonly minLength?: number;
  readonly maxLength?: number;
  readonly pattern?: string;
  readonly minimum?: number;
  readonly maximum?: number;
  readonly expected?: string;
  readonly unit?: 'bytes' | 'duration';
  /** Of a record: what its keys must look like, in words. */
  readonly names?: string;
  /** Old or foreign names of properties, each with what to write instead. */
  readonly aliases?: Readonly<Record<string, string>>;
}

/** Most issues reported for one document: a wrong file should not print a book. */
const MAX_ISSUES = 100;

/** All issues, in document order; empty when the value fits. `path` is the place of the value in its document. */
export function checkValue(schema: TSchema, value: unknown, path = ''): FieldIssue[] {
  const issues: FieldIssue[] = [];
  check(schema as Node, value, path, issues);
  return issues.slice(0, MAX_ISSUES);
}

export const isRecord = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

export const joinPath = (path: string, key: string | number): string =>
  typeof key === 'number' ? `${path}[${key}]` : path === '' ? key : `${path}.${key}`;

/** What was found, short enough for one line. */
export function describeValue(value: unknown): string {
  if (value === undefined) return 'nothing';
  if (value === null) return 'null';
  if (Array.isArray(value)) return `a list of ${value.length}`;
  if (typeof value === 'object') return 'an object';
  if (typeof value === 'string') return `'${value.length > 60 ? `${value.slice(0, 57)}...` : value}'`;
  return typeof value === 'number' || typeof value === 'boolean' ? String(value) : typeof value;
}

function check(schema: Node, value: unknown, path: string, issues: FieldIssue[]): undefined {
  const wrong = (expected = expectation(schema)): undefined => {
    issues.push({ path, message: `expected ${expected}, found ${describeValue(value)}` });
  };
  if (schema.unit !== undefined) return checkUnit(schema, value, wrong);
  if (schema.anyOf !== undefined) {
    const branch = branchOf(schema.anyOf, value);
    // A branch of the right kind speaks for itself (its fields are named); otherwise the words of the whole are better.
    if (branch === undefined) return wrong();
    if (isRecord(value) || Array.isArray(value)) return check(branch, value, path, issues);
    const inner: FieldIssue[] = [];
    check(branch, value, path, inner);
    if (inner.length > 0) wrong();
    return;
  }
  if ('const' in schema) {
    if (value !== schema.const) wrong();
    return;
  }
  switch (schema.type) {
    case 'object':
      return isRecord(value) ? checkObject(schema, value, path, issues) : wrong();
    case 'array':
      if (!Array.isArray(value) || value.length < (schema.minItems ?? 0)) return wrong();
      if (value.length > (schema.maxItems ?? Number.POSITIVE_INFINITY))
        return wrong(`at most ${schema.maxItems} entries`);
      for (const [i, item] of value.entries()) check(schema.items ?? {}, item, joinPath(path, i), issues);
      return;
    case 'string':
      return checkString(schema, value, wrong);
    case 'integer':
    case 'number':
      if (typeof value !== 'number' || !Number.isFinite(value) || !within(schema, value)) return wrong();
      if (schema.type === 'integer' && !Number.isInteger(value)) return wrong();
      return;
    case 'boolean':
      if (typeof value !== 'boolean') wrong();
      return;
    case 'null':
      if (value !== null) wrong();
      return;
    default:
      return;
  }
}

/** Half of a surrogate pair has no form in UTF-8, and a byte order mark is lost when it is read: another text arrives. */
const travelsWhole = (text: string): boolean => text.isWellFormed() && !text.includes('\ufeff');

function checkObject(schema: Node, value: Record<string, unknown>, path: string, issues: FieldIssue[]): undefined {
  const properties = schema.properties ?? {};
  const patterns = Object.entries(schema.patternProperties ?? {});
  for (const [key, item] of Object.entries(value)) {
    const at = joinPath(path, key);
    if (!travelsWhole(key)) {
      issues.push({ path: at, message: 'expected a name without broken characters' });
      continue;
    }
    const known = Object.hasOwn(properties, key) ? properties[key] : undefined;
    if (known !== undefined) {
      check(known, item, at, issues);
      continue;
    }
    const matching = patterns.find(([pattern]) => new RegExp(pattern).test(key));
    if (matching !== undefined) check(matching[1], item, at, issues);
    else if (patterns.length > 0)
      issues.push({
        path: at,
        message: `expected ${schema.names ?? `a name of the form ${patterns[0]?.[0]}`}, found '${key}'`,
      });
    else if (schema.additionalProperties === false)
      issues.push({ path: at, message: unknownKey(schema, key, Object.keys(properties)) });
  }
  for (const key of schema.required ?? []) {
    if (value[key] === undefined) {
      const node = properties[key];
      issues.push({
        path: joinPath(path, key),
        message: `is required: expected ${node ? expectation(node) : 'a value'}`,
      });
    }
  }
}

function unknownKey(schema: Node, key: string, known: readonly string[]): string {
  const alias = schema.aliases !== undefined && Object.hasOwn(schema.aliases, key) ? schema.aliases[key] : undefined;
  const hint = alias === undefined ? didYouMean(key, known) : ` (write ${alias})`;
  return `unknown field '${key}'${hint}`;
}

function checkString(schema: Node, value: unknown, wrong: (expected?: string) => undefined): undefined {
  if (typeof value !== 'string') return wrong();
  if (!travelsWhole(value)) return wrong('text without broken characters');
  if (value.length > (schema.maxLength ?? Number.POSITIVE_INFINITY))
    return wrong(`at most ${schema.maxLength} characters`);
  if (value.length < (schema.minLength ?? 0)) return wrong();
  if (schema.pattern !== undefined && !new RegExp(schema.pattern).test(value)) wrong();
}

function checkUnit(schema: Node, value: unknown, wrong: (expected?: string) => undefined): undefined {
  const amount = schema.unit === 'bytes' ? parseBytes(value) : parseDurationMs(value);
  if (amount === undefined || !within(schema, amount)) wrong();
}

const within = (schema: Node, amount: number): boolean =>
  amount >= (schema.minimum ?? Number.NEGATIVE_INFINITY) && amount <= (schema.maximum ?? Number.POSITIVE_INFINITY);

/** The branch of a union that a value of this kind is measured by. */
function branchOf(branches: readonly Node[], value: unknown): Node | undefined {
  const exact = branches.find((b) => 'const' in b && b.const === value);
  if (exact !== undefined) return exact;
  return branches.find((b) => {
    if ('const' in b) return false;
    if (b.unit !== undefined) return typeof value === 'string' || typeof value === 'number';
    if (b.anyOf !== undefined) return branchOf(b.anyOf, value) !== undefined;
    switch (b.type) {
      case 'object':
        return isRecord(value);
      case 'array':
        return Array.isArray(value);
      case 'integer':
      case 'number':
        return typeof value === 'number';
      case 'null':
        return value === null;
      default:
        return b.type === undefined || typeof value === b.type;
    }
  });
}

/** What a schema asks for, in words. */
function expectation(schema: Node): string {
  if (schema.expected !== undefined) return schema.expected;
  if (schema.unit === 'bytes') return `a size such as 64m or 1.5g${range(schema)}`;
  if (schema.unit === 'duration') return `a duration with its unit, such as 250ms or 1.5s${range(schema)}`;
  if ('const' in schema) return JSON.stringify(schema.const);
  if (schema.anyOf !== undefined) return schema.anyOf.map(expectation).join(' or ');
  switch (schema.type) {
    case 'object':
      return 'an object';
    case 'array':
      return `a list of ${schema.items ? plural(expectation(schema.items)) : 'values'}`;
    case 'string':
      return schema.pattern === undefined ? 'text' : `text of the form ${schema.pattern}`;
    case 'integer':
      return `a whole number${range(schema)}`;
    case 'number':
      return `a number${range(schema)}`;
    case 'boolean':
      return 'true or false';
    default:
      return schema.type ?? 'a value';
  }
}

const plural = (text: string): string => (text === 'text' ? 'texts' : text.replace(/^an? /, ''));

function range(schema: Node): string {
  const show = (n: number): string =>
    schema.unit === 'bytes' ? formatBytes(n) : schema.unit === 'duration' ? formatDuration(n) : String(n);
  const max = schema.maximum === Number.MAX_SAFE_INTEGER ? undefined : schema.maximum;
  if (schema.minimum !== undefined && max !== undefined) return ` from ${show(schema.minimum)} to ${show(max)}`;
  if (schema.minimum !== undefined && schema.minimum !== 0) return ` of at least ${show(schema.minimum)}`;
  return max === undefined ? '' : ` of at most ${show(max)}`;
}

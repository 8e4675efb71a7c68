import { didYouMean } from './suggest.ts';

// Placement constraints in Docker's form: `node.labels.zone==eu`, `node.name!=node3`, `node.platform.arch==arm64`.

export interface Constraint {
  readonly text: string;
  readonly subject: 'id' | 'name' | 'os' | 'arch' | 'label';
  /** Name of the label; empty for other subjects. */
  readonly label: string;
  readonly equal: boolean;
  readonly value: string;
}

export interface ConstraintSubject {
  readonly id: string;
  readonly name: string;
  readonly os: string;
  readonly arch: string;
  readonly labels: Readonly<Record<string, string>>;
}

const SUBJECTS: Readonly<Record<string, Constraint['subject']>> = {
  'node.id': 'id',
  'node.name': 'name',
  'node.hostname': 'name',
  'node.platform.os': 'os',
  'node.platform.arch': 'arch',
};
const LABEL_PREFIX = 'node.labels.';
const KNOWN = [...Object.keys(SUBJECTS), `${LABEL_PREFIX}NAME`];

export type ParsedConstraint =
  | { readonly ok: true; readonly constraint: Constraint }
  | { readonly ok: false; readonly error: string };

/** One constraint; spaces around its parts do not count. */
export function parseConstraint(text: string): ParsedConstraint {
  const m = /^\s*([A-Za-z0-9_./-]+)\s*(==|!=)\s*(\S(?:.*\S)?)\s*$/.exec(text);
  if (!m)
    return { ok: false, error: `expected KEY==VALUE or KEY!=VALUE, such as node.labels.zone==eu, found '${text}'` };
  const [, key = '', operator, value = ''] = m;
  const base = { text: `${key}${operator}${value}`, equal: operator === '==', value };
  const subject = Object.hasOwn(SUBJECTS, key) ? SUBJECTS[key] : undefined;
  if (subject !== undefined) return { ok: true, constraint: { ...base, subject, label: '' } };
  if (key.startsWith(LABEL_PREFIX) && key.length > LABEL_PREFIX.length) {
    return { ok: true, constraint: { ...base, subject: 'label', label: key.slice(LABEL_PREFIX.length) } };
  }
  const hint = key === 'node.role' ? '; every machine has the same role here, use a label' : didYouMean(key, KNOWN);
  return { ok: false, error: `expected one of ${KNOWN.join(', ')}, found '${key}'${hint}` };
}

/** Case does not count (as in swarmkit); a machine without the label has none of its values. */
export function matchesConstraint(constraint: Constraint, node: ConstraintSubject): boolean {
  return (actualOf(constraint, node) === wantedOf(constraint)) === constraint.equal;
}

function wantedOf(constraint: Constraint): string {
  const value = constraint.value.toLowerCase();
  return constraint.subject === 'arch' ? canonicalArch(value) : value;
}

function actualOf(constraint: Constraint, node: ConstraintSubject): string | undefined {
  switch (constraint.subject) {
    case 'id':
      return node.id.toLowerCase();
    case 'name':
      return node.name.toLowerCase();
    case 'os':
      return node.os.toLowerCase();
    case 'arch':
      return canonicalArch(node.arch.toLowerCase());
    case 'label':
      return Object.hasOwn(node.labels, constraint.label) ? node.labels[constraint.label]?.toLowerCase() : undefined;
  }
}

const ARCHES: Readonly<Record<string, string>> = {
  x64: 'amd64',
  x86_64: 'amd64',
  aarch64: 'arm64',
  ia32: '386',
  i686: '386',
};
const canonicalArch = (arch: string): string => (Object.hasOwn(ARCHES, arch) ? (ARCHES[arch] ?? arch) : arch);

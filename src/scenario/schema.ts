import { type Static, type TSchema, Type } from 'typebox';
import { type FieldIssue, TaskOrgError } from '../model/errors.ts';
import { DURATION_PATTERN, parseDurationMs } from '../model/human-units.ts';
import { checkValue } from '../model/schema-check.ts';
import { readSource } from '../model/yaml-source.ts';

// The scenario format: what people write in scenarios/*.yaml.

const closed = { additionalProperties: false } as const;
const OneOf = <const T extends readonly string[]>(values: T) =>
  Type.Unsafe<T[number]>({
    anyOf: values.map((value) => ({ const: value, type: 'string' })),
    expected: `one of ${values.join(', ')}`,
  } as TSchema);
const Duration = Type.Unsafe<string | 0>({
  type: ['string', 'integer'],
  pattern: DURATION_PATTERN,
  unit: 'duration',
  minimum: 0,
  maximum: 24 * 3_600_000,
  expected: 'a duration such as 300ms, 1.5s or 2m',
} as TSchema);
const MAX_NODES = 250;
const NodeNumber = Type.Integer({ minimum: 1, maximum: MAX_NODES });
const TARGET_WORDS =
  "a node's number, holder:TASK, master, random, next (each peer in turn), down (all that are down), all, or a list of these";
const OneTarget = Type.Union(
  [NodeNumber, Type.String({ pattern: '^(holder:[A-Za-z0-9_.-]+|master|random|next|down|all)$' })],
  {
    expected: TARGET_WORDS,
  },
);

export const FAULT_NAMES = [
  'kill',
  'kill-master',
  'kill-agent',
  'start',
  'cut',
  'heal',
  'partition',
  'engine-kill',
  'engine-start',
  'freeze',
  'thaw',
  'join',
] as const;

const Fault = Type.Object(
  {
    /** After the load's start; in a repeated fault, of its first round. */
    at: Duration,
    do: OneOf(FAULT_NAMES),
    target: Type.Optional(
      Type.Union([OneTarget, Type.Array(OneTarget, { minItems: 1, maxItems: MAX_NODES })], { expected: TARGET_WORDS }),
    ),
    groups: Type.Optional(Type.Array(Type.Array(NodeNumber), { minItems: 1 })),
    /** Not before everything runs as ordered. */
    whenSettled: Type.Optional(Type.Boolean()),
    /** Undone this long after: kill -> start, cut and partition -> heal, freeze -> thaw, engine-kill -> engine-start. */
    undoAfter: Type.Optional(Duration),
    repeat: Type.Optional(Type.Integer({ minimum: 1, maximum: 10_000 })),
    /** Between the rounds. */
    every: Type.Optional(Duration),
  },
  closed,
);

const Load = Type.Object(
  {
    at: Duration,
    run: Type.Object({
      name: Type.String({ pattern: '^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,50}$' }),
      replicas: Type.Optional(Type.Integer({ minimum: 0, maximum: 500 })),
    }),
    /** More than one: names get -1, -2, ... */
    count: Type.Optional(Type.Integer({ minimum: 1, maximum: 10_000 })),
    /** Documents published each second; default: one after the other. */
    perSecond: Type.Optional(Type.Number({ exclusiveMinimum: 0, maximum: 10_000 })),
  },
  closed,
);

const Count = Type.Integer({ minimum: 0 });
const Expectations = Type.Object(
  {
    /** Slots of accepted tasks that do not run at the end. */
    tasksLost: Type.Optional(Count),
    /** Slots of which two copies were alive at one instant. */
    tasksDoubled: Type.Optional(Count),
    /** Submissions that no peer accepted. */
    tasksRefused: Type.Optional(Count),
    recoveryP50Ms: Type.Optional(Duration),
    recoveryP99Ms: Type.Optional(Duration),
    recoveryMaxMs: Type.Optional(Duration),
    /** At least so many recoveries must have been seen: a run without any proves nothing. */
    recoveries: Type.Optional(Count),
    /** From the last fault until everything runs as ordered, once. */
    settledWithinMs: Type.Optional(Duration),
    /** True: no copy ended on a machine to which nothing was done. */
    noHealthyMoved: Type.Optional(Type.Boolean()),
    /** True: every slot has the node, generation and start time it had before the first fault. */
    unchanged: Type.Optional(Type.Boolean()),
    /** Peers alive in the members' view at the end. */
    peersAlive: Type.Optional(Count),
  },
  closed,
);

export const ScenarioSchema = Type.Object(
  {
    name: Type.String({ pattern: '^[a-z0-9][a-z0-9-]{0,62}$' }),
    description: Type.String(),
    seed: Type.Optional(Type.String()),
    topology: Type.Object(
      {
        peers: NodeNumber,
        joining: Type.Optional(Type.Integer({ minimum: 0, maximum: MAX_NODES })),
        witnesses: Type.Optional(Type.Integer({ minimum: 0, maximum: MAX_NODES })),
        runtime: OneOf(['docker', 'process']),
      },
      closed,
    ),
    load: Type.Array(Load),
    faults: Type.Array(Fault),
    /** Watched on this long after everything runs. Default 3s. */
    watch: Type.Optional(Duration),
    expectations: Expectations,
  },
  closed,
);
export type ScenarioDocument = Static<typeof ScenarioSchema>;
export type FaultDocument = Static<typeof Fault>;
export type LoadDocument = Static<typeof Load>;
export type ExpectationDocument = Static<typeof Expectations>;

/** Throws TaskOrgError('invalid_input') with the path and line of every wrong field. */
export function parseScenario(text: string, file: string): ScenarioDocument {
  const source = readSource(text, 'yaml');
  if (!source.ok)
    throw invalid(
      file,
      source.errors.map((error) => ({ path: `line ${error.line}`, message: error.message })),
      () => '',
    );
  const [document, ...more] = source.documents;
  if (!document || more.length > 0)
    throw invalid(
      file,
      [{ path: '', message: `expected one document, found ${more.length === 0 ? 'none' : more.length + 1}` }],
      () => '',
    );
  let issues = checkValue(ScenarioSchema, document.value);
  if (issues.length === 0) issues = checkMeaning(document.value as ScenarioDocument);
  if (issues.length > 0) throw invalid(file, issues, (path) => ` (line ${document.lineOf(path)})`);
  return document.value as ScenarioDocument;
}

function invalid(file: string, issues: readonly FieldIssue[], where: (path: string) => string): TaskOrgError {
  const lines = issues.map((issue) => `  ${issue.path || 'the document'}${where(issue.path)}: ${issue.message}`);
  return new TaskOrgError('invalid_input', `${file} is not a scenario:\n${lines.join('\n')}`, { details: issues });
}

/** What a schema cannot say. */
function checkMeaning(scenario: ScenarioDocument): FieldIssue[] {
  const issues: FieldIssue[] = [];
  const { peers, joining = 0, witnesses = 0 } = scenario.topology;
  if (witnesses >= peers)
    issues.push({ path: 'topology.witnesses', message: `must leave a peer that runs tasks: less than ${peers}` });
  const names = new Set(scenario.load.flatMap((load) => loadNames(load)));
  scenario.faults.forEach((fault, index) => {
    const path = `faults[${index}]`;
    const add = (field: string, message: string): void => void issues.push({ path: `${path}.${field}`, message });
    if (fault.do === 'partition' && !fault.groups)
      add('groups', 'a partition needs its groups, e.g. [[1, 2], [3, 4, 5]]');
    if (fault.do !== 'partition' && fault.groups) add('groups', 'only a partition has groups');
    if (!['partition', 'heal', 'kill-master'].includes(fault.do) && fault.target === undefined)
      add('target', `${fault.do} needs a target`);
    if (fault.every !== undefined && fault.repeat === undefined)
      add('every', 'only a repeated fault has this: say repeat, too');
    if (fault.undoAfter !== undefined && !(fault.do in UNDO)) add('undoAfter', `${fault.do} cannot be undone`);
    for (const target of targetsOf(fault)) {
      if (typeof target === 'number' && target > peers + joining)
        add('target', `there is no node ${target}: the topology has ${peers + joining}`);
      if (typeof target === 'string' && target.startsWith('holder:') && !names.has(target.slice(7)))
        add('target', `no load publishes a task '${target.slice(7)}'`);
    }
  });
  return issues;
}

export const UNDO: Readonly<Record<string, 'start' | 'heal' | 'thaw' | 'engine-start'>> = {
  kill: 'start',
  'kill-master': 'start',
  cut: 'heal',
  partition: 'heal',
  freeze: 'thaw',
  'engine-kill': 'engine-start',
};

export function targetsOf(fault: FaultDocument): readonly (number | string)[] {
  if (fault.do === 'kill-master') return ['master'];
  if (fault.target === undefined) return [];
  return Array.isArray(fault.target) ? fault.target : [fault.target];
}

/** Names of the tasks a load entry publishes. */
export function loadNames(load: LoadDocument): readonly string[] {
  const count = load.count ?? 1;
  return count === 1 ? [load.run.name] : Array.from({ length: count }, (_, index) => `${load.run.name}-${index + 1}`);
}

/** Milliseconds. The text has passed the schema. */
export function durationMs(value: string | number): number {
  const ms = parseDurationMs(value);
  if (ms === undefined) throw new TaskOrgError('invalid_input', `not a duration: ${value}`);
  return ms;
}

import { type Static, Type } from 'typebox';

// The API's words: stable field names, one schema for validation, the OpenAPI document and the client's types.

const Nullable = <T extends Parameters<typeof Type.Union>[0][number]>(t: T) => Type.Union([t, Type.Null()]);

export const NodeView = Type.Object({
  id: Type.String(),
  name: Type.String(),
  status: Type.String({ description: 'alive | suspect | agent-down | dead | left | unknown' }),
  role: Type.String({ description: 'master | voter | learner | witness' }),
  availability: Type.String({ description: 'active | drain' }),
  address: Type.String(),
  version: Type.String(),
  cpus: Type.Number(),
  memoryBytes: Type.Number(),
  labels: Type.Record(Type.String(), Type.String()),
  os: Type.String(),
  arch: Type.String(),
  runtimes: Type.Array(Type.String()),
  problems: Type.Array(Type.String()),
  copies: Type.Number({ description: 'running copies' }),
  priority: Type.Number(),
  incarnation: Type.Number(),
  factAgeMs: Nullable(Type.Number({ description: 'age of the newest fact heard of it; null = never heard' })),
  load: Nullable(Type.Unknown()),
  resources: Nullable(Type.Unknown()),
});
export type NodeView = Static<typeof NodeView>;

export const SlotView = Type.Object({
  slot: Type.Number(),
  node: Nullable(Type.String()),
  nodeId: Nullable(Type.String()),
  state: Type.String(),
  generation: Type.String(),
  startedAt: Nullable(Type.Number({ description: 'epoch ms' })),
  health: Type.String(),
  exitCode: Nullable(Type.Number()),
  restarts: Type.Number(),
  error: Type.String(),
  handle: Type.String(),
  ports: Type.Array(Type.Object({ container: Type.Number(), host: Type.Number(), protocol: Type.String() })),
});
export type SlotView = Static<typeof SlotView>;

export const TaskView = Type.Object({
  id: Type.String(),
  name: Type.String(),
  image: Type.String(),
  command: Type.Array(Type.String()),
  runtime: Type.String(),
  node: Type.String({ description: 'node of slot 0, or of all slots, comma-separated' }),
  state: Type.String({ description: 'pending | starting | running | degraded | stopped | finished | failed' }),
  generation: Type.String(),
  desired: Type.String(),
  error: Type.String(),
  startedAt: Nullable(Type.Number()),
  acceptedAt: Type.Number(),
  specVersion: Type.Number(),
  onPartition: Type.String(),
  labels: Type.Record(Type.String(), Type.String()),
  slots: Type.Array(SlotView),
});
export type TaskView = Static<typeof TaskView>;

/** What an answer cannot know is said with it: how many peers' facts it rests on, and the age of the oldest. */
export const Knowledge = Type.Object({
  peers: Type.Number(),
  of: Type.Number(),
  appliedIndex: Type.Number(),
  hasQuorum: Type.Boolean(),
});
export const listOf = <T extends Parameters<typeof Type.Array>[0]>(item: T) =>
  Type.Object({ items: Type.Array(item), seenBy: Knowledge, oldestFactMs: Type.Number() });

export const ClusterView = Type.Object({
  clusterId: Type.String(),
  name: Type.String(),
  epoch: Type.Number(),
  self: Type.String(),
  master: Nullable(Type.String()),
  masterName: Nullable(Type.String()),
  term: Type.Number(),
  quorum: Type.Object({ needed: Type.Number(), alive: Type.Number(), ok: Type.Boolean() }),
  voters: Type.Array(Type.String()),
  commit: Type.Number(),
  applied: Type.Number(),
  peers: Type.Array(
    Type.Object({ id: Type.String(), name: Type.String(), status: Type.String(), seenBy: Type.Array(Type.String()) }),
  ),
  pendingSubmissions: Type.Number(),
  epochId: Type.String(),
  /** Peers in reach that are of an epoch which does not follow from this one: an operator must choose. */
  conflicts: Type.Array(Type.Object({ peer: Type.String(), epoch: Type.Number(), epochId: Type.String() })),
  /** After a recovery by force: voters of the epoch before that may still grant leases. */
  unaccounted: Type.Array(Type.String()),
  /** Null while a majority is in reach. `waiting`: why slots (`TASKID.SLOT`) have no copy on this side, by its caretaker. */
  side: Nullable(
    Type.Object({
      sinceMs: Type.Number(),
      caretaker: Nullable(Type.String()),
      waiting: Type.Record(Type.String(), Type.String()),
    }),
  ),
  oldestFactMs: Type.Number(),
});
export type ClusterView = Static<typeof ClusterView>;

export const RecoveryView = Type.Object({
  epoch: Type.Number(),
  /** Of the epoch that is left. */
  voters: Type.Array(Type.String()),
  /** False: the cluster had been recovered already, and the named machines were taken for dead. */
  started: Type.Boolean(),
});
export type RecoveryView = Static<typeof RecoveryView>;

export const DecisionView = Type.Object({
  at: Type.Number({ description: 'epoch ms' }),
  index: Type.Number(),
  slot: Type.Number({ description: '-1 = the whole task' }),
  by: Type.String(),
  what: Type.String(),
  generation: Nullable(Type.String()),
  node: Nullable(Type.String()),
  reason: Type.String(),
  evidence: Type.Array(Type.String()),
});
export type DecisionView = Static<typeof DecisionView>;

/** Why slots have no machine, as the master found at its last try. */
export const WaitingView = Type.Object({
  reason: Type.String(),
  slots: Type.Array(Type.Number()),
  rejections: Type.Array(Type.Object({ node: Type.String(), filter: Type.String(), reason: Type.String() })),
});
export type WaitingView = Static<typeof WaitingView>;

export const TaskDetail = Type.Object({
  ...TaskView.properties,
  spec: Type.Unknown({ description: 'the task document with every default filled in' }),
  decisions: Type.Array(DecisionView),
  waiting: Nullable(WaitingView),
});
export type TaskDetail = Static<typeof TaskDetail>;

export const WhyView = Type.Object({
  id: Type.String(),
  name: Type.String(),
  now: Type.String({ description: 'state, and its error if any' }),
  rejections: Type.Array(Type.String({ description: 'machine: why it will not do' })),
  decisions: Type.Array(DecisionView),
});
export type WhyView = Static<typeof WhyView>;

/** A committed change. */
export const ChangeView = Type.Object({
  index: Type.Number({ description: 'log index of the change' }),
  copies: Type.Number({ description: 'machines known to hold it; 1 = this one change would die with its machine' }),
  changed: Type.Boolean({ description: 'false: everything was so already, nothing was committed' }),
});
export type ChangeView = Static<typeof ChangeView>;

export const VerdictView = Type.Object({
  id: Type.String(),
  verdict: Type.String({ description: 'accepted | refused | removed | pending | unknown' }),
  reason: Type.String(),
});
export type VerdictView = Static<typeof VerdictView>;

export const TokenView = Type.Object({
  token: Type.String(),
  expiresAt: Type.Number({ description: 'epoch ms' }),
  uses: Type.Number(),
});
export const SettingView = Type.Object({
  key: Type.String(),
  value: Type.String(),
  origin: Type.String({ description: 'default | file | env | flag' }),
});

export const EventView = Type.Object({
  index: Type.Number(),
  at: Type.Number(),
  type: Type.String(),
  subject: Type.String(),
  message: Type.String(),
});
export type EventView = Static<typeof EventView>;

export const SubmitView = Type.Object({
  id: Type.String(),
  name: Type.String(),
  status: Type.String({ description: 'accepted | published' }),
  index: Type.Number(),
});
export type SubmitView = Static<typeof SubmitView>;

export const StatsView = Type.Object({
  task: Type.String(),
  slot: Type.Number(),
  node: Type.String(),
  cpuCores: Type.Number(),
  memoryBytes: Type.Number(),
  memoryLimitBytes: Nullable(Type.Number()),
  networkRxBytes: Type.Number(),
  networkTxBytes: Type.Number(),
  diskReadBytes: Type.Number(),
  diskWriteBytes: Type.Number(),
  pids: Type.Number(),
});
export type StatsView = Static<typeof StatsView>;

export const ErrorView = Type.Object({
  error: Type.Object({
    code: Type.String(),
    message: Type.String(),
    hint: Type.Optional(Type.String()),
    details: Type.Array(Type.Object({ path: Type.String(), message: Type.String() })),
  }),
});
export type ErrorView = Static<typeof ErrorView>;

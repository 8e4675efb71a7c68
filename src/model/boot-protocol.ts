// Words between a peer's two processes, the agent and its supervisor `boot`, over the IPC channel of the child process. Boot
// outlives agents: it keeps the registry of copies and gives it back to the next agent. Both run the same version.

export const BOOT_PROTOCOL_VERSION = 1;

export const BOOT_LIMITS = {
  /** Copies registered at a time. */
  copies: 4096,
  targetsPerCopy: 16,
  /** One path of a cgroup, characters. */
  pathLength: 4096,
  /** Keys that probes are checked against: the present one and those of peers that missed a rotation. */
  probeKeys: 4,
  /** Nonces of probes remembered, against replays. */
  probeNonces: 1024,
} as const;

/** How boot can kill a copy with neither agent nor engine: every process below these cgroup directories, or this process group. */
export type KillTarget =
  | {
      readonly type: 'cgroup' /** Absolute directories; v1: freezer and pids hierarchies; v2: the one. May contain a trailing `*`-free id that appears later. */;
      readonly paths: readonly string[];
    }
  | {
      readonly type: 'process-group';
      readonly pgid: number /** Field 22 of /proc/PID/stat, guards against pid reuse. */;
      readonly startTicks: number;
    };

/** A copy as boot keeps it. Times are milliseconds since the machine started (suspend counted). */
export interface RegisteredCopy {
  readonly copyId: string;
  /** Killed at its deadline; others are only kept in mind. */
  readonly exclusive: boolean;
  readonly targets: readonly KillTarget[];
  /** The lease ends then: boot begins to kill `stopAllowanceMs` before. null: none yet (see BOOT_GRACE_MS), or not exclusive. */
  readonly deadlineMs: number | null;
  /** Every process was reaped then; null = may live. */
  readonly killedAtMs: number | null;
}

/** An exclusive copy that is registered without a deadline and gets none is killed after this long. */
export const BOOT_GRACE_MS = 1000;
export const DEFAULT_STOP_ALLOWANCE_MS = 1000;

export interface SelfTestResult {
  /** Boot can kill what runs here: only then may exclusive tasks come. */
  readonly ok: boolean;
  /** Plain words, one line each. */
  readonly problems: readonly string[];
  readonly processGroup: boolean;
  readonly cgroup: boolean;
}

export type AgentToBoot =
  /** First words of every agent; answered by `hello`. `stopAllowanceMs`: S, the time a kill may take. */
  | { readonly type: 'attach'; readonly stopAllowanceMs: number }
  /** Who this peer is and what other peers' probes are checked with (base64, newest first). Kept in memory only. */
  | { readonly type: 'identity'; readonly clusterId: string; readonly nodeId: string; readonly keys: readonly string[] }
  /** Answered by `registered` with the same `seq`, once boot and its guard can kill the copy. */
  | {
      readonly type: 'register';
      readonly seq: number;
      readonly copyId: string;
      readonly exclusive: boolean;
      readonly targets: readonly KillTarget[];
      readonly deadlineMs: number | null;
    }
  /** null: kill now. */
  | { readonly type: 'deadline'; readonly deadlines: readonly (readonly [copyId: string, deadlineMs: number | null])[] }
  | { readonly type: 'forget'; readonly copyIds: readonly string[] };

export type BootToAgent =
  | {
      readonly type: 'hello';
      readonly version: number;
      /** The kernel's id of this boot of the machine. */
      readonly bootId: string;
      readonly bootPid: number;
      /** Times that the agent was started again since boot runs. */
      readonly agentRestarts: number;
      /** UDP port that answers probes; 0 when it could not be bound. */
      readonly probePort: number;
      readonly selfTest: SelfTestResult;
      readonly registry: readonly RegisteredCopy[];
    }
  | { readonly type: 'registered'; readonly seq: number; readonly error: string | null }
  | { readonly type: 'killed'; readonly copyId: string; readonly atMs: number };

/** Exit code of an agent whose configuration is wrong (sysexits EX_CONFIG): starting it again would not help. */
export const EXIT_CONFIGURATION = 78;
/** Agent's exit code: start me again, nothing is wrong (sysexits' EX_TEMPFAIL). */
export const EXIT_AGAIN = 75;

/** Format of the UDP probe; see adapters/boot-probe/packet.ts. */
export const PROBE = {
  label: 'task-org/boot-probe/1',
  nonceBytes: 16,
  macBytes: 16,
  nameBytes: 128,
  /** Bit of the reply's flags: the agent's process runs. */
  flagAgentUp: 1,
} as const;

import { type AgentToBoot, BOOT_LIMITS, type KillTarget, type RegisteredCopy } from '../model/boot-protocol.ts';

// The agent is ours, but boot must outlive its faults: what comes over the channel is checked like anything from outside.

type Fields = Readonly<Record<string, unknown>>;
const isObject = (v: unknown): v is Fields => typeof v === 'object' && v !== null;
const isText = (v: unknown, max: number): v is string => typeof v === 'string' && v.length > 0 && v.length <= max;
const isNumber = (v: unknown): v is number => typeof v === 'number' && Number.isFinite(v);
/** Milliseconds in which no shell's arithmetic overflows, nor is written with an exponent. */
const MAX_MS = 1e15;
export const isTime = (v: unknown): v is number => isNumber(v) && Math.abs(v) <= MAX_MS;
const isDeadline = (v: unknown): v is number | null => v === null || isTime(v);
const isWhole = (v: unknown, minimum: number): boolean => Number.isSafeInteger(v) && (v as number) >= minimum;
const isId = (v: unknown): v is string => isText(v, 512);
const isList = <T>(v: unknown, max: number, of: (item: unknown) => item is T): v is readonly T[] =>
  Array.isArray(v) && v.length <= max && v.every(of);

// A path goes into the guard's file as the rest of a line.
const isPath = (v: unknown): v is string =>
  isText(v, BOOT_LIMITS.pathLength) && v.startsWith('/') && !/[\n\r\0]|\/\.\.(\/|$)/.test(v);

function isTarget(v: unknown): v is KillTarget {
  if (!isObject(v)) return false;
  if (v.type === 'cgroup') return isList(v.paths, BOOT_LIMITS.targetsPerCopy, isPath);
  return v.type === 'process-group' && isWhole(v.pgid, 2) && isWhole(v.startTicks, 0);
}

const isPair = (v: unknown): v is readonly [string, number | null] =>
  Array.isArray(v) && v.length === 2 && isId(v[0]) && isDeadline(v[1]);

export const isStopAllowance = (v: unknown): v is number => isNumber(v) && v >= 0 && v <= 60_000;

/** A copy as it is registered, by an agent or in the file of an earlier boot. */
export const isRegistration = (
  v: unknown,
): v is Pick<RegisteredCopy, 'copyId' | 'exclusive' | 'targets' | 'deadlineMs'> =>
  isObject(v) &&
  isId(v.copyId) &&
  typeof v.exclusive === 'boolean' &&
  isList(v.targets, BOOT_LIMITS.targetsPerCopy, isTarget) &&
  isDeadline(v.deadlineMs);

/** undefined when it is none of the words of the protocol. */
export function parseAgentMessage(v: unknown): AgentToBoot | undefined {
  if (!isObject(v)) return undefined;
  const ok = (valid: boolean): AgentToBoot | undefined => (valid ? (v as unknown as AgentToBoot) : undefined);
  switch (v.type) {
    case 'attach':
      return ok(isStopAllowance(v.stopAllowanceMs));
    case 'identity':
      return ok(isText(v.clusterId, 128) && isText(v.nodeId, 128) && isList(v.keys, BOOT_LIMITS.probeKeys, isId));
    case 'register':
      return ok(isNumber(v.seq) && isRegistration(v));
    case 'deadline':
      return ok(isList(v.deadlines, BOOT_LIMITS.copies, isPair));
    case 'forget':
      return ok(isList(v.copyIds, BOOT_LIMITS.copies, isId));
    default:
      return undefined;
  }
}

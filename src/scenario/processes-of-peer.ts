import { readFileSync, readlinkSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { allPids, commandLine, signalPid } from './hosts/processes.ts';

/** Environment mark of everything a stage starts; children that keep their environment carry it on. */
export const STAGE_MARK = 'SCENARIO_PEER_DIR';
const SWEEP_TIMEOUT_MS = 10_000;

interface ProcessFacts {
  readonly pid: number;
  readonly parent: number;
  readonly session: number;
  readonly state: string;
}

/**
 * Every process of one local peer: boot, agent, guard and copies, whatever session or group they have put themselves
 * into. Found by descent from boot, by session, by their place below the data directory, and by the mark in their
 * environment. Zombies do not count.
 */
export function processesOfPeer(rootPid: number | undefined, dataDir: string): readonly number[] {
  const all = allPids()
    .flatMap((pid) => facts(pid) ?? [])
    .filter((one) => one.state !== 'Z' && one.pid !== process.pid);
  const found = new Set<number>(
    all.filter((one) => one.pid === rootPid || belongs(one.pid, dataDir)).map((one) => one.pid),
  );
  const own = facts(process.pid)?.session;
  for (let grew = true; grew; ) {
    grew = false;
    const sessions = new Set(
      all.filter((one) => found.has(one.pid) && one.session !== own && one.session !== 0).map((one) => one.session),
    );
    for (const one of all) {
      if (found.has(one.pid) || !(found.has(one.parent) || sessions.has(one.session))) continue;
      found.add(one.pid);
      grew = true;
    }
  }
  return [...found];
}

/** Kills them all, boot first, and sweeps until none is left. Returns epoch ms of the first signal. */
export async function killPeer(rootPid: number | undefined, dataDir: string): Promise<number> {
  const atMs = Date.now();
  if (rootPid !== undefined) signalPid(rootPid, 'SIGKILL');
  const deadline = atMs + SWEEP_TIMEOUT_MS;
  for (let left = processesOfPeer(rootPid, dataDir); left.length > 0; left = processesOfPeer(rootPid, dataDir)) {
    for (const pid of left) signalPid(pid, 'SIGKILL');
    if (Date.now() > deadline) throw new Error(`processes of the peer in ${dataDir} do not die: ${left.join(', ')}`);
    await delay(2);
  }
  return atMs;
}

function belongs(pid: number, dataDir: string): boolean {
  const inside = (path: string): boolean => path === dataDir || path.startsWith(`${dataDir}/`);
  try {
    if (inside(readlinkSync(`/proc/${pid}/cwd`))) return true;
    if (commandLine(pid).some((word) => word.includes(dataDir))) return true;
    // A copy keeps no mark, but is told its work directory; its own place says nothing once that disk was unmounted.
    const environ = readFileSync(`/proc/${pid}/environ`, 'latin1').split('\0');
    return environ.some((one) => one === `${STAGE_MARK}=${dataDir}` || one.startsWith(`TASKORG_WORKDIR=${dataDir}/`));
  } catch {
    return false; // gone, or somebody else's
  }
}

function facts(pid: number): ProcessFacts | undefined {
  try {
    // the name in parentheses may hold anything, so fields are counted from its end
    const text = readFileSync(`/proc/${pid}/stat`, 'utf8');
    const [state = '', parent, , session] = text.slice(text.lastIndexOf(')') + 2).split(' ');
    return { pid, state, parent: Number(parent), session: Number(session) };
  } catch {
    return undefined;
  }
}

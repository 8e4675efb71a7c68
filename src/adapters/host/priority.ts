import { writeFileSync } from 'node:fs';
import { setPriority } from 'node:os';

// A machine that is busy with its tasks must still hear its neighbours: a peer that waits for a CPU loses mastery and leases,
// and moves tasks for nothing. So boot and agent go before them, where the system lets them (root, or CAP_SYS_NICE).

/** Nine times the share of a process of the usual priority, by the kernel's weights. */
const PEER_NICENESS = -10;
const TASK_NICENESS = 0;

/** This process before others. Returns false where that is not allowed; nothing is worse than before then. */
export function raisePriority(): boolean {
  try {
    setPriority(PEER_NICENESS);
  } catch {
    return false;
  }
  try {
    // Where sessions are scheduled as groups (sched(7), autogroup), niceness counts only within one.
    writeFileSync('/proc/self/autogroup', String(PEER_NICENESS));
  } catch {
    // a kernel without them, or a process in a cgroup of its own
  }
  return true;
}

/** A task's process, started by one that was raised, as any other. */
export function usualPriority(pid: number): void {
  try {
    setPriority(pid, TASK_NICENESS);
  } catch {
    // it has ended already
  }
}

import type { ReconcileConfig } from '../../../src/core/reconcile/config.ts';
import { formatCopyId } from '../../../src/core/reconcile/copy-id.ts';
import { createReconcile } from '../../../src/core/reconcile/reconcile.ts';
import type { DesiredCopy, ObservedCopy, ReconcileEffect, ReconcileEvent } from '../../../src/core/reconcile/types.ts';
import type { CopyFact } from '../../../src/model/facts.ts';
import { monoMs, taskId, wallMs } from '../../../src/model/ids.ts';
import type { TaskSpec } from '../../../src/model/task-spec.ts';
import { gen, key, spec } from '../lease/fixtures.ts';

export function wanted(
  g: number,
  patch: Partial<TaskSpec> = {},
  at: { slot?: number; task?: string; version?: number } = {},
): DesiredCopy {
  const s = spec(patch);
  return {
    taskId: taskId(at.task ?? 't'),
    slot: at.slot ?? 0,
    generation: gen(g),
    specVersion: at.version ?? 1,
    spec: s,
    exclusive: s.onPartition === 'stop',
  };
}

export const observed = (d: DesiredCopy, patch: Partial<ObservedCopy> = {}): ObservedCopy => ({
  copyId: formatCopyId(d),
  taskId: d.taskId,
  slot: d.slot,
  generation: d.generation,
  specVersion: d.specVersion,
  runtime: d.spec.runtime,
  handle: 'pid:1',
  running: true,
  startedAt: wallMs(1),
  exitCode: null,
  ports: [],
  ...patch,
});

/** A reconcile core with a hand on its clock; effects as short words. */
export function bench(config: Partial<ReconcileConfig> = {}) {
  const core = createReconcile(config, 'seed');
  let now = 1000;
  const say = (e: ReconcileEffect): string => {
    switch (e.type) {
      case 'start':
      case 'check-health':
        return `${e.type} ${e.copyId}`;
      case 'stop':
        return `${e.graceful ? 'stop' : 'kill'} ${e.copyId}`;
      case 'end':
        return `end ${e.copyId} ${e.outcome} ${e.exitCode}`;
      case 'released':
        return `released ${e.key.generation.g}`;
      case 'facts':
        return '';
    }
  };
  const run = (event: ReconcileEvent): string[] =>
    core
      .step(event, monoMs(now), wallMs(now))
      .map(say)
      .filter((s) => s !== '');
  return {
    core,
    run,
    get now() {
      return now;
    },
    clock(t: number): void {
      now = t;
    },
    at(t: number): string[] {
      now = t;
      return run({ type: 'tick' });
    },
    /** Runs all timers due until `t`. */
    until(t: number): string[] {
      const out: string[] = [];
      for (let wake = core.nextWake(); wake !== undefined && wake <= t; wake = core.nextWake()) {
        now = Math.max(now, wake);
        out.push(...run({ type: 'tick' }));
      }
      now = t;
      return out;
    },
    desired: (copies: readonly DesiredCopy[], current = true) => run({ type: 'desired', copies, current }),
    listing: (copies: readonly ObservedCopy[], runtime: 'docker' | 'process' = 'process') =>
      run({ type: 'listing', runtime, copies }),
    started: (d: DesiredCopy) => run({ type: 'started', copy: observed(d) }),
    exited: (d: DesiredCopy, exitCode: number | null) =>
      run({ type: 'exited', copyId: formatCopyId(d), exitCode, error: '' }),
    stopped: (d: DesiredCopy) => run({ type: 'stopped', copyId: formatCopyId(d) }),
    lease: (g: number, deadline: number | undefined) =>
      run({ type: 'lease', key: key(g), deadline: deadline === undefined ? undefined : monoMs(deadline) }),
    fact: (): CopyFact | undefined => core.facts()[0],
  };
}

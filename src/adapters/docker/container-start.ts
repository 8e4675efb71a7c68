import { formatCopyId } from '../../core/reconcile/copy-id.ts';
import type { DesiredCopy, ObservedCopy } from '../../core/reconcile/types.ts';
import type { KillTarget } from '../../model/boot-protocol.ts';
import { TaskOrgError } from '../../model/errors.ts';
import { wallMs } from '../../model/ids.ts';
import type { Log } from '../../ports/log.ts';
import { targetStands } from './container-cgroup.ts';
import { boundPorts, containerBody, containerName, isRunning, LABEL, type Owner, ownLabels } from './container-spec.ts';
import { type EngineApi, EngineError } from './engine-api.ts';
import type { ContainerRuntimeState, Engine } from './engine-state.ts';

export interface StartDependencies {
  readonly api: EngineApi;
  readonly engine: Engine;
  readonly owner: Owner;
  readonly state: ContainerRuntimeState;
  readonly log: Log;
  /** Kills and removes, however long it takes. */
  readonly remove: (containerId: string) => Promise<void>;
}

interface Inspection {
  readonly Id: string;
  readonly Config: { readonly Labels: Readonly<Record<string, string>> | null };
  readonly State: {
    readonly Status: string;
    readonly Pid: number;
    readonly StartedAt: string;
    readonly ExitCode: number;
  };
  readonly NetworkSettings: { readonly Ports: Readonly<Record<string, readonly { HostPort: string }[] | null>> | null };
}

/**
 * One create and one start, as with the bare engine; an inspection only where something must be learnt (the engine's cgroup
 * parent, ports chosen by it). A container of the same copy that is over is removed first; named volumes stay. `signal`
 * aborted, or an error: the container is killed and removed before this rejects.
 */
export async function startContainer(
  deps: StartDependencies,
  copy: DesiredCopy,
  register: (how: KillTarget) => Promise<void>,
  signal: AbortSignal,
): Promise<ObservedCopy> {
  const { api, engine, state } = deps;
  const copyId = formatCopyId(copy);
  signal.throwIfAborted();
  const made = await createContainer(deps, copy);
  if (made.running) {
    // The supervisor of a restarted agent may not know it.
    await register(engine.cgroups.target(made.id));
    return made.running;
  }
  const { id } = made;
  try {
    signal.throwIfAborted();
    const target = engine.cgroups.target(id);
    state.containers.set(copyId, { id, target });
    await register(target);
    signal.throwIfAborted();
    await api.call({ method: 'POST', path: `/containers/${id}/start` });
    signal.throwIfAborted();
    const observed = await learn(deps, copy, id, register);
    signal.throwIfAborted();
    return observed;
  } catch (error) {
    // The call that was answered with an error may have run something, and the abort came while a start was under way.
    state.containers.delete(copyId);
    state.startedAt.delete(id);
    engine.pins.release(copyId);
    await deps.remove(id);
    throw error;
  }
}

/** The abort signal is not passed on: an engine finishes what it was asked, and then we must know the container's id. */
async function createContainer(
  deps: StartDependencies,
  copy: DesiredCopy,
): Promise<{ readonly id: string; readonly running?: ObservedCopy }> {
  const { api, engine, owner } = deps;
  const copyId = formatCopyId(copy);
  const name = containerName(owner, copy);
  const pins = engine.pins.take(copyId, copy.spec.cpus);
  const create = (): Promise<{ Id: string }> =>
    api.call({ method: 'POST', path: '/containers/create', query: { name }, body: containerBody(owner, copy, pins) });
  try {
    return { id: (await create()).Id };
  } catch (error) {
    if (error instanceof EngineError && error.status === 409) {
      const old = await inspect(api, name);
      if (old && isOf(owner, copyId, old) && old.State.Status !== 'removing' && old.State.Status !== 'dead') {
        const pinned = old.Config.Labels?.[LABEL.cpuset];
        if (pinned !== undefined) engine.pins.restore(copyId, pinned);
        if (isRunning(old.State.Status)) {
          if (!engine.cgroups.learnt) engine.cgroups.learn(old.Id, old.State.Pid);
          deps.state.containers.set(copyId, { id: old.Id, target: engine.cgroups.target(old.Id) });
          return { id: old.Id, running: asInspected(copy, old) };
        }
      }
      // Only what is ours may be removed: the name may have been taken by a person.
      if (old && !isOf(owner, copyId, old)) throw error;
      if (old) await deps.remove(old.Id);
      return { id: (await create()).Id };
    }
    engine.pins.release(copyId);
    throw error;
  }
}

function isOf(owner: Owner, copyId: string, container: Inspection): boolean {
  const words = container.Config.Labels ?? {};
  return (
    words[LABEL.copy] === copyId && Object.entries(ownLabels(owner)).every(([name, value]) => words[name] === value)
  );
}

async function inspect(api: EngineApi, idOrName: string): Promise<Inspection | undefined> {
  try {
    return await api.call<Inspection>({ method: 'GET', path: `/containers/${idOrName}/json` });
  } catch (error) {
    if (error instanceof EngineError && error.status === 404) return undefined;
    throw error;
  }
}

/**
 * What only a running container tells: where the engine put its cgroup, which ports it chose, and when it started by the
 * engine's own word, which is the same after a restart of the agent.
 */
async function learn(
  deps: StartDependencies,
  copy: DesiredCopy,
  id: string,
  register: (how: KillTarget) => Promise<void>,
): Promise<ObservedCopy> {
  const { api, engine, state, log } = deps;
  const copyId = formatCopyId(copy);
  const now = await inspect(api, id);
  if (!now)
    throw new TaskOrgError('runtime_failed', `the container of ${copyId} was removed by somebody`, { retryable: true });
  const startedAt = Date.parse(now.State.StartedAt);
  if (startedAt > 0) state.startedAt.set(id, wallMs(startedAt));
  if (now.State.Pid > 0) engine.cgroups.learn(id, now.State.Pid);
  // Compared with what was registered, not with what was known just before: another container, started meanwhile, may have
  // taught the engine's parent group first.
  const target = engine.cgroups.target(id);
  if (JSON.stringify(target) !== JSON.stringify(state.containers.get(copyId)?.target)) {
    state.containers.set(copyId, { id, target });
    await register(target);
  }
  const seen = targetStands(target);
  if (!seen && isRunning(now.State.Status)) {
    const still = await inspect(api, id);
    if (still && isRunning(still.State.Status)) {
      // An engine in a virtual machine or another cgroup namespace: only it could end the copy.
      if (copy.exclusive)
        throw new TaskOrgError('runtime_failed', `the cgroup of ${copyId} cannot be seen, so it could not be fenced`, {
          hint: 'run the peer on the machine of the engine, as root, or set onPartition: keep',
        });
      log.warn({ copyId }, 'the cgroup of a container cannot be seen: only the engine can end it');
    }
  }
  return asInspected(copy, now);
}

function asInspected(copy: DesiredCopy, of: Inspection): ObservedCopy {
  const running = isRunning(of.State.Status);
  const startedAt = Date.parse(of.State.StartedAt);
  const ports = Object.entries(of.NetworkSettings.Ports ?? {}).flatMap(([key, bound]) => {
    const [container, protocol = 'tcp'] = key.split('/');
    return (bound ?? []).map((b) => ({ container: Number(container), host: Number(b.HostPort), protocol }));
  });
  return {
    ...nameOf(copy),
    runtime: 'docker',
    handle: of.Id,
    running,
    startedAt: startedAt > 0 ? wallMs(startedAt) : null,
    exitCode: running ? null : of.State.ExitCode,
    ports: boundPorts(ports),
  };
}

const nameOf = (
  copy: DesiredCopy,
): Pick<ObservedCopy, 'copyId' | 'taskId' | 'slot' | 'generation' | 'specVersion'> => ({
  copyId: formatCopyId(copy),
  taskId: copy.taskId,
  slot: copy.slot,
  generation: copy.generation,
  specVersion: copy.specVersion,
});

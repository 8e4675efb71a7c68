import { createDockerRuntime } from '../adapters/docker/docker-runtime.ts';
import { createProcessRuntime } from '../adapters/process/process-runtime.ts';
import type { PeerSettings } from '../model/config-schema.ts';
import { TaskOrgError, toTaskOrgError } from '../model/errors.ts';
import type { ClusterId, NodeId } from '../model/ids.ts';
import type { Log } from '../ports/log.ts';
import type { Runtime } from '../ports/runtime.ts';

const ENGINE_ANSWER_MS = 3000;

/** The runtimes asked for. With `auto`, docker is taken where an engine answers, and its absence is only said. */
export async function openRuntimes(o: {
  readonly settings: PeerSettings;
  readonly dataDir: string;
  readonly clusterId: ClusterId;
  readonly nodeId: NodeId;
  readonly log: Log;
}): Promise<{ runtimes: Runtime[]; problems: string[] }> {
  const kind = o.settings.witness ? 'none' : o.settings.runtime;
  const runtimes: Runtime[] = [];
  const problems: string[] = [];
  if (kind === 'docker' || kind === 'auto' || kind === 'both') {
    const docker = createDockerRuntime({ clusterId: o.clusterId, nodeId: o.nodeId, log: o.log });
    try {
      await docker.info(AbortSignal.timeout(ENGINE_ANSWER_MS));
      runtimes.push(docker);
    } catch (error) {
      await docker.close();
      if (kind !== 'auto')
        throw new TaskOrgError('no_runtime', `no Docker Engine answers here: ${toTaskOrgError(error).message}`, {
          cause: error,
          retryable: true,
          hint: 'start the engine, or use --runtime process',
        });
      problems.push('no Docker Engine answers here: only process tasks run on this machine');
    }
  }
  if (kind === 'process' || kind === 'auto' || kind === 'both')
    runtimes.push(createProcessRuntime({ dataDir: o.dataDir, clusterId: o.clusterId, nodeId: o.nodeId, log: o.log }));
  return { runtimes, problems };
}

import { createDockerRuntime } from '../adapters/docker/docker-runtime.ts';
import { createProcessRuntime } from '../adapters/process/process-runtime.ts';
import type { PeerSettings } from '../model/config-schema.ts';
import { TaskOrgError, toTaskOrgError } from '../model/errors.ts';
import type { ClusterId, NodeId } from '../model/ids.ts';
import type { Log } from '../ports/log.ts';
import type { Runtime } from '../ports/runtime.ts';

const ENGINE_ANSWER_MS = 3000;

export const NO_ENGINE = 'no Docker Engine answers here: only process tasks run on this machine';

/**
 * The runtimes asked for. An engine that does not answer yet is taken up as soon as it does: after a power cut it may well
 * start later than the peer. Only a person who asks for docker on a new peer is told at once that there is none.
 */
export async function openRuntimes(o: {
  readonly settings: PeerSettings;
  readonly dataDir: string;
  readonly clusterId: ClusterId;
  readonly nodeId: NodeId;
  /** First start of this peer. */
  readonly fresh: boolean;
  readonly log: Log;
}): Promise<Runtime[]> {
  const kind = o.settings.witness ? 'none' : o.settings.runtime;
  const runtimes: Runtime[] = [];
  if (kind === 'docker' || kind === 'auto' || kind === 'both') {
    const docker = createDockerRuntime({ clusterId: o.clusterId, nodeId: o.nodeId, log: o.log });
    const answer = await docker.info(AbortSignal.timeout(ENGINE_ANSWER_MS)).catch(toTaskOrgError);
    if (answer instanceof TaskOrgError && o.fresh && kind !== 'auto') {
      await docker.close();
      throw new TaskOrgError('no_runtime', `no Docker Engine answers here: ${answer.message}`, {
        cause: answer,
        retryable: true,
        hint: 'start the engine, or use --runtime process',
      });
    }
    if (answer instanceof TaskOrgError) o.log.warn({ error: answer.message }, 'no Docker Engine answers here yet');
    runtimes.push(docker);
  }
  if (kind === 'process' || kind === 'auto' || kind === 'both')
    runtimes.push(createProcessRuntime({ dataDir: o.dataDir, clusterId: o.clusterId, nodeId: o.nodeId, log: o.log }));
  return runtimes;
}

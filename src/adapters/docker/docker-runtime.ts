import { TaskOrgError } from '../../model/errors.ts';
import type { ClusterId, NodeId } from '../../model/ids.ts';
import type { Log } from '../../ports/log.ts';
import type { Runtime } from '../../ports/runtime.ts';
export function createDockerRuntime(_o: { clusterId: ClusterId; nodeId: NodeId; log: Log }): Runtime {
  return { info: async () => { throw new TaskOrgError('no_runtime', 'none'); }, close: async () => {} } as unknown as Runtime;
}

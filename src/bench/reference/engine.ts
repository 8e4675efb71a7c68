import { EngineApi } from '../../scenario/hosts/engine-api.ts';
import { BUSYBOX_IMAGE } from '../../scenario/hosts/image.ts';
import type { HostLab } from '../../scenario/hosts/types.ts';
import { pool, share } from '../pool.ts';

/** Label that all containers of this reference carry, to find them again. */
const LABEL = 'taskorg.bench=engine';

/**
 * The engines driven directly: create and start over their API, `concurrency` at a time on each host, with
 * nothing decided, replicated or recorded. Returns milliseconds from the first order to the last start's answer.
 */
export async function timeDirectDeploy(
  lab: HostLab,
  hosts: readonly number[],
  containers: number,
  concurrency: number,
): Promise<number> {
  const apis = hosts.map((host) => new EngineApi(lab.socketPath(host), { connections: concurrency }));
  try {
    const startedAt = performance.now();
    await Promise.all(apis.map((api, index) => deployShare(api, share(containers, hosts.length, index), concurrency)));
    return performance.now() - startedAt;
  } finally {
    for (const api of apis) api.close();
  }
}

/** Removes what timeDirectDeploy made. */
export async function removeDirectDeploy(lab: HostLab, hosts: readonly number[]): Promise<void> {
  const filters = encodeURIComponent(JSON.stringify({ label: [LABEL] }));
  for (const host of hosts) {
    const api = new EngineApi(lab.socketPath(host));
    const list = (await api.call('GET', `/containers/json?all=1&filters=${filters}`)) as { Id: string }[];
    await pool(list, 8, async ({ Id }) => {
      await api.call('DELETE', `/containers/${Id}?force=1`);
    });
    api.close();
  }
}

async function deployShare(api: EngineApi, count: number, concurrency: number): Promise<void> {
  const [key = '', value = ''] = LABEL.split('=');
  await pool(Array.from({ length: count }), concurrency, async () => {
    const made = (await api.call('POST', '/containers/create', {
      Image: BUSYBOX_IMAGE,
      Cmd: ['sleep', '1000000'],
      StopSignal: 'SIGKILL',
      Labels: { [key]: value },
    })) as { Id: string };
    await api.call('POST', `/containers/${made.Id}/start`);
  });
}

import type { FastifyInstance } from 'fastify';
import { wallMs } from '../../model/ids.ts';
import { LIMITS } from '../../model/limits.ts';
import { createApi } from '../../services/api/server.ts';
import { type ApiContext, createNoticeBoard } from '../../services/api/context.ts';
import { formCluster, makeSpec, makeWorld } from '../../sim/campaign.ts';
import type { Machine } from '../../sim/machine.ts';
import { DOCUMENTS } from '../samples.ts';
import { bytesOf, FuzzFailure, type FuzzTarget, LIMIT_MS, textOf } from '../target.ts';

// The client API with all its routes, on a real peer's records; what would change them is only said to have worked.

const committed = { ok: true, index: 9, result: { ok: true }, copies: 2 };

function context(): ApiContext {
  const world = makeWorld('api', 1);
  formCluster(world);
  world.submit(world.machines[0] as Machine, makeSpec('web', true, 2));
  world.run(world.now + 2000);
  const machine = world.machines[0] as Machine;
  const { peer } = machine;
  const yes = async () => committed;
  return {
    version: '0',
    clusterId: 'c1',
    self: machine.id,
    driver: { peer, submit: yes, propose: yes, readCurrent: yes },
    remote: { expectCopy: () => {}, logs: async function* () {}, exec: async function* () {}, stats: async () => [] },
    clock: { mono: () => machine.now(), wall: () => wallMs(1_700_000_000_000), at: () => () => {} },
    random: { bytes: (n: number) => new Uint8Array(n), seed: () => 's' },
    makeToken: async () => 'torg1_',
    rotateSecret: async () => {},
    recover: async () => ({ epoch: 2, voters: [] }),
    rejoin: async () => {},
    configShown: () => [],
    notices: createNoticeBoard(),
    metrics: async () => '',
    waiting: async () => new Map(),
    viewsOfPeers: async () => new Map(),
  } as unknown as ApiContext;
}

const call = (
  method: string,
  url: string,
  body?: unknown,
  headers: Readonly<Record<string, string>> = {},
): Uint8Array =>
  bytesOf(JSON.stringify({ method, url, body: body === undefined ? null : JSON.stringify(body), headers }));
const exec = Buffer.from(JSON.stringify({ command: ['sh'], env: {}, tty: true })).toString('base64url');

interface Call {
  readonly method: 'GET' | 'POST' | 'PUT' | 'DELETE';
  readonly url: string;
  readonly body: string | null;
  readonly headers: Readonly<Record<string, string>>;
}

/** Nothing that node's own HTTP parser would not let through. */
function callOf(bytes: Uint8Array): Call | undefined {
  try {
    const { method, url, body, headers } = JSON.parse(textOf(bytes)) as Partial<Record<keyof Call, unknown>>;
    if (!['GET', 'POST', 'PUT', 'DELETE'].some((m) => m === method)) return undefined;
    if (typeof url !== 'string' || !/^\/[\x21-\x7e]*$/.test(url) || url.startsWith('//')) return undefined;
    const named = Object.entries(headers ?? {}).filter(
      ([k, v]) => /^x-[a-z-]+$/.test(k) && typeof v === 'string' && /^[\x20-\x7e]*$/.test(v),
    );
    const text = typeof body === 'string' ? body : body === null || body === undefined ? null : JSON.stringify(body);
    return { method: method as Call['method'], url, body: text, headers: Object.fromEntries(named) as Call['headers'] };
  } catch {
    return undefined;
  }
}

export function apiTargets(): FuzzTarget[] {
  let app: Promise<FastifyInstance> | undefined;
  return [
    {
      name: 'api-request',
      grammar: 'json',
      seeds: [
        ...DOCUMENTS.map((d) => call('POST', '/v1/tasks', d)),
        call('POST', '/v1/publish?id=own-1', DOCUMENTS[1]),
        call('PUT', '/v1/tasks/web', DOCUMENTS[0]),
        call('GET', '/v1/tasks?all=false'),
        call('GET', '/v1/tasks/web/why'),
        call('POST', '/v1/tasks/web/stop'),
        call('DELETE', '/v1/tasks/web?force=true'),
        call('GET', '/v1/submissions/t-web'),
        call('POST', '/v1/tokens', { expiresMs: 60_000, uses: 3 }),
        call('GET', '/v1/events?since=1'),
        call('GET', '/v1/nodes/node1'),
        call('POST', '/v1/nodes/node1/drain'),
        call('PUT', '/v1/settings/user.colour', { value: 'green' }),
        call('GET', '/v1/settings/user.colour'),
        call('POST', '/v1/tasks/web/exec', null, { 'x-task-org-exec': exec }),
        call('GET', '/v1/cluster'),
        call('POST', '/v1/cluster/recover', { force: true, dead: ['node1'] }),
        call('POST', '/v1/cluster/recover', { force: true }),
        call('POST', '/v1/cluster/rejoin', { epochId: 'e2' }),
        call('GET', '/v1/openapi.json'),
      ],
      weight: 2,
      maxBytes: LIMITS.rpcFrameBytes,
      limitMs: LIMIT_MS,
      decode: async (bytes) => {
        const request = callOf(bytes);
        // A stream that is followed has no end.
        if (request === undefined || request.url.includes('follow')) return 'refused';
        app ??= createApi(context());
        const { method, url, body, headers } = request;
        const reply = await (await app).inject({
          method,
          url,
          headers: body === null ? headers : { ...headers, 'content-type': 'application/json' },
          ...(body === null ? {} : { payload: body }),
        });
        if (reply.statusCode === 500)
          throw new FuzzFailure(`${method} ${url.slice(0, 80)}: ${reply.body.slice(0, 300)}`);
        return reply.statusCode < 300 ? 'accepted' : 'refused';
      },
    },
  ];
}

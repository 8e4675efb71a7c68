import { encode } from '@ipld/dag-cbor';
import type { Peer } from '../../core/peer/peer.ts';
import { decodeCbor } from '../../model/cbor.ts';
import { LIMITS } from '../../model/limits.ts';
import { type NodeId, nodeId } from '../../model/ids.ts';
import type { Transport } from '../../ports/transport.ts';

// How each peer sees the others, asked when somebody wants to know: an answer can then say by whom a machine is seen.

export const METHOD_VIEW = 'members.view';
const ASK_TIMEOUT_MS = 400;

export interface PeerViews {
  serve(): Uint8Array;
  ask(): Promise<ReadonlyMap<NodeId, Readonly<Record<string, string>>>>;
}

export function createPeerViews(deps: { readonly peer: Peer; readonly transport: Transport }): PeerViews {
  const { peer, transport } = deps;
  const own = (): Record<string, string> => ({
    ...Object.fromEntries([...peer.members()].map(([id, m]) => [id, m.status])),
    [peer.self]: 'alive',
  });

  return {
    serve: () => encode(own()),
    ask: async () => {
      const views = new Map<NodeId, Readonly<Record<string, string>>>([[peer.self, own()]]);
      await Promise.all(
        transport.connected().map(async (id) => {
          const bytes = await transport
            .request(id, METHOD_VIEW, new Uint8Array(0), { timeoutMs: ASK_TIMEOUT_MS })
            .catch(() => undefined);
          const decoded = bytes && decodeCbor(bytes, LIMITS.rpcFrameBytes);
          const view: unknown = decoded?.ok ? decoded.value : null;
          if (view === null || typeof view !== 'object') return;
          views.set(
            nodeId(id),
            Object.fromEntries(Object.entries(view).filter((e): e is [string, string] => typeof e[1] === 'string')),
          );
        }),
      );
      return views;
    },
  };
}

import { encode } from '@ipld/dag-cbor';
import { Type } from 'typebox';
import { Compile } from 'typebox/compile';
import type { Waiting } from '../../core/master/types.ts';
import type { Peer } from '../../core/peer/peer.ts';
import { decodeCbor } from '../../model/cbor.ts';
import { LIMITS } from '../../model/limits.ts';
import { nodeId, type TaskId, taskId } from '../../model/ids.ts';
import type { Transport } from '../../ports/transport.ts';

// Why tasks wait for a machine is kept by the master alone, in memory; any other peer asks it when somebody wants to know.

export const METHOD_WAITING = 'tasks.waiting';
const ASK_TIMEOUT_MS = 400;
/** Tasks in one answer: at about 150 bytes each, well inside a frame. */
const MAX_TASKS = 2000;

const Question = Compile(Type.Object({ task: Type.Union([Type.Null(), Type.String({ maxLength: 128 })]) }));
const Answer = Compile(
  Type.Array(
    Type.Object({
      id: Type.String(),
      reason: Type.String(),
      slots: Type.Array(Type.Integer()),
      rejections: Type.Array(Type.Object({ node: Type.String(), filter: Type.String(), reason: Type.String() })),
    }),
    { maxItems: MAX_TASKS },
  ),
);

export interface WaitingTasksAsker {
  /** Answer to another peer. */
  serve(question: Uint8Array): Uint8Array;
  /** As the master knows it: of one task with every machine's reason, or (null) of all, the reasons in short. Empty when no master answers. */
  ask(task: TaskId | null): Promise<ReadonlyMap<TaskId, Waiting>>;
}

export function createWaitingTasks(deps: { readonly peer: Peer; readonly transport: Transport }): WaitingTasksAsker {
  const { peer, transport } = deps;
  return {
    serve: (question) => {
      const asked = decodeCbor(question, LIMITS.rpcFrameBytes);
      const q: unknown = asked.ok ? asked.value : undefined;
      if (!Question.Check(q)) return encode([]);
      const waiting = [...peer.waiting()].filter(([id]) => q.task === null || q.task === id).slice(0, MAX_TASKS);
      return encode(
        waiting.map(([id, w]) => ({
          id,
          reason: w.reason,
          slots: [...w.slots],
          rejections: q.task === null ? [] : w.rejections.map((r) => ({ ...r })),
        })),
      );
    },
    ask: async (task) => {
      const master = peer.leader();
      if (master === null || master === peer.self) return peer.waiting();
      const bytes = await transport
        .request(master, METHOD_WAITING, encode({ task }), { timeoutMs: ASK_TIMEOUT_MS })
        .catch(() => undefined);
      const decoded = bytes && decodeCbor(bytes, LIMITS.rpcFrameBytes);
      const answer: unknown = decoded?.ok ? decoded.value : [];
      if (!Answer.Check(answer)) return new Map();
      return new Map(
        answer.map((a) => [
          taskId(a.id),
          { reason: a.reason, slots: a.slots, rejections: a.rejections.map((r) => ({ ...r, node: nodeId(r.node) })) },
        ]),
      );
    },
  };
}

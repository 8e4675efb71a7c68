import type { LogIndex, MonoMs } from '../../model/ids.ts';
import { type Hub, later } from './hub.ts';
import { clientFailure, type Requests } from './requests.ts';

// Who asked for a ReadIndex round (Ongaro's thesis 6.4): the lease granter, a client, or this peer itself, which must know
// that its records are current before it stops copies that they no longer name.

export type ReadPurpose =
  | { readonly kind: 'lease'; readonly id: number }
  | { readonly kind: 'client'; readonly requestId: number }
  | { readonly kind: 'current' };

/** A round for `current` that was not answered is asked again after this. */
const RETRY_MS = 500;

export interface Reads {
  ask(purpose: ReadPurpose): void;
  askCurrent(): void;
  fromClient(requestId: number): void;
  ready(id: number, ok: boolean, index: LogIndex): void;
  tick(): void;
  nextWake(): MonoMs | undefined;
  /** Rounds without an answer. */
  size(): number;
}

export function createReads(
  hub: Hub,
  requests: Requests,
  then: { readonly lease: (id: number, ok: boolean) => void; readonly current: () => void },
): Reads {
  let nextId = 1;
  const purposes = new Map<number, ReadPurpose>();
  let askedCurrentAt: MonoMs | undefined;

  function ask(purpose: ReadPurpose): void {
    const id = nextId++;
    purposes.set(id, purpose);
    hub.consense({ type: 'read-index', id });
  }

  return {
    ask,
    askCurrent: () => {
      if (askedCurrentAt !== undefined) return;
      askedCurrentAt = hub.now();
      ask({ kind: 'current' });
    },
    fromClient: (requestId) => {
      requests.wait(requestId, later(hub, hub.config.requestTimeoutMs), null);
      ask({ kind: 'client', requestId });
    },
    ready: (id, ok, index) => {
      const purpose = purposes.get(id);
      purposes.delete(id);
      if (purpose === undefined) return;
      // Applied may lag behind the read index; then nothing may rest on the records yet.
      const usable = ok && hub.state().applied >= index;
      if (purpose.kind === 'lease') then.lease(purpose.id, usable);
      else if (purpose.kind === 'current') {
        if (!usable) return;
        askedCurrentAt = undefined;
        then.current();
      } else if (requests.done(purpose.requestId)) {
        hub.emit({
          type: 'client-reply',
          requestId: purpose.requestId,
          result: usable
            ? { ok: true, index, result: { ok: true }, copies: 0 }
            : clientFailure('no-master', 'no majority confirmed the read'),
        });
      }
    },
    tick: () => {
      if (askedCurrentAt === undefined || hub.now() < askedCurrentAt + RETRY_MS) return;
      askedCurrentAt = undefined;
      for (const [id, purpose] of purposes) if (purpose.kind === 'current') purposes.delete(id);
    },
    size: () => purposes.size,
    nextWake: () => (askedCurrentAt === undefined ? undefined : ((askedCurrentAt + RETRY_MS) as MonoMs)),
  };
}

import type { Hub } from './hub.ts';
import type { CommittedEntries } from './types.ts';

/** Entries sent on the log topic in one message; above this only the commit index goes out and learners fetch. */
const LOG_TOPIC_BYTES = 48 * 1024;
/** What an entry costs on the wire besides its command, about. */
const ENTRY_OVERHEAD = 64;

/** Leader: newly committed entries for the learners that it does not serve directly. */
export function publishCommitted(hub: Hub, batch: CommittedEntries): void {
  let bytes = 0;
  for (const e of batch.entries) bytes += ENTRY_OVERHEAD + (e.payload.kind === 'command' ? e.payload.bytes.length : 0);
  const { prevIndex, prevTerm, commit, epoch } = batch;
  const entries = bytes > LOG_TOPIC_BYTES ? [] : batch.entries;
  hub.emit({
    type: 'publish',
    topic: 'log',
    message: { prevIndex, prevTerm, entries, commit, ...(epoch === undefined ? {} : { epoch }) },
  });
}

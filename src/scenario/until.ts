import { setTimeout as delay } from 'node:timers/promises';

/**
 * Asks again and again until the answer is something: for other people's programs, which offer nothing to wait on.
 * An error counts as "not yet", unless `isFinal` says otherwise. Throws with `what` and the last error after `timeoutMs`.
 */
export async function until<T>(
  what: string,
  timeoutMs: number,
  ask: () => Promise<T | undefined | false> | T | undefined | false,
  everyMs = 50,
  isFinal: (error: unknown) => boolean = () => false,
): Promise<T> {
  const deadline = Date.now() + timeoutMs;
  let last: unknown;
  for (;;) {
    try {
      const answer = await ask();
      if (answer !== undefined && answer !== false) return answer;
    } catch (error) {
      if (isFinal(error)) throw error;
      last = error;
    }
    if (Date.now() > deadline)
      throw new Error(`not within ${timeoutMs} ms: ${what}${last instanceof Error ? ` (${last.message})` : ''}`);
    await delay(everyMs);
  }
}

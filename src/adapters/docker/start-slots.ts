/** At most `limit` at a time, in order of arrival. */
export class StartSlots {
  #free: number;
  readonly #waiting: { readonly enter: () => void }[] = [];

  constructor(limit: number) {
    this.#free = limit;
  }

  /** Resolves with the function that gives the slot back. Rejects with the signal's reason when it aborts first. */
  acquire(signal: AbortSignal): Promise<() => void> {
    return new Promise((resolve, reject) => {
      if (signal.aborted) return reject(signal.reason as Error);
      const leave = (): void => {
        const next = this.#waiting.shift();
        if (next) next.enter();
        else this.#free++;
      };
      if (this.#free > 0) {
        this.#free--;
        return resolve(leave);
      }
      const onAbort = (): void => {
        this.#waiting.splice(this.#waiting.indexOf(entry), 1);
        reject(signal.reason as Error);
      };
      const entry = {
        enter: () => {
          signal.removeEventListener('abort', onAbort);
          resolve(leave);
        },
      };
      this.#waiting.push(entry);
      signal.addEventListener('abort', onAbort, { once: true });
    });
  }
}

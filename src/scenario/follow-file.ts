import { closeSync, openSync, readSync, watch } from 'node:fs';

const CHUNK_BYTES = 64 * 1024;

/**
 * Calls `onLine` with every complete line of a growing file, those already there first, until the returned function is
 * called. Driven by inotify, so `Date.now()` inside the callback is the moment the line was written, give or take the
 * event loop. The file must exist.
 */
export function followFile(path: string, onLine: (line: string) => void): () => void {
  const fd = openSync(path, 'r');
  const buffer = Buffer.alloc(CHUNK_BYTES);
  let offset = 0;
  let rest = '';
  let open = true;
  const drain = (): void => {
    while (open) {
      const length = readSync(fd, buffer, 0, buffer.length, offset);
      if (length === 0) return;
      offset += length;
      const lines = (rest + buffer.toString('utf8', 0, length)).split('\n');
      rest = lines.pop() ?? '';
      for (const line of lines) if (open) onLine(line);
    }
  };
  const watcher = watch(path, drain);
  const stop = (): void => {
    if (!open) return;
    open = false;
    watcher.close();
    closeSync(fd);
  };
  drain();
  return stop;
}

/** Resolves with the first line that matches; rejects after `timeoutMs`, with the last lines seen. */
export function untilLine(
  path: string,
  pattern: RegExp,
  timeoutMs: number,
): Promise<{ readonly line: string; readonly atMs: number }> {
  return new Promise((resolve, reject) => {
    const seen: string[] = [];
    let done = false;
    let stop = (): void => {};
    const timer = setTimeout(() => {
      done = true;
      stop();
      reject(new Error(`${path}: no line like ${pattern} within ${timeoutMs} ms; last lines:\n${seen.join('\n')}`));
    }, timeoutMs);
    stop = followFile(path, (line) => {
      if (done) return;
      seen.push(line);
      if (seen.length > 10) seen.shift();
      if (!pattern.test(line)) return;
      done = true;
      clearTimeout(timer);
      // `stop` is not yet assigned when the line was there from the start
      queueMicrotask(() => stop());
      resolve({ line, atMs: Date.now() });
    });
  });
}

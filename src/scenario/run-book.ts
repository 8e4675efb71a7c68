import type { CopyRun } from './types.ts';

/** A copy that shows no sign of life for this long is taken for dead from its last sign on, until it shows another. */
export const SILENCE_MS = 1_000;

interface OpenRun {
  readonly task: string;
  readonly slot: number;
  readonly generation: string;
  readonly node: number;
  readonly copy: string;
  readonly spans: { fromMs: number; toMs: number }[];
  /** Known end: seen, or the machine's power was cut. */
  endedAtMs: number | null;
  /** True: lives until told otherwise (engine events); false: lives while it is heard (heartbeat lines). */
  readonly lasting: boolean;
}

export type RunIdentity = Pick<CopyRun, 'task' | 'slot' | 'generation' | 'node' | 'copy'>;

/** The witnesses' notes, put together. */
export class RunBook {
  readonly #runs = new Map<string, OpenRun>();
  readonly #diedAt = new Map<number, number>();

  /** A heartbeat. */
  seen(id: RunIdentity, atMs: number): void {
    const run = this.#open(id, atMs, false);
    const last = run.spans.at(-1);
    if (last && atMs - last.toMs <= SILENCE_MS) last.toMs = Math.max(last.toMs, atMs);
    else run.spans.push({ fromMs: atMs, toMs: atMs });
    // what a dead machine wrote before it died may be read after
    const wasAlive = atMs > (this.#diedAt.get(id.node) ?? Number.NEGATIVE_INFINITY);
    run.endedAtMs = wasAlive ? null : Math.max(run.endedAtMs ?? atMs, atMs);
  }

  /** It runs from now on, until `ended` or `nodeDied`. */
  started(id: RunIdentity, atMs: number): void {
    this.#open(id, atMs, true);
  }

  ended(node: number, copy: string, atMs: number): void {
    const run = this.#runs.get(`${node} ${copy}`);
    if (!run || run.endedAtMs !== null) return;
    run.endedAtMs = atMs;
    const last = run.spans.at(-1);
    if (last) last.toMs = Math.max(last.fromMs, atMs);
  }

  /** Power cut: nothing on it lives after `atMs`. */
  nodeDied(node: number, atMs: number): void {
    this.#diedAt.set(node, atMs);
    for (const run of this.#runs.values()) {
      if (run.node !== node || run.endedAtMs !== null) continue;
      const last = run.spans.at(-1);
      run.endedAtMs = run.lasting ? atMs : Math.min(atMs, last?.toMs ?? atMs);
      if (run.lasting && last) last.toMs = Math.max(last.fromMs, atMs);
    }
  }

  /** Copies believed to live on a node. */
  living(node: number): readonly string[] {
    return [...this.#runs.values()].filter((run) => run.node === node && run.endedAtMs === null).map((run) => run.copy);
  }

  list(nowMs: number): readonly CopyRun[] {
    return [...this.#runs.values()].map((run) => {
      const heard = run.spans.at(-1)?.toMs ?? nowMs;
      const silent = !run.lasting && run.endedAtMs === null && nowMs - heard > SILENCE_MS;
      const spans = run.spans.map((span) => ({ ...span }));
      const last = spans.at(-1);
      if (run.lasting && run.endedAtMs === null && last) last.toMs = Math.max(last.fromMs, nowMs);
      const { task, slot, generation, node, copy } = run;
      return { task, slot, generation, node, copy, spans, endedAtMs: silent ? heard : run.endedAtMs };
    });
  }

  #open(id: RunIdentity, atMs: number, lasting: boolean): OpenRun {
    const key = `${id.node} ${id.copy}`;
    const known = this.#runs.get(key);
    if (known) return known;
    const run: OpenRun = { ...id, spans: [{ fromMs: atMs, toMs: atMs }], endedAtMs: null, lasting };
    this.#runs.set(key, run);
    return run;
  }
}

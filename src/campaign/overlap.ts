// What the copies' own ticks prove. Pure. Times are boot-time milliseconds of the one kernel that all hosts share.

export interface Span {
  readonly fromMs: number;
  readonly toMs: number;
}

/** One copy by its own ticks. Between two spans it was silent for long: stopped with its host, or starved of CPU. */
export interface CopyLife {
  readonly task: string;
  readonly slot: number;
  readonly generation: string;
  readonly host: number;
  /** Unique per host. */
  readonly copy: string;
  readonly spans: readonly Span[];
}

/** From the order to freeze a host until the order to thaw it. */
export interface Freeze extends Span {
  readonly host: number;
}

export interface Overlap {
  readonly task: string;
  readonly slot: number;
  readonly a: string;
  readonly b: string;
  readonly fromMs: number;
  readonly toMs: number;
  /** One of the two had just been thawed: the documented exception. */
  readonly afterThaw: boolean;
}

/** Boot's first tick after a thaw, and its kill, with room to spare. */
const THAW_GRACE_MS = 2_000;

export const startOf = (life: CopyLife): number => life.spans[0]?.fromMs ?? 0;
export const endOf = (life: CopyLife): number => life.spans.at(-1)?.toMs ?? 0;
export const slotOf = (life: Pick<CopyLife, 'task' | 'slot'>): string => `${life.task}[${life.slot}]`;

/**
 * A copy lives from its first tick to its last: a silent one may only have been waiting for the CPU. Only while its host was
 * frozen it did not run. (It also lives a moment before its first tick and up to 30 ms after its last one.)
 */
export function livingSpans(life: CopyLife, freezes: readonly Freeze[]): readonly Span[] {
  const merged: { fromMs: number; toMs: number }[] = [];
  for (const span of life.spans) {
    const last = merged.at(-1);
    const stopped =
      last !== undefined && freezes.some((f) => f.host === life.host && f.fromMs <= span.fromMs && f.toMs >= last.toMs);
    if (last && !stopped) last.toMs = span.toMs;
    else merged.push({ ...span });
  }
  return merged;
}

function bySlot(lives: readonly CopyLife[]): ReadonlyMap<string, readonly CopyLife[]> {
  const map = new Map<string, CopyLife[]>();
  for (const life of lives) {
    const list = map.get(slotOf(life)) ?? [];
    list.push(life);
    map.set(slotOf(life), list);
  }
  for (const list of map.values()) list.sort((x, y) => startOf(x) - startOf(y));
  return map;
}

/** Every time in which two copies of one slot were alive. Give it the copies of exclusive tasks. */
export function overlapsOf(lives: readonly CopyLife[], freezes: readonly Freeze[]): readonly Overlap[] {
  const found: Overlap[] = [];
  for (const copies of bySlot(lives).values()) {
    copies.forEach((a, index) => {
      for (const b of copies.slice(index + 1)) found.push(...overlapsOfTwo(a, b, freezes));
    });
  }
  return found;
}

function overlapsOfTwo(a: CopyLife, b: CopyLife, freezes: readonly Freeze[]): readonly Overlap[] {
  if (startOf(b) > endOf(a) || startOf(a) > endOf(b)) return [];
  const found: Overlap[] = [];
  livingSpans(a, freezes).forEach((one, i) => {
    livingSpans(b, freezes).forEach((other, j) => {
      const fromMs = Math.max(one.fromMs, other.fromMs);
      const toMs = Math.min(one.toMs, other.toMs);
      if (fromMs > toMs) return;
      // Only the first moments of a span that began with a thaw.
      const thawed = (span: Span, at: number): boolean => at > 0 && toMs - span.fromMs <= THAW_GRACE_MS;
      found.push({
        task: a.task,
        slot: a.slot,
        a: `${a.generation} on host ${a.host}`,
        b: `${b.generation} on host ${b.host}`,
        fromMs,
        // Ticks 10 ms apart on the clock can be the same moment: a shared tick counts as one.
        toMs: Math.max(toMs, fromMs + 10),
        afterThaw: thawed(one, i) || thawed(other, j),
      });
    });
  });
  return found;
}

export const totalMs = (overlaps: readonly Overlap[]): number =>
  overlaps.reduce((sum, one) => sum + one.toMs - one.fromMs, 0);

/**
 * Shortest time from a copy's last tick to the first tick of the next one of its slot on another host. What a thawed copy
 * still ticks is left out.
 */
export function closestHandover(lives: readonly CopyLife[], freezes: readonly Freeze[]): number | undefined {
  const gaps: number[] = [];
  for (const copies of bySlot(lives).values()) {
    for (let i = 1; i < copies.length; i += 1) {
      const [before, after] = [copies[i - 1], copies[i]];
      if (!before || !after || before.host === after.host) continue;
      const last = livingSpans(before, freezes).findLast((span) => span.fromMs <= startOf(after));
      if (last) gaps.push(startOf(after) - last.toMs);
    }
  }
  return gaps.length === 0 ? undefined : Math.min(...gaps);
}

/** Something done to hosts that may end the copies there. */
export interface Strike {
  readonly hosts: readonly number[];
  readonly atMs: number;
  /** What happens later is another strike's. */
  readonly untilMs: number;
  /** True: the copies go on at first (agent, boot or engine killed), and are missed from their own end on. */
  readonly copiesLiveOn: boolean;
}

export interface Recovery {
  readonly slot: string;
  readonly elapsedMs: number;
}

/** From a strike to the first tick of the copy that replaces one of a struck host. */
export function recoveriesOf(lives: readonly CopyLife[], strikes: readonly Strike[]): readonly Recovery[] {
  const slots = bySlot(lives);
  return strikes.flatMap((strike) =>
    [...slots].flatMap(([slot, copies]) => {
      const old = copies
        .filter((life) => strike.hosts.includes(life.host))
        .find((life) => startOf(life) <= strike.atMs && endOf(life) >= strike.atMs - THAW_GRACE_MS);
      const next = copies.find((life) => startOf(life) > strike.atMs && startOf(life) < strike.untilMs);
      if (!old || !next) return [];
      const gone = strike.copiesLiveOn ? Math.max(strike.atMs, Math.min(endOf(old), startOf(next))) : strike.atMs;
      return [{ slot, elapsedMs: startOf(next) - gone }];
    }),
  );
}

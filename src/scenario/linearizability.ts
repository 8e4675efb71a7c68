// Is there one order of all operations that fits both their times and what they answered? The search of Wing and Gong (1993)
// with Lowe's memory of configurations (Lowe 2017, 'Testing for linearizability', algorithm in section 5), on a linked list of
// calls and returns. Departure: an operation whose outcome is unknown (its client got no answer) may take effect at any time
// after its call, or never.

/** One operation as its client saw it. Times are of one clock; only their order counts. */
export interface Operation<In, Out> {
  readonly calledAt: number;
  /** null: no answer ever came. */
  readonly returnedAt: number | null;
  readonly input: In;
  /** undefined with `returnedAt` null. */
  readonly output: Out | undefined;
}

/** The object as it would be if one client used it at a time. */
export interface SequentialModel<State, In, Out> {
  readonly initial: State;
  /** The state after `input` when it may answer `output` (undefined: whatever it answers); undefined: it may not. */
  step(state: State, input: In, output: Out | undefined): { readonly state: State } | undefined;
  /** Equal states, equal texts. */
  textOf(state: State): string;
}

export type Verdict<In, Out> =
  | { readonly kind: 'linearizable' }
  /** No order fits. `stuckAt`: the answer that no order found could explain, of the order that went furthest. */
  | { readonly kind: 'not-linearizable'; readonly stuckAt: Operation<In, Out>; readonly explained: number }
  /** Given up after `STEPS` steps: the history has too many operations at once. */
  | { readonly kind: 'undecided' };

const STEPS = 20_000_000;

interface Node<In, Out> {
  readonly op: Operation<In, Out>;
  readonly bit: bigint;
  readonly isCall: boolean;
  /** Of a call: its return, unless none came. */
  readonly end: Node<In, Out> | undefined;
  before: Node<In, Out> | undefined;
  after: Node<In, Out> | undefined;
}

/** The operations must be of one object: objects are checked one by one (locality, Herlihy and Wing 1990, theorem 1). */
export function checkLinearizable<State, In, Out>(
  model: SequentialModel<State, In, Out>,
  history: readonly Operation<In, Out>[],
): Verdict<In, Out> {
  const head = linked(history);
  let left = history.filter((op) => op.returnedAt !== null).length;
  const seen = new Set<string>();
  const taken: { readonly node: Node<In, Out>; readonly state: State }[] = [];
  let state = model.initial;
  let done = 0n;
  let furthest = -1;
  let stuckAt: Operation<In, Out> | undefined;
  let at = head.after;
  for (let steps = 0; left > 0; steps++) {
    if (steps > STEPS) return { kind: 'undecided' };
    if (at?.isCall) {
      const next = model.step(state, at.op.input, at.op.output);
      const key = next && `${done | at.bit} ${model.textOf(next.state)}`;
      if (next === undefined || key === undefined || seen.has(key)) {
        at = at.after;
        continue;
      }
      seen.add(key);
      taken.push({ node: at, state });
      state = next.state;
      done |= at.bit;
      if (at.end) left -= 1;
      lift(at);
      at = head.after;
      continue;
    }
    // A return whose call was not explained, or the end of the list: take the last choice back.
    if (at !== undefined && taken.length > furthest) {
      furthest = taken.length;
      stuckAt = at.op;
    }
    const last = taken.pop();
    if (last === undefined) {
      const op = stuckAt ?? (history[0] as Operation<In, Out>);
      return { kind: 'not-linearizable', stuckAt: op, explained: Math.max(0, furthest) };
    }
    state = last.state;
    done &= ~last.node.bit;
    if (last.node.end) left += 1;
    unlift(last.node);
    at = last.node.after;
  }
  return { kind: 'linearizable' };
}

/** Calls and returns in the order of their times; at the same time calls come first, as they may have overlapped. */
function linked<In, Out>(history: readonly Operation<In, Out>[]): Node<In, Out> {
  const nodes = history.flatMap((op, index) => {
    const base = { op, bit: 1n << BigInt(index), before: undefined, after: undefined };
    if (op.returnedAt === null) return [{ ...base, isCall: true, end: undefined }];
    const end: Node<In, Out> = { ...base, isCall: false, end: undefined };
    return [{ ...base, isCall: true, end }, end];
  });
  const timeOf = (node: Node<In, Out>): number => (node.isCall ? node.op.calledAt : (node.op.returnedAt ?? 0));
  nodes.sort((a, b) => timeOf(a) - timeOf(b) || Number(b.isCall) - Number(a.isCall));
  const head = { isCall: false, bit: 0n, after: undefined } as unknown as Node<In, Out>;
  let last = head;
  for (const node of nodes) {
    node.before = last;
    last.after = node;
    last = node;
  }
  return head;
}

function unlink(node: Node<unknown, unknown>): void {
  if (node.before) node.before.after = node.after;
  if (node.after) node.after.before = node.before;
}
function relink(node: Node<unknown, unknown>): void {
  if (node.before) node.before.after = node;
  if (node.after) node.after.before = node;
}
function lift(node: Node<never, never> | Node<unknown, unknown>): void {
  unlink(node as Node<unknown, unknown>);
  if (node.end) unlink(node.end as Node<unknown, unknown>);
}
/** Undoes `lift`; the last one lifted goes back first. */
function unlift(node: Node<never, never> | Node<unknown, unknown>): void {
  if (node.end) relink(node.end as Node<unknown, unknown>);
  relink(node as Node<unknown, unknown>);
}

// ---- models ------------------------------------------------------------------------------------------------------------

export type RegisterInput = { readonly do: 'write'; readonly value: string } | { readonly do: 'read' };

/** One setting: reads answer the last write. */
export const REGISTER: SequentialModel<string, RegisterInput, string> = {
  initial: '',
  step: (state, input, output) => {
    if (input.do === 'write') return { state: input.value };
    return output === undefined || output === state ? { state } : undefined;
  },
  textOf: (state) => state,
};

/**
 * Unanswered writes that no read answered constrain nothing (any order that holds with one of them holds without it), but each
 * doubles what the search has to try.
 */
export function withoutUnseen(
  history: readonly Operation<RegisterInput, string>[],
): readonly Operation<RegisterInput, string>[] {
  const seen = new Set(history.filter((op) => op.input.do === 'read').map((op) => op.output));
  return history.filter((op) => op.returnedAt !== null || (op.input.do === 'write' && seen.has(op.input.value)));
}

export type NameInput = { readonly do: 'claim'; readonly by: string } | { readonly do: 'free' };

/** One name of a task: borne by one at a time. A repeated claim of the bearer is answered as the first. */
export const NAME: SequentialModel<string, NameInput, 'ok' | 'taken'> = {
  initial: '',
  step: (state, input, output) => {
    if (input.do === 'free') return output === 'taken' ? undefined : { state: '' };
    const free = state === '' || state === input.by;
    if (output !== undefined && (output === 'ok') !== free) return undefined;
    return { state: free ? input.by : state };
  },
  textOf: (state) => state,
};

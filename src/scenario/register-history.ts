import type { Rng } from '../model/random.ts';
import type { Operation, RegisterInput } from './linearizability.ts';

/** Someone who uses settings through one peer. Both reject when no answer came, or none that can be relied on. */
export interface SettingsUser {
  write(key: string, value: string): Promise<void>;
  /** As new as every commit before the call. */
  read(key: string): Promise<string>;
  /** After a failure: resolves when the peer answers again. */
  ready(): Promise<void>;
}

export interface RecordOptions {
  readonly users: readonly SettingsUser[];
  readonly keys: readonly string[];
  /** In all. */
  readonly operations: number;
  readonly rng: Rng;
  /** Called after every `faultEvery` answers or failures; its promise is not waited for until the end. */
  readonly faultEvery: number;
  readonly fault: () => Promise<void>;
}

export interface RecordedHistory {
  /** By key: each setting is an object of its own. */
  readonly byKey: ReadonlyMap<string, readonly Operation<RegisterInput, string>[]>;
  readonly answered: number;
  readonly unanswered: number;
  readonly faults: number;
}

/** Every user does one operation after the other, on any key; writes are all different. */
export async function recordHistory(options: RecordOptions): Promise<RecordedHistory> {
  const { users, keys, rng } = options;
  const byKey = new Map<string, Operation<RegisterInput, string>[]>(keys.map((key) => [key, []]));
  const faults: Promise<void>[] = [];
  let begun = 0;
  let ended = 0;
  let unanswered = 0;
  const note = (key: string, op: Operation<RegisterInput, string>): void => void byKey.get(key)?.push(op);
  const end = (): void => {
    ended += 1;
    if (ended % options.faultEvery === 0 && ended < options.operations) faults.push(options.fault());
  };
  const one = async (user: SettingsUser, value: string): Promise<void> => {
    const key = rng.pick(keys) as string;
    const reads = rng.int(0, 1) === 0;
    const input: RegisterInput = reads ? { do: 'read' } : { do: 'write', value };
    const calledAt = performance.now();
    try {
      const output = reads ? await user.read(key) : await user.write(key, value).then(() => 'ok');
      note(key, { calledAt, returnedAt: performance.now(), input, output });
    } catch {
      unanswered += 1;
      // A read without an answer says nothing; a write may have happened, or may yet.
      if (!reads) note(key, { calledAt, returnedAt: null, input, output: undefined });
      end();
      return await user.ready();
    }
    end();
  };
  await Promise.all(
    users.map(async (user, index) => {
      while (begun < options.operations) await one(user, `${index}-${begun++}`);
    }),
  );
  await Promise.all(faults);
  return { byKey, answered: ended - unanswered, unanswered, faults: faults.length };
}

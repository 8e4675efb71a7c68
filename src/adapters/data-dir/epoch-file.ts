import { join } from 'node:path';
import { type Static, Type } from 'typebox';
import { Compile } from 'typebox/compile';
import { TaskOrgError } from '../../model/errors.ts';
import { readOptional, writeWhole } from './data-dir.ts';

// Which epoch of its cluster a peer is of, once there was a recovery, and what it is to do about one when it next starts.

const Known = Type.Array(Type.Object({ id: Type.String(), addresses: Type.Array(Type.String()) }));
const EpochFile = Type.Union([
  /** Of this epoch. `incarnation`: higher than any the peer used before its store was set aside. */
  Type.Object({
    step: Type.Literal('member'),
    id: Type.String({ minLength: 1, maxLength: 128 }),
    incarnation: Type.Integer({ minimum: 0 }),
    peers: Known,
  }),
  /** Set the store aside, then be a member. */
  Type.Object({
    step: Type.Literal('rejoin'),
    id: Type.String({ minLength: 1, maxLength: 128 }),
    incarnation: Type.Integer({ minimum: 0 }),
    peers: Known,
  }),
  /** `recover`: make the log the beginning of a new epoch; `lead`: that is done, its first entry is to be committed. */
  Type.Object({
    step: Type.Union([Type.Literal('recover'), Type.Literal('lead')]),
    id: Type.String({ minLength: 1, maxLength: 128 }),
    number: Type.Integer({ minimum: 2 }),
    voters: Type.Array(Type.String()),
    dead: Type.Array(Type.String()),
  }),
]);
export type EpochFile = Static<typeof EpochFile>;
const validator = Compile(EpochFile);

const FILE = 'epoch.json';

/** Undefined: the cluster was never recovered. Throws data_dir_unusable when the file cannot be read or understood. */
export async function loadEpoch(dataDir: string): Promise<EpochFile | undefined> {
  const path = join(dataDir, FILE);
  const bytes = await readOptional(path);
  if (bytes === undefined) return undefined;
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder().decode(bytes));
  } catch {
    value = undefined;
  }
  if (validator.Check(value)) return value;
  throw new TaskOrgError(
    'data_dir_unusable',
    `${path} is damaged: it says which epoch of the cluster this peer is of`,
    {
      hint: 'restore it, or remove the data directory and join again with a new token (task-org token)',
    },
  );
}

export async function saveEpoch(dataDir: string, epoch: EpochFile): Promise<void> {
  await writeWhole(join(dataDir, FILE), new TextEncoder().encode(`${JSON.stringify(epoch)}\n`));
}

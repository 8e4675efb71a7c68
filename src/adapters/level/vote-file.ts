import { close, constants, fdatasync, fstat, open, read, write } from 'node:fs';
import { open as openHandle } from 'node:fs/promises';
import { dirname } from 'node:path';
import { promisify } from 'node:util';
import { crc32 } from 'node:zlib';
import type { NodeId } from '../../model/ids.ts';

// The two-slot vote file. A LevelDB whose last file was cut opens without a word, and a peer that forgot a vote or an
// entry it acknowledged breaks Raft (Ongaro & Ousterhout 2014, section 5.2: "each server will vote for at most one
// candidate in a given term"; figure 2: votedFor and log[] are updated on stable storage before responding). So what was
// promised last stands a second time, in a file that LevelDB does not touch. Slots are written in turn, each with its own
// checksum, so a write cut short costs only the slot it was overwriting.

/** What this peer has promised: its vote, and how far its log is durable. */
export interface VoteRecord {
  /** Number of the change; rises by one with every batch that changes vote or log. 0 = nothing promised yet. */
  readonly sequence: number;
  /** The log was found short or damaged and the peer has not been re-admitted since: it must not vote. */
  readonly lost: boolean;
  readonly term: number;
  readonly votedFor: NodeId | null;
  readonly lastIndex: number;
  readonly lastTerm: number;
  /** SHA-256 of the last entry as stored; zeros when that entry is in the snapshot. */
  readonly lastHash: Uint8Array;
}

export const NO_HASH: Uint8Array = new Uint8Array(32);
export const NOTHING_PROMISED: VoteRecord = {
  sequence: 0,
  lost: false,
  term: 0,
  votedFor: null,
  lastIndex: 0,
  lastTerm: 0,
  lastHash: NO_HASH,
};

const MAGIC = 0x31564f54; // 'TOV1'
const SLOT_BYTES = 512;
/** Slots stand on pages of their own, so that one torn page cannot take both. */
const SLOT_DISTANCE = 4096;
const FILE_BYTES = 2 * SLOT_DISTANCE;
const MAX_NAME_BYTES = 200;

export function encodeVote(record: VoteRecord): Buffer {
  const out = Buffer.alloc(SLOT_BYTES);
  const name = Buffer.from(record.votedFor ?? '');
  if (name.length > MAX_NAME_BYTES) throw new RangeError('votedFor is too long');
  out.writeUInt32LE(MAGIC, 0);
  out.writeUInt8(record.lost ? 1 : 0, 4);
  out.writeUInt8(name.length, 5);
  [record.sequence, record.term, record.lastIndex, record.lastTerm].forEach((n, i) => {
    out.writeBigUInt64LE(BigInt(n), 8 + 8 * i);
  });
  out.set(record.lastHash, 40);
  out.set(name, 72);
  out.writeUInt32LE(crc32(out.subarray(0, SLOT_BYTES - 4)), SLOT_BYTES - 4);
  return out;
}

export function decodeVote(bytes: Uint8Array): VoteRecord | undefined {
  const slot = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (slot.length < SLOT_BYTES || slot.readUInt32LE(0) !== MAGIC) return undefined;
  if (slot.readUInt32LE(SLOT_BYTES - 4) !== crc32(slot.subarray(0, SLOT_BYTES - 4))) return undefined;
  const nameLength = slot.readUInt8(5);
  const number = (i: number): number => Number(slot.readBigUInt64LE(8 + 8 * i));
  return {
    sequence: number(0),
    lost: slot.readUInt8(4) === 1,
    term: number(1),
    lastIndex: number(2),
    lastTerm: number(3),
    lastHash: new Uint8Array(slot.subarray(40, 72)),
    votedFor: nameLength === 0 ? null : (slot.toString('utf8', 72, 72 + nameLength) as NodeId),
  };
}

interface Waiter {
  readonly sequence: number;
  readonly resolve: () => void;
  readonly reject: (error: unknown) => void;
}

/** One descriptor, preallocated and opened with O_DSYNC: a promise is one write and no metadata. */
export class VoteFile {
  readonly #fd: number;
  #nextSlot: number;
  #written: number;
  #pending: VoteRecord | undefined;
  #waiters: Waiter[] = [];
  #busy = false;
  /** The newest valid record found when the file was opened; undefined when there was none. */
  readonly found: VoteRecord | undefined;
  /** True when the file had to be made. */
  readonly created: boolean;

  private constructor(fd: number, slots: readonly (VoteRecord | undefined)[], created: boolean) {
    const [a, b] = slots;
    this.#fd = fd;
    this.created = created;
    this.found = (a?.sequence ?? -1) >= (b?.sequence ?? -1) ? a : b;
    this.#nextSlot = this.found === a ? 1 : 0;
    this.#written = this.found?.sequence ?? -1;
  }

  static async open(path: string): Promise<VoteFile> {
    const fd = await promisify(open)(path, constants.O_RDWR | constants.O_CREAT | constants.O_DSYNC, 0o600);
    try {
      const created = (await promisify(fstat)(fd)).size === 0;
      if (created) {
        await promisify(write)(fd, Buffer.alloc(FILE_BYTES), 0, FILE_BYTES, 0);
        await promisify(fdatasync)(fd);
        // The name of a new file is durable only once its directory is.
        await using directory = await openHandle(dirname(path), 'r');
        await directory.sync();
      }
      const image = Buffer.alloc(FILE_BYTES);
      await promisify(read)(fd, image, 0, FILE_BYTES, 0);
      const slots = [0, SLOT_DISTANCE].map((at) => decodeVote(image.subarray(at, at + SLOT_BYTES)));
      return new VoteFile(fd, slots, created);
    } catch (error) {
      await promisify(close)(fd).catch(() => undefined);
      throw error;
    }
  }

  /** Resolves when this record, or a later one, is durable. Records asked for during a write are merged: the newest stands for all. */
  write(record: VoteRecord): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#pending = record;
      this.#waiters.push({ sequence: record.sequence, resolve, reject });
      if (!this.#busy) this.#next();
    });
  }

  #next(): void {
    const record = this.#pending;
    if (record === undefined) {
      this.#busy = false;
      return;
    }
    this.#busy = true;
    this.#pending = undefined;
    write(this.#fd, encodeVote(record), 0, SLOT_BYTES, this.#nextSlot * SLOT_DISTANCE, (error, bytes) => {
      if (error !== null || bytes !== SLOT_BYTES) {
        const waiters = this.#waiters;
        this.#waiters = [];
        for (const waiter of waiters) waiter.reject(error ?? new Error(`short write of the vote file: ${bytes} bytes`));
        return;
      }
      this.#written = record.sequence;
      this.#nextSlot = 1 - this.#nextSlot;
      const done = this.#waiters.filter((w) => w.sequence <= record.sequence);
      this.#waiters = this.#waiters.filter((w) => w.sequence > record.sequence);
      for (const waiter of done) waiter.resolve();
      this.#next();
    });
  }

  /** Sequence of the newest record known durable; -1 when there is none. */
  get durable(): number {
    return this.#written;
  }

  close(): Promise<void> {
    return promisify(close)(this.#fd);
  }
}

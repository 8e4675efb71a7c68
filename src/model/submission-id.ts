import { createHash } from 'node:crypto';
import { encode } from '@ipld/dag-cbor';
import { CID } from 'multiformats/cid';
import { create } from 'multiformats/hashes/digest';
import { type TaskId, taskId, type WallMs } from './ids.ts';
import type { TaskSpec } from './task-spec.ts';

const SHA2_256 = 0x12;
const DAG_CBOR = 0x71;

/** Content id of (spec, nonce, expiry): the same submission has the same id wherever it is published. */
export function submissionId(spec: TaskSpec, nonce: string, expiresAt: WallMs): TaskId {
  const digest = createHash('sha256')
    .update(encode([spec, nonce, expiresAt]))
    .digest();
  return taskId(CID.createV1(DAG_CBOR, create(SHA2_256, digest)).toString());
}

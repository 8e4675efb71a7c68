import { formatGeneration, type Generation, parseGeneration } from '../../model/generation.ts';
import { type TaskId, taskId } from '../../model/ids.ts';
import type { CopyId } from './types.ts';

export interface CopyName {
  readonly taskId: TaskId;
  readonly slot: number;
  readonly generation: Generation;
  readonly specVersion: number;
}

/** `TASKID.SLOT.GENERATION.SPECVERSION`: the name of a copy in labels, boot's registry and directories. */
export const formatCopyId = (c: CopyName): CopyId =>
  `${c.taskId}.${c.slot}.${formatGeneration(c.generation)}.${c.specVersion}`;

/** Inverse of formatCopyId; undefined when the text is not a copy's name. Task ids may hold dots, so it reads from the end. */
export function parseCopyId(text: string): CopyName | undefined {
  const m =
    /^([A-Za-z0-9_.-]{1,64})\.(\d{1,5})\.(\d{1,9}\.\d{1,15}(?:~\d{1,9}@[A-Za-z0-9_.-]{1,128})?)\.(\d{1,15})$/.exec(
      text,
    );
  const generation = parseGeneration(m?.[3] ?? '');
  if (m === null || generation === undefined) return undefined;
  return { taskId: taskId(m[1] as string), slot: Number(m[2]), generation, specVersion: Number(m[4]) };
}

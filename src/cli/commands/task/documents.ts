import { readFile } from 'node:fs/promises';
import { TaskOrgError } from '../../../model/errors.ts';
import { parseTaskDocuments } from '../../../model/task-document-text.ts';

/** The documents of a file (`-` = standard input), as plain values the peer will check; syntax errors name the line. */
export async function readDocuments(path: string): Promise<readonly unknown[]> {
  const shown = path === '-' ? 'standard input' : path;
  const text =
    path === '-'
      ? await stdin()
      : await readFile(path, 'utf8').catch((cause: unknown) => {
          throw new TaskOrgError(
            'invalid_input',
            `cannot read ${path}: ${(cause as NodeJS.ErrnoException).code === 'ENOENT' ? 'there is no such file' : (cause as Error).message}`,
          );
        });
  const parsed = parseTaskDocuments(text, path.endsWith('.json') ? 'json' : 'yaml', shown);
  if (!parsed.ok)
    throw new TaskOrgError('invalid_input', `${shown} is not as expected; nothing was submitted`, {
      details: parsed.issues,
    });
  return parsed.documents;
}

async function stdin(): Promise<string> {
  let text = '';
  process.stdin.setEncoding('utf8');
  for await (const chunk of process.stdin) text += chunk as string;
  return text;
}

import type { FieldIssue } from './errors.ts';
import { joinPath } from './schema-check.ts';
import { parseTaskDocument } from './task-document.ts';
import type { TaskSpec } from './task-spec.ts';
import { readSource } from './yaml-source.ts';

// Task files: YAML with one or more documents (`---`), or JSON; a list at the top holds several tasks.

export interface LocatedIssue extends FieldIssue {
  /** Line of the file, from 1. The message ends with it already. */
  readonly line: number;
}

export type TaskDocumentsResult =
  /** `documents`: the same tasks as they were written, for a peer that checks them itself. */
  | { readonly ok: true; readonly specs: readonly TaskSpec[]; readonly documents: readonly unknown[] }
  | { readonly ok: false; readonly issues: readonly LocatedIssue[] };

/** All tasks of a file, or everything that is wrong in it. `source` is the file's name, for the messages. Never throws. */
export function parseTaskDocuments(text: string, format: 'yaml' | 'json', source?: string): TaskDocumentsResult {
  const place = (line: number): string => (source === undefined ? `line ${line}` : `${source}:${line}`);
  const read = readSource(text, format);
  if (!read.ok)
    return {
      ok: false,
      issues: read.errors.map((e) => ({
        path: '',
        line: e.line,
        message: `${e.message} (${place(e.line)}, column ${e.column})`,
      })),
    };
  const specs: TaskSpec[] = [];
  const documents: unknown[] = [];
  const issues: LocatedIssue[] = [];
  const firstUse = new Map<string, number>();
  for (const document of read.documents) {
    const list = Array.isArray(document.value) ? document.value : undefined;
    for (const [i, value] of (list ?? [document.value]).entries()) {
      const base = list === undefined ? '' : `[${i}]`;
      const result = parseTaskDocument(value);
      const located = result.ok ? [] : result.issues;
      for (const issue of located) {
        const path = base === '' ? issue.path : issue.path === '' ? base : `${base}.${issue.path}`;
        const line = document.lineOf(path);
        issues.push({ path, line, message: `${issue.message} (${place(line)})` });
      }
      if (!result.ok) continue;
      const line = document.lineOf(joinPath(base, 'name'));
      const earlier = firstUse.get(result.spec.name);
      if (earlier !== undefined)
        issues.push({
          path: joinPath(base, 'name'),
          line,
          message: `the name ${result.spec.name} is given twice, first at ${place(earlier)} (${place(line)})`,
        });
      firstUse.set(result.spec.name, earlier ?? line);
      specs.push(result.spec);
      documents.push(value);
    }
  }
  if (specs.length === 0 && issues.length === 0)
    issues.push({ path: '', line: 1, message: `holds no task (${place(1)})` });
  return issues.length === 0 ? { ok: true, specs, documents } : { ok: false, issues };
}

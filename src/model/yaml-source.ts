import { type Document, isMap, isScalar, isSeq, LineCounter, parseAllDocuments } from 'yaml';

// YAML (and JSON, which is YAML) read with the line of everything kept, so that a message can say where.

export interface SourceDocument {
  readonly value: unknown;
  /** Line, from 1, of the value at a path such as `ports[0].container`, or of the nearest thing around it. */
  lineOf(path: string): number;
}

export interface SourceError {
  readonly line: number;
  readonly column: number;
  readonly message: string;
}

export type SourceResult =
  | { readonly ok: true; readonly documents: readonly SourceDocument[] }
  | { readonly ok: false; readonly errors: readonly SourceError[] };

/** Longest text read, characters. */
export const MAX_SOURCE_CHARS = 4 * 1024 * 1024;
const MAX_ERRORS = 20;

/** Empty documents (a trailing `---`) are left out. Aliases are followed at most 100 times, so a small file stays small. */
export function readSource(text: string, format: 'yaml' | 'json'): SourceResult {
  if (text.length > MAX_SOURCE_CHARS) return failure(1, 1, `is longer than ${MAX_SOURCE_CHARS / 1024 / 1024} MiB`);
  if (format === 'json') {
    try {
      JSON.parse(text);
    } catch (error) {
      return jsonFailure(text, error instanceof Error ? error.message : String(error));
    }
  }
  const lines = new LineCounter();
  const parsed = parseAllDocuments(text, {
    lineCounter: lines,
    prettyErrors: false,
    version: '1.2',
    logLevel: 'silent',
  });
  const documents: Document[] = 'empty' in parsed ? [] : [...parsed];
  const errors = documents.flatMap((d) => d.errors).slice(0, MAX_ERRORS);
  if (errors.length > 0) {
    return {
      ok: false,
      errors: errors.map((e) => {
        const { line, col } = lines.linePos(e.pos[0]);
        return { line, column: col, message: e.message };
      }),
    };
  }
  try {
    return {
      ok: true,
      documents: documents
        .filter((d) => !isEmpty(d))
        .map((d) => ({ value: d.toJS() as unknown, lineOf: (path) => lineOf(d, lines, path) })),
    };
  } catch (error) {
    return failure(1, 1, error instanceof Error ? error.message : String(error));
  }
}

function failure(line: number, column: number, message: string): SourceResult {
  return { ok: false, errors: [{ line, column, message }] };
}

function jsonFailure(text: string, message: string): SourceResult {
  const before = text.slice(0, jsonErrorAt(text, message));
  return failure(
    before.split('\n').length,
    before.length - before.lastIndexOf('\n'),
    message.replace(/ \(line \d+ column \d+\)$/, ''),
  );
}

/** V8 names the position, or quotes up to ten characters on either side of the one it did not expect. */
function jsonErrorAt(text: string, message: string): number {
  const position = /position (\d+)/.exec(message);
  if (position) return Number(position[1]);
  const quoted = /^Unexpected token '(.)', (\.\.\.)?"([\s\S]*)"(?:\.\.\. | )is not valid JSON$/.exec(message);
  if (!quoted) return text.length;
  const [, token = '', cut, excerpt = ''] = quoted;
  const start = Math.max(0, text.indexOf(excerpt));
  return cut === undefined ? Math.max(0, text.indexOf(token)) : start + 10;
}

/** Nothing between two separators, or after the last. */
function isEmpty(doc: Document): boolean {
  const { contents } = doc;
  return contents === null || (isScalar(contents) && contents.value === null && (contents.source ?? '') === '');
}

function lineOf(doc: Document, lines: LineCounter, path: string): number {
  let node: unknown = doc.contents;
  let offset = startOf(node) ?? 0;
  let segments = path.split(/[.[\]]+/).filter((s) => s !== '');
  while (segments.length > 0) {
    let step: { readonly at: unknown; readonly next: unknown; readonly used: number } | undefined;
    if (isMap(node)) {
      // A key may itself hold dots (labels): the longest one that exists is meant.
      for (let n = segments.length; n > 0 && step === undefined; n--) {
        const key = segments.slice(0, n).join('.');
        const pair = node.items.find((p) => isScalar(p.key) && String(p.key.value) === key);
        if (pair) step = { at: pair.key, next: pair.value, used: n };
      }
    } else if (isSeq(node)) {
      const item = node.items[Number(segments[0])];
      if (item !== undefined) step = { at: item, next: item, used: 1 };
    }
    if (step === undefined) break;
    offset = startOf(step.at) ?? offset;
    node = step.next;
    segments = segments.slice(step.used);
  }
  return lines.linePos(offset).line;
}

function startOf(node: unknown): number | undefined {
  return (node as { range?: [number, number, number] | null } | null)?.range?.[0];
}

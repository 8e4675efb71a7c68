/**
 * Splits a command line into words as a POSIX shell does for plain words and quotes; nothing is expanded (no variables,
 * globs or operators). An error names what is open or not supported.
 */
export function shellWords(
  line: string,
): { readonly ok: true; readonly words: string[] } | { readonly ok: false; readonly error: string } {
  const words: string[] = [];
  let word: string | undefined;
  for (let i = 0; i < line.length; i++) {
    const c = line[i] as string;
    if (c === ' ' || c === '\t' || c === '\n') {
      if (word !== undefined) words.push(word);
      word = undefined;
    } else if (c === "'") {
      const end = line.indexOf("'", i + 1);
      if (end < 0) return { ok: false, error: 'a single quote is not closed' };
      word = (word ?? '') + line.slice(i + 1, end);
      i = end;
    } else if (c === '"') {
      const quoted = doubleQuoted(line, i + 1);
      if (quoted === undefined) return { ok: false, error: 'a double quote is not closed' };
      word = (word ?? '') + quoted.text;
      i = quoted.end;
    } else if (c === '\\') {
      if (i + 1 >= line.length) return { ok: false, error: 'it ends in a backslash' };
      i += 1;
      if (line[i] !== '\n') word = (word ?? '') + (line[i] as string);
    } else {
      word = (word ?? '') + c;
    }
  }
  if (word !== undefined) words.push(word);
  return { ok: true, words };
}

function doubleQuoted(line: string, start: number): { readonly text: string; readonly end: number } | undefined {
  let text = '';
  for (let i = start; i < line.length; i++) {
    const c = line[i] as string;
    if (c === '"') return { text, end: i };
    if (c === '\\' && '"\\$`\n'.includes(line[i + 1] ?? 'x')) {
      i += 1;
      if (line[i] !== '\n') text += line[i] as string;
    } else text += c;
  }
  return undefined;
}

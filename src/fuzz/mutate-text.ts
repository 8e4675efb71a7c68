import type { Rng } from '../model/random.ts';

// Breaks text: its characters, its words, its lines and their indentation (YAML), and what makes small files large.

const SCRAPS = [
  '\t',
  '\r\n',
  '\u0000',
  '\ufeff',
  '\u2028',
  '\ud800',
  '"',
  "'",
  '\\',
  '#',
  ': ',
  '- ',
  '? ',
  '| ',
  '>-\n',
  '&a ',
  '*a',
  '<<: *a',
  '!!binary ',
  '!!js/function ',
  '!!set ',
  '%YAML 1.1\n---\n',
  '---\n',
  '...\n',
  '{',
  '}',
  '[',
  ']',
  ',',
  '=',
  '~',
  '@',
  '.',
  '/',
  '-',
  '__proto__',
  'constructor',
  '0',
  '9'.repeat(20),
  '1e999',
  '-1',
  '0x10',
  'null',
  'true',
  'yes',
  '.inf',
  '.nan',
  '2001-01-01',
];

export function mutateText(
  original: string,
  rng: Rng,
  donor: string,
  words: readonly string[],
  hugeChars: number,
): string {
  let text = original;
  const times = rng.next() < 0.5 ? 1 : rng.int(2, 6);
  for (let i = 0; i < times; i++) text = once(text, rng, donor, words);
  return hugeChars > 0 ? huge(text, rng, hugeChars) : text;
}

function once(text: string, rng: Rng, donor: string, words: readonly string[]): string {
  const at = rng.int(0, text.length);
  const [before, after] = [text.slice(0, at), text.slice(at)];
  switch (rng.int(0, 9)) {
    case 0:
      return before + String.fromCharCode(rng.int(32, 126)) + after;
    case 1:
      return before + after.slice(rng.int(1, 4));
    case 2:
      return before + (rng.pick(SCRAPS) as string) + after;
    case 3:
      return before + (rng.pick(words) ?? '') + after;
    case 4:
      return before + donor.slice(rng.int(0, donor.length));
    case 5:
      return before + String.fromCharCode(rng.int(0, 0xffff)) + after.slice(1);
    case 6:
      return swapWord(text, rng, words);
    default:
      return changeLine(text, rng);
  }
}

function swapWord(text: string, rng: Rng, words: readonly string[]): string {
  const found = [...text.matchAll(/[A-Za-z0-9_.-]+/g)];
  const word = rng.pick(found);
  if (!word) return text;
  const other = rng.next() < 0.5 ? rng.pick(words) : (rng.pick(found)?.[0] ?? '');
  return text.slice(0, word.index) + (other ?? '') + text.slice(word.index + word[0].length);
}

function changeLine(text: string, rng: Rng): string {
  const lines = text.split('\n');
  const at = rng.int(0, lines.length - 1);
  const line = lines[at] as string;
  switch (rng.int(0, 5)) {
    case 0:
      lines.splice(at, 1);
      break;
    case 1:
      lines.splice(rng.int(0, lines.length), 0, line);
      break;
    case 2:
      lines[at] = ' '.repeat(rng.int(1, 4)) + line;
      break;
    case 3:
      lines[at] = line.trimStart();
      break;
    case 4:
      lines[at] = `\t${line}`;
      break;
    default:
      lines[at] = line.replace(/: .*/, ':');
  }
  return lines.join('\n');
}

function huge(text: string, rng: Rng, chars: number): string {
  switch (rng.int(0, 7)) {
    case 0:
      return text.repeat(Math.ceil(chars / Math.max(1, text.length))).slice(0, chars);
    case 1:
      return text + (rng.pick(SCRAPS) as string).repeat(chars).slice(0, chars);
    case 2:
      return bomb(rng.int(2, 12), rng.int(2, 30)).slice(0, chars);
    case 3:
      return `${'k'.repeat(chars / 2)}: ${'v'.repeat(chars / 2)}\n${text}`;
    case 4:
      return `${'['.repeat(chars)}${text}`;
    case 5:
      return `${text}\na: ${'{a: '.repeat(chars / 4)}`;
    case 6:
      return text + ' '.repeat(chars);
    default: {
      const at = rng.int(0, text.length);
      return text.slice(0, at) + (text[at] ?? 'x').repeat(chars) + text.slice(at);
    }
  }
}

/** "Billion laughs": each line names the one before many times. */
function bomb(levels: number, width: number): string {
  const lines = ['a0: &a0 [x]'];
  for (let i = 1; i <= levels; i++)
    lines.push(`a${i}: &a${i} [${Array.from({ length: width }, () => `*a${i - 1}`).join(',')}]`);
  return `${lines.join('\n')}\n`;
}

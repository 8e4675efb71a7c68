import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join, relative, resolve } from 'node:path';
import { describe, expect, it } from 'vitest';

// The house rules that a machine can check: which room may import which, purity of the cores, names and sizes of files.

const root = new URL('..', import.meta.url).pathname;
const files = (dir: string): string[] =>
  readdirSync(join(root, dir), { recursive: true, encoding: 'utf8' })
    .filter((f) => f.endsWith('.ts'))
    .map((f) => join(dir, f));
const sources = files('src');
const read = (file: string): string => readFileSync(join(root, file), 'utf8');

/** Rooms in order: a file may import from its own room and from those before it. `side` rooms may not import each other. */
const ORDER: Record<string, number> = { model: 0, core: 1, ports: 2, driver: 3, adapters: 4, services: 4, top: 5 };
const roomOf = (file: string): string => {
  const first = relative('src', file).split('/')[0] ?? '';
  return first in ORDER ? first : 'top';
};

/** Without comments and quoted text: `keep: any side` in a help text is no type. */
const codeOf = (text: string): string =>
  text
    .replace(/\/\*[\s\S]*?\*\//g, '')
    .replace(/\/\/.*$/gm, '')
    .replace(/'(?:[^'\\\n]|\\.)*'/g, "''");

function imports(file: string): string[] {
  return [...read(file).matchAll(/(?:from|import)\s*\(?\s*'([^']+)'/g)].map((m) => m[1] ?? '');
}

describe('house rules', () => {
  it('imports run one way: model <- core <- ports <- driver <- adapters, services <- agent, boot, cli', () => {
    const wrong: string[] = [];
    for (const file of sources) {
      const room = roomOf(file);
      for (const spec of imports(file).filter((s) => s.startsWith('.'))) {
        const target = relative(root, resolve(join(root, dirname(file)), spec));
        // The package's own description is nobody's room.
        if (target === 'package.json') continue;
        const to = roomOf(target);
        const own = ORDER[room] ?? 9;
        const other = ORDER[to] ?? 9;
        if (other > own || (other === own && to !== room)) wrong.push(`${file} imports ${target}`);
      }
    }
    expect(wrong).toEqual([]);
  });

  it('cores are pure: no clock, timer, randomness, process or node module', () => {
    const wrong: string[] = [];
    for (const file of files('src/core')) {
      read(file)
        .split('\n')
        .forEach((line, i) => {
          const code = line.replace(/\/\/.*$/, '').replace(/^\s*\*.*$/, '');
          if (
            /Date\.now|new Date\(|Math\.random|setTimeout|setInterval|setImmediate|performance\.|process\.|from 'node:/.test(
              code,
            )
          )
            wrong.push(`${file}:${i + 1}`);
        });
    }
    expect(wrong).toEqual([]);
  });

  it('files are kebab-case, about 400 lines at the most, with no default export, enum, namespace or any', () => {
    const wrong: string[] = [];
    for (const file of sources) {
      const text = read(file);
      const name = file.split('/').at(-1) ?? '';
      if (!/^[a-z0-9]+(-[a-z0-9]+)*(\.d)?\.ts$/.test(name)) wrong.push(`${file}: name`);
      if (/^(utils|helpers|manager)\b/.test(name)) wrong.push(`${file}: says nothing of what it holds`);
      const lines = text.split('\n').length;
      if (lines > 470) wrong.push(`${file}: ${lines} lines`);
      if (/^export default/m.test(text)) wrong.push(`${file}: default export`);
      if (/^\s*(export )?(const )?enum /m.test(text)) wrong.push(`${file}: enum`);
      if (/^\s*(export )?namespace /m.test(text)) wrong.push(`${file}: namespace`);
      if (/(:|<|as) any\b/.test(codeOf(text))) wrong.push(`${file}: any`);
    }
    expect(wrong).toEqual([]);
  });

  it('no test is skipped or alone, and none sleeps', () => {
    const wrong: string[] = [];
    for (const file of files('test').filter((f) => f !== 'test/tidy.test.ts')) {
      if (/\b(it|test|describe)\.(only|skip)\(/.test(read(file))) wrong.push(`${file}: only or skip`);
    }
    expect(wrong).toEqual([]);
  });
});

import { spawn } from 'node:child_process';
import { constants } from 'node:os';
import type { ExecResult } from './types.ts';
import { HostLabError } from './types.ts';

export interface CommandOptions {
  readonly cwd?: string;
  readonly env?: NodeJS.ProcessEnv;
  readonly input?: string | Buffer;
  readonly timeoutMs?: number;
  readonly signal?: AbortSignal;
}

/** Output kept per stream; a runaway command does not take the machine's memory. */
const OUTPUT_LIMIT_BYTES = 64 * 1024 * 1024;
const DEFAULT_TIMEOUT_MS = 60_000;

/** Runs a program to its end. Resolves with any exit code; rejects only when it cannot be started. */
export function runCommand(argv: readonly string[], options: CommandOptions = {}): Promise<ExecResult> {
  const [program, ...args] = argv;
  if (program === undefined) throw new HostLabError('bad_option', 'an empty command');
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, {
      stdio: ['pipe', 'pipe', 'pipe'],
      timeout: options.timeoutMs ?? DEFAULT_TIMEOUT_MS,
      killSignal: 'SIGKILL',
      ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
      ...(options.env === undefined ? {} : { env: options.env }),
      ...(options.signal === undefined ? {} : { signal: options.signal }),
    });
    const out = collect(child.stdout);
    const err = collect(child.stderr);
    child.on('error', reject);
    child.stdin.on('error', () => {}); // the program may end before it has read its input
    child.stdin.end(options.input ?? '');
    child.on('close', (code, signal) => {
      const number = signal === null ? (code ?? 0) : 128 + (constants.signals[signal] ?? 0);
      resolve({ code: number, stdout: out(), stderr: err() });
    });
  });
}

/** Like runCommand, but a non-zero code throws, with the program's own words. Returns stdout. */
export async function mustRun(argv: readonly string[], options: CommandOptions = {}): Promise<string> {
  const result = await runCommand(argv, options);
  if (result.code === 0) return result.stdout;
  const words = (result.stderr.trim() || result.stdout.trim()).slice(-2000);
  const input = typeof options.input === 'string' ? ` <<< ${JSON.stringify(options.input)}` : '';
  throw new HostLabError('failed', `\`${argv.join(' ')}\`${input} ended with ${result.code}: ${words}`);
}

function collect(stream: NodeJS.ReadableStream): () => string {
  const parts: Buffer[] = [];
  let size = 0;
  stream.on('data', (part: Buffer) => {
    size += part.length;
    if (size <= OUTPUT_LIMIT_BYTES) parts.push(part);
  });
  return () => Buffer.concat(parts).toString('utf8');
}

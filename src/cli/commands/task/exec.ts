import type { IncomingMessage } from 'node:http';
import type { Command } from 'commander';
import { decodeFrames, encodeFrame, errorOfFrame, FRAME } from '../../../services/remote/stream-frames.ts';
import { collect, examples, pairs, whole, withClient } from '../../command.ts';

interface ExecFlags {
  interactive?: boolean;
  tty?: boolean;
  env: string[];
  user?: string;
  workdir?: string;
  slot: number;
}

/** Input of the terminal (or pipe) as frames; window changes as resize frames. */
async function* input(options: ExecFlags): AsyncGenerator<Uint8Array> {
  const queue: Uint8Array[] = [];
  let wake: () => void = () => {};
  let ended = false;
  const push = (frame: Uint8Array): void => {
    queue.push(frame);
    wake();
  };
  if (options.interactive) {
    process.stdin.on('data', (chunk: Buffer) => push(encodeFrame(FRAME.stdin, new Uint8Array(chunk))));
    process.stdin.on('end', () => {
      ended = true;
      wake();
    });
  } else ended = true;
  if (options.tty)
    process.stdout.on('resize', () =>
      push(encodeFrame(FRAME.resize, JSON.stringify({ columns: process.stdout.columns, rows: process.stdout.rows }))),
    );
  for (;;) {
    for (let next = queue.shift(); next; next = queue.shift()) yield next;
    if (ended) break;
    await new Promise<void>((resolve) => {
      wake = resolve;
    });
  }
  yield encodeFrame(FRAME.endOfInput);
}

export function execCommand(program: Command): void {
  const command = program
    .command('exec')
    .description('run a command inside a running task')
    .argument('<task>')
    .argument('<command...>')
    .passThroughOptions()
    .option('-i, --interactive', 'pass standard input on')
    .option('-t, --tty', 'with a terminal')
    .option('-e, --env <K=V>', 'environment', collect, [])
    .option('-u, --user <user>', 'as this user')
    .option('-w, --workdir <dir>', 'in this directory')
    .option('--slot <n>', 'which replica', whole(0), 0);
  command.addHelpText('after', examples('task-org exec -it web sh', 'task-org exec db redis-cli ping'));
  command.action(
    withClient(command, async (client, task: string, words: string[], options: ExecFlags) => {
      const tty = options.tty === true && process.stdin.isTTY === true && process.stdout.isTTY === true;
      const header = Buffer.from(
        JSON.stringify({
          command: words,
          env: pairs('--env', options.env),
          tty,
          interactive: options.interactive === true,
          user: options.user ?? '',
          workdir: options.workdir ?? '',
          size:
            tty && process.stdout.columns > 0 ? { columns: process.stdout.columns, rows: process.stdout.rows } : null,
        }),
      ).toString('base64url');
      if (tty) process.stdin.setRawMode(true);
      let response: IncomingMessage | undefined;
      try {
        response = await client.stream(
          'POST',
          `/v1/tasks/${encodeURIComponent(task)}/exec?slot=${options.slot}`,
          { 'content-type': 'application/x-task-org-frames', 'x-task-org-exec': header },
          input({ ...options, tty }),
        );
        for await (const frame of decodeFrames(response)) {
          if (frame.kind === FRAME.error) throw errorOfFrame(frame.body);
          if (frame.kind === FRAME.exit) {
            process.exitCode = (JSON.parse(new TextDecoder().decode(frame.body)) as { exitCode: number }).exitCode;
            break;
          }
          (frame.kind === FRAME.stderr ? process.stderr : process.stdout).write(frame.body);
        }
      } finally {
        if (tty) process.stdin.setRawMode(false);
        process.stdin.destroy();
        // The command has ended; input that never ends must not hold the connection, and so the program, open.
        response?.destroy();
      }
    }),
  );
}

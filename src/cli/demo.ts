import { parseArgs } from 'node:util';
import { Demo } from '../demo/demo.ts';

const USAGE = `Usage: npm run demo -- [--exit] [--runtime auto|docker|process]

Five peers on this machine; the one that runs a task is killed outright; the task comes back elsewhere, with a timeline.
Then the cluster stays open until Ctrl-C, unless --exit is given. The exit code tells whether the task came back.
`;

const { values } = parseArgs({
  options: {
    exit: { type: 'boolean', default: false },
    runtime: { type: 'string', default: 'auto' },
    help: { type: 'boolean', default: false },
  },
});
const { runtime } = values;
if (values.help || (runtime !== 'auto' && runtime !== 'docker' && runtime !== 'process')) {
  process.stdout.write(USAGE);
  process.exit(values.help ? 0 : 2);
}
const demo = new Demo({ exit: values.exit, runtime, print: (line) => process.stdout.write(`${line}\n`) });
const end = (code: number): void => void demo.stop().finally(() => process.exit(code));
process.once('SIGINT', () => end(130));
process.once('SIGTERM', () => end(143));
try {
  const code = await demo.run();
  if (values.exit) end(code);
  else setInterval(() => {}, 60_000);
} catch (error) {
  process.stderr.write(`demo failed: ${error instanceof Error ? error.message : String(error)}\n`);
  end(1);
}

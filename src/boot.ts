import { runBoot } from './boot/run.ts';

// The supervisor process of a peer. It imports only Node's own modules and small files of ours: it has to stay up, and
// small, when everything else does not.

process.exit(await runBoot(process.argv.slice(2)));

import { campaignMain } from '../campaign/main.ts';

// An interrupted round may still be waiting for its cluster, which is gone by now.
process.exit(await campaignMain(process.argv.slice(2)));

import { campaignMain } from '../campaign/main.ts';

process.exitCode = await campaignMain(process.argv.slice(2));

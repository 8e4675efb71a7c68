// Bundles the programs into dist/. Bundling cuts the start of the agent (module load) by more than half.
// Packages with native code or with files read at run time stay outside the bundle.
import { chmod, mkdir, rename, rm, stat, access } from 'node:fs/promises';
import { build } from 'esbuild';

const entries = {
  'task-org-peer': 'src/cli/task-org-peer.ts',
  'task-org': 'src/cli/task-org.ts',
  agent: 'src/agent-main.ts',
  boot: 'src/boot.ts',
  demo: 'src/cli/demo.ts',
  bench: 'src/cli/bench.ts',
  simulate: 'src/cli/simulate.ts',
  campaign: 'src/cli/campaign.ts',
  fuzz: 'src/cli/fuzz.ts',
};
const present = {};
for (const [name, path] of Object.entries(entries)) {
  if (await access(path).then(() => true, () => false)) present[name] = path;
}
// Built beside and swapped in: a failed build leaves the old programs, and nobody meets half of the new ones.
const fresh = `dist.new-${process.pid}`;
await mkdir(fresh, { recursive: true });
await build({
  entryPoints: present,
  outdir: fresh,
  bundle: true,
  splitting: true,
  platform: 'node',
  format: 'esm',
  target: 'node22',
  sourcemap: 'linked',
  sourcesContent: false,
  external: ['classic-level', '@fastify/swagger-ui', 'dockerode', 'ssh2', 'cpu-features', 'systeminformation'],
  banner: { js: "import { createRequire as __cr } from 'node:module'; const require = __cr(import.meta.url);" },
  logLevel: 'warning',
}).catch(async (error) => {
  await rm(fresh, { recursive: true, force: true });
  process.stderr.write(`${error.message}\n`);
  process.exit(1);
});
for (const name of ['task-org-peer', 'task-org']) {
  if (await stat(`${fresh}/${name}.js`).catch(() => undefined)) await chmod(`${fresh}/${name}.js`, 0o755);
}
await rm('dist', { recursive: true, force: true });
await rename(fresh, 'dist');

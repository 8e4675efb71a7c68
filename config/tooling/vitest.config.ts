import { defineConfig } from 'vitest/config';

export default defineConfig({
  root: new URL('../..', import.meta.url).pathname,
  test: {
    include: ['test/**/*.test.ts'],
    testTimeout: 60_000,
    hookTimeout: 120_000,
    // Two cores and real processes: files one after another keep every test's machine quiet.
    fileParallelism: false,
    pool: 'forks',
    reporters: ['default'],
  },
});

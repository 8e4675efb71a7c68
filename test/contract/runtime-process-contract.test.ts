import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll } from 'vitest';
import { createProcessRuntime } from '../../src/adapters/process/process-runtime.ts';
import { clusterId, nodeId } from '../../src/model/ids.ts';
import { SILENT_LOG } from '../../src/ports/log.ts';
import { BASE_SPEC, runtimeContract } from './runtime-contract.ts';

const dataDir = mkdtempSync(join(tmpdir(), 'task-org-contract-'));
afterAll(() => rmSync(dataDir, { recursive: true, force: true }));

runtimeContract('process', () => ({
  open: () => createProcessRuntime({ dataDir, clusterId: clusterId('test'), nodeId: nodeId(dataDir), log: SILENT_LOG }),
  spec: (script) => ({ ...BASE_SPEC, command: ['/bin/sh', '-c', script] }),
}));

import { spawn } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, test } from 'vitest';
import { untilLine } from '../../src/scenario/follow-file.ts';
import { killPeer, processesOfPeer } from '../../src/scenario/processes-of-peer.ts';

const dir = mkdtempSync(join(tmpdir(), 'to-peer-'));
afterAll(() => rmSync(dir, { recursive: true, force: true }));

test.runIf(process.platform === 'linux')(
  'killing a peer takes its copies with it, whatever session they made, and nobody else',
  async () => {
    const log = join(dir, 'log');
    writeFileSync(log, '');
    // a boot whose agent has a copy in a session of its own, and an orphaned guard that works in the data directory
    const copy = `setsid sh -c 'echo copy $$ >>${log}; exec sleep 600' &`;
    const guard = `( cd ${dir}; setsid sh -c 'echo guard $$ >>../${dir.split('/').at(-1)}/log; exec sleep 600' & )`;
    const boot = spawn('sh', ['-c', `${guard}; sh -c "${copy.replaceAll('$', '\\$')} sleep 600" & wait`], {
      detached: true,
      stdio: 'ignore',
      cwd: '/',
    });
    const stranger = spawn('sleep', ['600'], { stdio: 'ignore' });
    try {
      const pidOf = async (name: string): Promise<number> =>
        Number((await untilLine(log, new RegExp(`^${name} \\d+`), 5_000)).line.split(' ')[1]);
      const pids = [boot.pid ?? 0, await pidOf('copy'), await pidOf('guard')];
      expect(processesOfPeer(boot.pid, dir)).toEqual(expect.arrayContaining(pids));
      const died = new Promise((resolve) => boot.once('exit', resolve));
      await killPeer(boot.pid, dir);
      await died;
      expect(processesOfPeer(boot.pid, dir)).toEqual([]);
      expect(existsSync(`/proc/${stranger.pid}`)).toBe(true);
    } finally {
      stranger.kill('SIGKILL');
      await killPeer(boot.pid, dir);
    }
  },
);

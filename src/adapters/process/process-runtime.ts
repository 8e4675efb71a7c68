import { spawn } from 'node:child_process';
import { existsSync, mkdirSync, openSync, readdirSync, readFileSync, writeFileSync, closeSync, createReadStream, rmSync, renameSync, statSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { parseCopyId, formatCopyId } from '../../core/reconcile/copy-id.ts';
import type { DesiredCopy, ObservedCopy } from '../../core/reconcile/types.ts';
import { TaskOrgError } from '../../model/errors.ts';
import { formatGeneration } from '../../model/generation.ts';
import { wallMs, type ClusterId, type NodeId } from '../../model/ids.ts';
import type { Log } from '../../ports/log.ts';
import type { Runtime, RuntimeEvent } from '../../ports/runtime.ts';
import { killTarget } from './kill-target.ts';
import { isSameProcess, readProcStat } from './proc-fs.ts';

const LAUNCHER = `trap : TERM INT HUP QUIT USR1 USR2
"$@" >>"$TASKORG_COPY_DIR/stdout" 2>>"$TASKORG_COPY_DIR/stderr" & c=$!
while :; do wait $c; s=$?; kill -0 $c 2>/dev/null || break; done
echo $s >"$TASKORG_COPY_DIR/exit.tmp" && mv "$TASKORG_COPY_DIR/exit.tmp" "$TASKORG_COPY_DIR/exit"
exit $s`;
interface Record_ { copyId: string; pid: number; startTicks: number; startedAt: number; ports: ObservedCopy['ports'] }

export function createProcessRuntime(options: { dataDir: string; clusterId: ClusterId; nodeId: NodeId; log: Log }): Runtime {
  const copiesDir = join(options.dataDir, 'copies');
  mkdirSync(copiesDir, { recursive: true });
  const listeners = new Set<(e: RuntimeEvent) => void>();
  const watched = new Set<string>();
  const dirOf = (copyId: string): string => join(copiesDir, copyId);
  const read = (copyId: string): Record_ | undefined => {
    try { return JSON.parse(readFileSync(join(dirOf(copyId), 'record.json'), 'utf8')) as Record_; } catch { return undefined; }
  };
  const exitCode = (copyId: string): number | null => {
    try { return Number(readFileSync(join(dirOf(copyId), 'exit'), 'utf8').trim()); } catch { return null; }
  };
  const observe = (r: Record_): ObservedCopy | undefined => {
    const name = parseCopyId(r.copyId);
    if (!name) return undefined;
    const running = isSameProcess(r.pid, r.startTicks);
    return { copyId: r.copyId, ...name, runtime: 'process', handle: `pid:${r.pid}`, running, startedAt: wallMs(r.startedAt), exitCode: running ? null : (exitCode(r.copyId) ?? 137), ports: r.ports };
  };
  const ended = (copyId: string, code: number | null): void => { if (watched.delete(copyId)) for (const l of listeners) l({ type: 'exited', copyId, exitCode: code, oomKilled: false }); };
  const poll = setInterval(() => { for (const id of [...watched]) { const r = read(id); if (!r || !isSameProcess(r.pid, r.startTicks)) ended(id, exitCode(id) ?? 137); } }, 250);
  poll.unref();
  const gone = async (r: Record_, ms: number): Promise<boolean> => {
    const until = Date.now() + ms;
    while (isSameProcess(r.pid, r.startTicks)) { if (Date.now() > until) return false; await new Promise((f) => setTimeout(f, 10)); }
    return true;
  };
  const remove = (copyId: string): void => { watched.delete(copyId); rmSync(dirOf(copyId), { recursive: true, force: true }); };
  const freePort = (): Promise<number> => new Promise((resolve, reject) => { const s = createServer(); s.listen(0, () => { const a = s.address(); s.close(() => resolve(typeof a === 'object' && a ? a.port : 0)); }); s.on('error', reject); });

  return {
    kind: 'process',
    info: async () => ({ version: process.version, details: {} }),
    prepare: async () => {},
    async start(copy: DesiredCopy, register, signal) {
      const copyId = formatCopyId(copy);
      const known = read(copyId);
      if (known && isSameProcess(known.pid, known.startTicks)) return observe(known) as ObservedCopy;
      const dir = dirOf(copyId);
      rmSync(dir, { recursive: true, force: true });
      const work = join(options.dataDir, 'work', `${copy.taskId}.${copy.slot}`);
      mkdirSync(dir, { recursive: true }); mkdirSync(work, { recursive: true });
      const { spec } = copy;
      const env: Record<string, string> = { PATH: process.env['PATH'] ?? '/usr/bin:/bin', HOME: work, ...spec.env, TASKORG_COPY_DIR: dir, TASKORG_TASK: spec.name, TASKORG_SLOT: String(copy.slot), TASKORG_GENERATION: formatGeneration(copy.generation), TASKORG_WORKDIR: work };
      for (const v of spec.volumes) { const p = join(options.dataDir, 'volumes', v.name); mkdirSync(p, { recursive: true }); env[`TASKORG_VOLUME_${v.name.replace(/[^A-Za-z0-9]/g, '_').toUpperCase()}`] = p; }
      const ports = await Promise.all(spec.ports.map(async (p) => ({ container: p.container, host: p.host || (await freePort()), protocol: p.protocol })));
      if (ports[0]) env['PORT'] = String(ports[0].host);
      signal.throwIfAborted();
      const child = spawn('/bin/sh', ['-c', LAUNCHER, 'task', ...spec.command, ...spec.args], { cwd: spec.workdir || work, env, detached: true, stdio: 'ignore' });
      await new Promise<void>((resolve, reject) => { child.once('spawn', resolve); child.once('error', (e) => reject(new TaskOrgError('runtime_failed', e.message))); });
      const pid = child.pid as number;
      const startTicks = readProcStat(pid)?.startTicks ?? 0;
      await register({ type: 'process-group', pgid: pid, startTicks });
      const record: Record_ = { copyId, pid, startTicks, startedAt: Date.now(), ports };
      writeFileSync(join(dir, 'record.tmp'), JSON.stringify(record)); renameSync(join(dir, 'record.tmp'), join(dir, 'record.json'));
      child.unref();
      watched.add(copyId);
      child.once('exit', () => ended(copyId, exitCode(copyId) ?? 137));
      return observe(record) as ObservedCopy;
    },
    async stop(copyId, o) {
      const r = read(copyId);
      watched.delete(copyId);
      if (r && isSameProcess(r.pid, r.startTicks)) { try { process.kill(-r.pid, o.stopSignal as NodeJS.Signals); } catch { /* gone */ } if (!(await gone(r, o.graceMs))) await killTarget({ type: 'process-group', pgid: r.pid, startTicks: r.startTicks }); }
      remove(copyId);
    },
    async kill(copyId) {
      const r = read(copyId);
      watched.delete(copyId);
      if (r) await killTarget({ type: 'process-group', pgid: r.pid, startTicks: r.startTicks });
      remove(copyId);
    },
    list: async () => { const all = readdirSync(copiesDir).map(read).filter((r) => r !== undefined); for (const r of all) if (isSameProcess(r.pid, r.startTicks)) watched.add(r.copyId); return all.map(observe).filter((o) => o !== undefined); },
    events: (onEvent, signal) => new Promise((resolve) => { listeners.add(onEvent); signal.addEventListener('abort', () => { listeners.delete(onEvent); resolve(); }, { once: true }); }),
    stats: async () => ({ cpuCores: 0, memoryBytes: 0, memoryLimitBytes: null, networkRxBytes: 0, networkTxBytes: 0, diskReadBytes: 0, diskWriteBytes: 0, pids: 1 }),
    async *logs(copyId) { for (const stream of ['stdout', 'stderr'] as const) { const f = join(dirOf(copyId), stream); if (existsSync(f)) for await (const c of createReadStream(f)) yield { stream, data: c as Uint8Array }; } },
    exec: async () => { throw new TaskOrgError('refused', 'exec is not there yet'); },
    images: async () => [],
    close: async () => clearInterval(poll),
  };
}
void openSync; void closeSync; void statSync;

import { request } from 'node:http';
import { connect } from 'node:net';
import type { DesiredCopy } from '../core/reconcile/types.ts';
import type { HealthChecker } from './runtime-driver.ts';

/** Longest output of a check that is kept, characters. */
const OUTPUT_LIMIT = 512;

/** Runs a task's health check once: a command inside the copy, an HTTP GET (2xx or 3xx), or a TCP connect. */
export const runHealthCheck: HealthChecker = async (copy, runtime, copyId, signal) => {
  const check = copy.spec.healthCheck?.check;
  if (!check) return { ok: true, output: '' };
  if (check.type === 'command') {
    const session = await runtime.exec(
      copyId,
      { command: check.command, env: {}, tty: false, interactive: false, user: '', workdir: '', size: null },
      signal,
    );
    let output = '';
    for await (const chunk of session.output)
      if (output.length < OUTPUT_LIMIT) output += new TextDecoder().decode(chunk.data);
    const exitCode = await session.exitCode;
    return {
      ok: exitCode === 0,
      output: exitCode === 0 ? '' : `exit code ${exitCode}: ${output.slice(0, OUTPUT_LIMIT).trim()}`,
    };
  }
  const port = hostPort(copy, check.port, (await runtime.list(signal)).find((c) => c.copyId === copyId)?.ports ?? []);
  return check.type === 'tcp' ? tcpCheck(port, signal) : httpCheck(port, check.path, signal);
};

const hostPort = (
  copy: DesiredCopy,
  container: number,
  bound: readonly { container: number; host: number }[],
): number =>
  bound.find((p) => p.container === container)?.host ??
  copy.spec.ports.find((p) => p.container === container)?.host ??
  container;

function tcpCheck(port: number, signal: AbortSignal): Promise<{ ok: boolean; output: string }> {
  return new Promise((resolve) => {
    const socket = connect({ host: '127.0.0.1', port });
    const done = (ok: boolean, output: string): void => {
      socket.destroy();
      resolve({ ok, output });
    };
    signal.addEventListener('abort', () => done(false, `no connection to port ${port} in time`), { once: true });
    socket.once('connect', () => done(true, ''));
    socket.once('error', (error) => done(false, error.message));
  });
}

function httpCheck(port: number, path: string, signal: AbortSignal): Promise<{ ok: boolean; output: string }> {
  return new Promise((resolve) => {
    const req = request({ host: '127.0.0.1', port, path, signal, agent: false }, (response) => {
      response.resume();
      const status = response.statusCode ?? 0;
      resolve({ ok: status >= 200 && status < 400, output: status >= 200 && status < 400 ? '' : `HTTP ${status}` });
    });
    req.once('error', (error) => resolve({ ok: false, output: error.message }));
    req.end();
  });
}

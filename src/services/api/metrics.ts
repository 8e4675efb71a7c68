import { collectDefaultMetrics, Gauge, Registry } from 'prom-client';
import type { PeerDriver } from '../../driver/peer-driver.ts';
import type { Transport } from '../../ports/transport.ts';

/** Prometheus text: what the peer holds, sends and rejects. Gathered only when asked for. */
export function createMetrics(deps: {
  readonly driver: PeerDriver;
  readonly transport: Transport;
}): () => Promise<string> {
  let registry: Registry | undefined;
  const make = (): Registry => {
    const r = new Registry();
    collectDefaultMetrics({ register: r });
    const { peer } = deps.driver;
    const gauge = (name: string, help: string, read: () => number): void => {
      new Gauge({
        name,
        help,
        registers: [r],
        collect() {
          this.set(read());
        },
      });
    };
    gauge('taskorg_term', 'Raft term', () => peer.consensus().term);
    gauge('taskorg_commit_index', 'newest committed entry', () => peer.consensus().commit);
    gauge('taskorg_applied_index', 'newest applied entry', () => peer.state().applied);
    gauge('taskorg_is_master', '1 on the master', () => (peer.leader() === peer.self ? 1 : 0));
    gauge('taskorg_peers', 'admitted peers', () => peer.state().peers.size);
    gauge('taskorg_tasks', 'task records', () => peer.state().tasks.size);
    gauge('taskorg_pending_submissions', 'submissions not settled yet', () => peer.pending().size);
    gauge('taskorg_store_batches_total', 'fsynced batches', () => deps.driver.persistence.batches);
    new Gauge({
      name: 'taskorg_transport',
      help: 'counters of the transport',
      labelNames: ['counter'],
      registers: [r],
      collect() {
        for (const [counter, n] of Object.entries(deps.transport.counters())) this.set({ counter }, n);
      },
    });
    new Gauge({
      name: 'taskorg_rejected_input',
      help: 'peer input rejected, by reason',
      labelNames: ['reason'],
      registers: [r],
      collect() {
        for (const [reason, n] of deps.driver.rejects) this.set({ reason }, n);
      },
    });
    return r;
  };
  return () => {
    registry ??= make();
    return registry.metrics();
  };
}

import { randomBytes } from 'node:crypto';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { IpcBootLink } from './adapters/boot-probe/ipc-boot-link.ts';
import { deriveProbeKey } from './adapters/boot-probe/packet.ts';
import { UdpBootProber } from './adapters/boot-probe/udp-boot-prober.ts';
import { createSystemClock, createSystemRandom } from './adapters/clock/system-clock.ts';
import { loadIdentity, prepareDataDir } from './adapters/data-dir/data-dir.ts';
import { loadEpoch, saveEpoch } from './adapters/data-dir/epoch-file.ts';
import { createHostMetrics } from './adapters/host/host-metrics.ts';
import { openLevelStore } from './adapters/level/level-store.ts';
import { createLibp2pTransport } from './adapters/libp2p/transport.ts';
import { createCredentialKeeper, SECRET_SETTING } from './agent/credentials.ts';
import { type HostWatch, probeAddresses, watchHost } from './agent/host-watch.ts';
import { beginEpoch, firstEntry, orderRecovery, orderRejoin, prepareEpoch } from './agent/epochs.ts';
import { enterCluster } from './agent/join.ts';
import { createAgentLog } from './agent/log.ts';
import { peerConfigOf, restoredPeer, withFounderVote } from './agent/restore.ts';
import { NO_ENGINE, openRuntimes } from './agent/runtimes.ts';
import { loadSettings, NO_ENFORCEMENT } from './agent/settings.ts';
import { parseCopyId } from './core/reconcile/copy-id.ts';
import { METHOD_ENTRIES, METHOD_SNAPSHOT } from './driver/catch-up.ts';
import { runHealthCheck } from './driver/health-check.ts';
import { createPeerDriver } from './driver/peer-driver.ts';
import { createRuntimeDriver, type RuntimeDriver } from './driver/runtime-driver.ts';
import { EXIT_AGAIN, EXIT_CONFIGURATION } from './model/boot-protocol.ts';
import { showConfig } from './model/config.ts';
import { TaskOrgError } from './model/errors.ts';
import { type NodeId, wallMs } from './model/ids.ts';
import { encodeToken } from './model/token.ts';
import { VERSION } from './model/version.ts';
import type { BootLink } from './ports/boot.ts';
import type { JoinGrant, JoinRequest } from './ports/transport.ts';
import { createNoticeBoard, expectOk } from './services/api/context.ts';
import { createMetrics } from './services/api/metrics.ts';
import { startApi } from './services/api/server.ts';
import { createPeerViews, METHOD_VIEW } from './services/remote/peer-views.ts';
import { createRemoteCopies } from './services/remote/remote-copies.ts';
import { createWaitingTasks, METHOD_WAITING } from './services/remote/waiting.ts';

const REMOVED = 'this peer was removed from the cluster';
const REMOVED_HINT = 'to let it in again, remove its data directory and join with a new token (task-org token)';
const REMOVED_STOP_MS = 10_000;
/** Whoever ordered a restart hears of it before the API goes. */
const ANSWER_FIRST_MS = 200;

// Composition root of the agent: builds the parts, starts them, stops them. No rule of the system is decided here.

export interface Agent {
  readonly apiSocket: string;
  /** Resolves with the process's exit code when the agent has stopped, by order or by fault. */
  readonly finished: Promise<number>;
  stop(): Promise<void>;
}

/** Starts an agent. Throws TaskOrgError with a hint when the settings, the data directory or the cluster refuse. */
export async function startAgent(
  argv: readonly string[],
  env: Readonly<Record<string, string | undefined>>,
): Promise<Agent> {
  const { settings, origins, dataDir, enforcesLeases } = loadSettings(argv, env);
  const name = settings.name === '' ? hostname().split('.')[0] || 'node' : settings.name;
  const log = createAgentLog(settings.logLevel, { node: name });
  if (!enforcesLeases)
    log.error({ variable: NO_ENFORCEMENT }, 'UNSAFE: leases are not enforced here; exclusive tasks may run twice');
  const clock = createSystemClock();
  const random = createSystemRandom();
  await prepareDataDir(dataDir);
  const privateKey = await loadIdentity(dataDir);
  const boot = await IpcBootLink.attach({ stopAllowanceMs: settings.lease.stopAllowanceMs });
  const epoch = await prepareEpoch(dataDir, log);
  const store = await openLevelStore({ dataDir, log });
  const loaded = await store.load();
  const { credentials, listen } = await enterCluster({ dataDir, settings, name, privateKey, log });
  const [current, ...previous] = credentials.secrets;
  const transport = createLibp2pTransport(
    {
      privateKey,
      clusterId: credentials.clusterId,
      secrets: { current: current as Uint8Array, previous: previous.slice(0, 3) },
      listen,
      mdns: settings.mdns,
    },
    { log, wallNow: () => clock.wall() },
  );
  const self = transport.self;
  const founded = await withFounderVote({ self, store, contents: loaded, credentials });
  const contents = await beginEpoch(self, dataDir, epoch, store, founded);

  let finish: (code: number) => void = () => {};
  const finished = new Promise<number>((resolve) => {
    finish = resolve;
  });
  const fatal = (error: unknown, what: string): void => {
    log.error({ error: String(error) }, what);
    finish(1);
  };

  // ---- boot, runtimes ---------------------------------------------------------------------------------------------------
  const probeKeys = (secrets: readonly Uint8Array[]): readonly Uint8Array[] =>
    secrets.map((s) => deriveProbeKey(s, credentials.clusterId));
  let keys = probeKeys(credentials.secrets);
  boot?.identify(credentials.clusterId, self, keys);
  const prober = new UdpBootProber({ self, clusterId: credentials.clusterId, key: () => keys[0] as Uint8Array });
  const noBoot: BootLink = {
    register: async () => {},
    deadline: () => {},
    forget: () => {},
    onKilled: () => {},
    registered: () => new Map(),
  };
  const link = boot ?? noBoot;
  const runtimes = await openRuntimes({
    settings,
    dataDir,
    clusterId: credentials.clusterId,
    nodeId: self,
    fresh: loaded.consensus.snapshot.index === 0 && loaded.consensus.entries.length === 0,
    log,
  });
  const fenceProblems =
    boot === undefined
      ? ['not started by boot: exclusive tasks are not run here']
      : boot.facts.selfTest.ok
        ? []
        : boot.facts.selfTest.problems;

  // ---- the peer ---------------------------------------------------------------------------------------------------------
  const notices = createNoticeBoard();
  const keeper = createCredentialKeeper(
    {
      dataDir,
      transport,
      onFailure: (error) => fatal(error, 'credentials not saved'),
      onSecrets: (secrets) => {
        keys = probeKeys(secrets);
        boot?.identify(credentials.clusterId, self, keys);
      },
    },
    credentials,
  );
  let runtimeDriver: RuntimeDriver | undefined;
  let host: HostWatch | undefined;
  const engineProblems = (): readonly string[] =>
    runtimes.some((r) => r.kind === 'docker') && !runtimeDriver?.available().includes('docker') ? [NO_ENGINE] : [];
  const driver = createPeerDriver(
    restoredPeer({
      self,
      settings,
      enforcesLeases,
      contents,
      credentials,
      registered: link.registered(),
      seed: random.seed(),
      wall: clock.wall(),
      epoch,
    }),
    {
      clock,
      transport,
      store,
      boot: link,
      prober,
      log,
      runtimes: (post) => {
        const onAvailable = (): void => host?.changed();
        runtimeDriver = createRuntimeDriver({
          runtimes,
          boot: link,
          post,
          checkHealth: runHealthCheck,
          log,
          onAvailable,
        });
        return runtimeDriver;
      },
      onNotice: (notice) => {
        if (notice.type === 'role') log.info({ role: notice.role, term: notice.term, leader: notice.leader }, 'role');
        else if (notice.type === 'member')
          log.info(
            {
              member: notice.change.id,
              from: notice.change.from,
              to: notice.change.to,
              evidence: notice.change.evidence,
            },
            'member',
          );
        else if (notice.type === 'caretaker')
          log.warn(
            { caretaker: notice.caretaker },
            notice.alone ? 'no majority in reach' : 'a majority is in reach again',
          );
        else if (notice.type === 'removed') void removed(notice.message);
        if (notice.type === 'role' && notice.role === 'leader' && keeper.current().founding)
          void found().catch((error: unknown) => fatal(error, 'the cluster could not be founded'));
        if (notice.type === 'role' && notice.role === 'leader')
          void lead().catch((error: unknown) =>
            log.warn({ error: String(error) }, 'the new epoch is not committed yet'),
          );
        else if (notice.type === 'epoch-conflict')
          log.error(
            { peer: notice.peer, epoch: notice.epoch.id },
            'another recovery of this cluster is in reach, or this majority was left behind by one: see task-org cluster status',
          );
        notices.post(notice);
      },
      onRejoin: (epochId) => void rejoin(epochId).catch((error: unknown) => fatal(error, 'the epoch file')),
      onFatal: (error) => fatal(error, 'the store failed; this peer stops so that it acknowledges nothing more'),
      onCredentialsChanged: () => keeper.refresh(driver.peer.state()),
    },
  );
  link.onKilled((copyId) => {
    const copy = parseCopyId(copyId);
    if (copy)
      driver.post({
        type: 'proven-dead',
        keys: [{ taskId: copy.taskId, slot: copy.slot, generation: copy.generation }],
      });
  });
  boot?.onLost(() => {
    log.warn({}, 'boot is gone; this agent stops so that a new boot can start one');
    finish(1);
  });

  const about = () => ({
    nodeId: self,
    name,
    addresses: [...transport.addresses()],
    labels: settings.labels,
    priority: settings.priority,
    witness: settings.witness,
  });

  /** The first record of a new cluster: who founded it. */
  async function found(): Promise<void> {
    if (driver.peer.state().cluster === undefined) {
      const command = {
        type: 'cluster.init' as const,
        by: self,
        at: clock.wall(),
        cluster: { clusterId: credentials.clusterId, epoch: 1, epochId: randomBytes(8).toString('hex'), name: '' },
        founder: { ...about(), availability: 'active' as const },
      };
      expectOk(await driver.propose(command), 'founding');
    }
    keeper.founded();
  }

  /** The first record of a new epoch, after a recovery by force from this peer. */
  async function lead(): Promise<void> {
    const entry = firstEntry(await loadEpoch(dataDir));
    if (entry === undefined) return;
    if (driver.peer.state().cluster?.epochId !== entry.epochId)
      expectOk(await driver.propose({ ...entry, by: self, at: clock.wall() }), 'recovery');
    await saveEpoch(dataDir, { step: 'member', id: entry.epochId, incarnation: 0, peers: [] });
  }

  /** Ends this agent so that boot starts it again, which finds what the epoch file orders. Copies live on. */
  const again = (): void => {
    log.warn({}, 'starts again in another epoch of the cluster');
    setTimeout(() => finish(EXIT_AGAIN), ANSWER_FIRST_MS);
  };
  async function rejoin(epochId: string): Promise<void> {
    await orderRejoin(dataDir, epochId, driver.peer);
    again();
  }

  const struckBy = new Set<NodeId>();
  let leaving: Promise<void> | undefined;
  /** Ends what runs here, since the cluster runs it elsewhere by now, and then this peer for good. */
  function removed(message: string): Promise<void> {
    leaving ??= (async () => {
      log.warn({ by: [...struckBy] }, message);
      const signal = AbortSignal.timeout(REMOVED_STOP_MS);
      for (const runtime of runtimes) {
        const copies = await runtime.list(signal).catch(() => []);
        await Promise.allSettled(copies.map((copy) => runtime.kill(copy.copyId, signal)));
      }
      process.stderr.write(`task-org-peer: ${message}\n  hint: ${REMOVED_HINT}\n`);
      finish(EXIT_CONFIGURATION);
    })();
    return leaving;
  }

  async function admit(request: JoinRequest): Promise<JoinGrant> {
    const peer = {
      nodeId: request.from,
      name: request.name,
      addresses: request.addresses,
      labels: request.labels,
      priority: request.priority,
      witness: request.witness,
      availability: 'active' as const,
    };
    expectOk(
      await driver.propose({
        type: 'peer.admit',
        by: self,
        at: clock.wall(),
        peer,
        invitationId: request.invitationId,
      }),
      `admission of ${request.name}`,
    );
    const now = keeper.current();
    const known = driver.peer.topology.peers().filter((p) => p.id !== request.from);
    return {
      clusterId: now.clusterId,
      secret: now.secrets[0] as Uint8Array,
      dataKeys: now.dataKeys,
      peers: [{ id: self, addresses: transport.addresses() }, ...known],
    };
  }

  // ---- services -----------------------------------------------------------------------------------------------------------
  const remote = createRemoteCopies({ peer: driver.peer, transport, runtimes: () => runtimeDriver as RuntimeDriver });
  const views = createPeerViews({ peer: driver.peer, transport });
  const waiting = createWaitingTasks({ peer: driver.peer, transport });
  await driver.ready;
  await transport.start(
    {
      onConnected: (peer) => driver.post({ type: 'connected', peer }),
      onDisconnected: (peer) => driver.post({ type: 'disconnected', peer }),
      onDialFailed: (peer, refused) => driver.post({ type: 'dial-failed', peer, refused }),
      onStruck: (by) => {
        // One peer alone may be behind, or lie.
        struckBy.add(by);
        if (struckBy.size >= Math.min(2, driver.peer.topology.peers().length)) void removed(REMOVED);
      },
      onMessage: driver.onMessage,
      onGossip: driver.onGossip,
      onRequest: async (_from, method, payload, signal) => {
        if (method === METHOD_ENTRIES) return driver.catchUp.serveEntries(payload);
        if (method === METHOD_VIEW) return views.serve();
        if (method === METHOD_WAITING) return waiting.serve(payload);
        const answer = remote.onRequest(method, payload, signal);
        if (!answer) throw new TaskOrgError('not_found', `no method ${method.slice(0, 64)}`);
        return answer;
      },
      onStream: async (_from, method, payload, stream, signal) => {
        if (method === METHOD_SNAPSHOT) return driver.catchUp.serveSnapshot(stream);
        const serving = remote.onStream(method, payload, stream, signal);
        if (!serving) throw new TaskOrgError('not_found', `no method ${method.slice(0, 64)}`);
        return serving;
      },
      onJoinRequest: admit,
    },
    AbortSignal.timeout(30_000),
  );
  keeper.refresh(driver.peer.state());
  driver.post({ type: 'tick', lateMs: 0 });
  const loopbackOnly = settings.listen.every((a) => a.includes('/127.'));
  host = await watchHost({
    settings,
    name,
    everyMs: peerConfigOf(settings).factsHeadMs,
    metrics: createHostMetrics({ dataDir }),
    runtimes,
    available: () => runtimeDriver?.available() ?? [],
    addresses: () => (settings.announce.length > 0 ? settings.announce : transport.addresses()),
    bootProbe: () => probeAddresses(boot?.facts.probePort ?? 0, loopbackOnly),
    problems: () => [...engineProblems(), ...fenceProblems],
    canFence: () => boot?.facts.selfTest.ok === true,
    log,
    post: (head) => driver.post({ type: 'host-facts', head }),
  });
  const api = await startApi(
    {
      version: VERSION,
      clusterId: credentials.clusterId,
      self,
      driver,
      remote,
      clock,
      random,
      log,
      notices,
      configShown: () => showConfig(settings, origins),
      viewsOfPeers: () => views.ask(),
      waiting: (task) => waiting.ask(task),
      metrics: createMetrics({ driver, transport }),
      makeToken: async ({ expiresMs, uses }) => {
        const invitation = {
          id: Buffer.from(random.bytes(12)).toString('base64url'),
          key: Buffer.from(random.bytes(32)).toString('base64url'),
          expiresAt: wallMs(clock.wall() + expiresMs),
          usesLeft: uses,
        };
        expectOk(await driver.propose({ type: 'invitation.add', by: self, at: clock.wall(), invitation }), 'token');
        return encodeToken({
          clusterId: credentials.clusterId,
          invitationId: invitation.id,
          key: new Uint8Array(Buffer.from(invitation.key, 'base64url')),
          expiresAt: invitation.expiresAt,
          addresses: tokenAddresses(),
        });
      },
      recover: async (dead) => {
        const done = await orderRecovery(dataDir, randomBytes(8).toString('hex'), driver.peer, dead);
        again();
        return done;
      },
      rejoin,
      rotateSecret: async () => {
        expectOk(
          await driver.propose({
            type: 'setting.set',
            by: self,
            at: clock.wall(),
            key: SECRET_SETTING,
            value: keeper.newSecret(),
          }),
          'rotation of the secret',
        );
      },
    },
    join(dataDir, 'api.sock'),
  );
  log.info(
    {
      id: self,
      clusterId: credentials.clusterId,
      addresses: transport.addresses(),
      api: api.socketPath,
      runtimes: runtimes.map((r) => r.kind),
    },
    'peer is up',
  );

  /** Own addresses first, then those of some others, so that a token is good while this machine is down. */
  function tokenAddresses(): string[] {
    const own = transport.addresses().map((a) => `${a}/p2p/${self}`);
    const others = driver.peer.topology
      .peers()
      .slice(0, 4)
      .flatMap((p) => p.addresses.slice(0, 2).map((a) => `${a}/p2p/${p.id}`));
    return [...own, ...others].slice(0, 16);
  }

  let stopping: Promise<void> | undefined;
  const stop = (): Promise<void> => {
    stopping ??= (async () => {
      host?.stop();
      driver.post({ type: 'leave' });
      await api.close();
      await driver.stop();
      await transport.stop();
      prober.close();
      for (const r of runtimes) await r.close();
      await keeper.idle();
      await store.close();
      clock.close();
      finish(0);
    })();
    return stopping;
  };
  return { apiSocket: api.socketPath, finished, stop };
}

import { encode } from '@ipld/dag-cbor';
import type { Connection, Stream } from '@libp2p/interface';
import { TaskOrgError, toTaskOrgError } from '../../model/errors.ts';
import { type ClusterId, type NodeId, nodeId } from '../../model/ids.ts';
import { LIMITS } from '../../model/limits.ts';
import type { JoinGrant, JoinRequest } from '../../ports/transport.ts';
import { abortConnection } from './abort-connection.ts';
import {
  type AdmissionKey,
  type AdmissionMode,
  agree,
  invitationKey,
  NOT_LISTED,
  type Parties,
  proveAsDialler,
  proveAsListener,
} from './admission.ts';
import type { StrangerAllowance } from './allowance.ts';
import { corkWrites } from './cork-writes.ts';
import type { Counters, TransportLog } from './counters.ts';
import { deadline } from './deadline.ts';
import { FrameChannel } from './frame-channel.ts';
import { FrameError } from './frame-reader.ts';
import { decodeJoinRequest, encodeGrant } from './join-messages.ts';

// Every connection starts as a stranger. It is admitted, or it is closed when its time is up. All other protocols ask
// `admitted(connection)` first.

export const admissionProtocol = (cluster: ClusterId): string => `/task-org/${cluster}/admit/1`;

/** A committed invitation, as this peer knows it. */
export interface Invitation {
  readonly id: string;
  /** 32 bytes. */
  readonly key: Uint8Array;
  /** Wall milliseconds. */
  readonly expiresAt: number;
  readonly usesLeft: number;
}

export interface GateLimits {
  /** From the connection's opening to admission. */
  readonly admissionMs: number;
  /** The same for a peer that holds the current secret and is not in the allow-list yet. */
  readonly heldMs: number;
  /** For the whole of joining, the commit included. */
  readonly joinMs: number;
  /** Connections not admitted yet. */
  readonly pendingConnections: number;
  readonly joinsInFlight: number;
}

export interface GateHooks {
  /** Newest first. */
  keys(): readonly AdmissionKey[];
  isKnown(peer: NodeId): boolean;
  onAdmitted(connection: Connection, peer: NodeId): void;
  /** A peer that has proven a secret of the cluster says that this one is not in its allow-list. */
  onStruck(by: NodeId): void;
  /** A connection ended, admitted or not. */
  onGone(connection: Connection, peer: NodeId, wasAdmitted: boolean): void;
  onJoinRequest(request: JoinRequest, signal: AbortSignal): Promise<JoinGrant>;
  wallNow(): number;
}

interface Visitor {
  readonly connection: Connection;
  readonly peer: NodeId;
  state: 'stranger' | 'proving' | 'joining' | 'accepted' | 'admitted';
  cancelDeadline: () => void;
  /** The deadline is prolonged once, whoever holds. */
  prolonged: boolean;
  /** The key it proved while outside the allow-list: good for a hold while it is the current one. */
  heldBy: string | null;
  /** Resolves or rejects a hold on the allow-list. */
  readonly hold: PromiseWithResolvers<void>;
}

const HELLO_FRAME_BYTES = 64 * 1024;

export class AdmissionGate {
  readonly #cluster: ClusterId;
  readonly #self: NodeId;
  readonly #limits: GateLimits;
  readonly #hooks: GateHooks;
  readonly #allowance: StrangerAllowance;
  readonly #counters: Counters;
  readonly #log: TransportLog;
  readonly #visitors = new Map<string, Visitor>();
  /** Connections that have proven nothing yet, oldest first. */
  readonly #unproven = new Set<Visitor>();
  #strangers = 0;
  #joins = 0;
  #invitations = new Map<string, Invitation>();

  constructor(
    options: { clusterId: ClusterId; self: NodeId; limits: GateLimits },
    hooks: GateHooks,
    allowance: StrangerAllowance,
    counters: Counters,
    log: TransportLog,
  ) {
    this.#cluster = options.clusterId;
    this.#self = options.self;
    this.#limits = options.limits;
    this.#hooks = hooks;
    this.#allowance = allowance;
    this.#counters = counters;
    this.#log = log;
  }

  /** True once this end has accepted the other: its streams may be served. */
  admitted(connection: Connection): boolean {
    const state = this.#visitors.get(connection.id)?.state;
    return state === 'accepted' || state === 'admitted';
  }

  setInvitations(invitations: readonly Invitation[]): void {
    this.#invitations = new Map(
      invitations.slice(0, LIMITS.invitations).map((invitation) => [invitation.id, invitation]),
    );
  }

  /** The allow-list changed: whoever was held and is in it now goes on; whoever was struck off is cut. */
  reviewAll(): void {
    for (const visitor of [...this.#visitors.values()]) {
      if (this.#hooks.isKnown(visitor.peer)) visitor.hold.resolve();
      else if (visitor.heldBy !== null && !this.#hooks.keys().some((key) => key.current && key.id === visitor.heldBy))
        visitor.hold.reject(new TaskOrgError('not_admitted', NOT_LISTED));
      else if (visitor.state === 'accepted' || visitor.state === 'admitted') this.#drop(visitor, 'struck_off');
    }
  }

  onOpen(connection: Connection): void {
    if (this.#visitors.has(connection.id)) return;
    this.#allowance.opened(connection);
    corkWrites(connection);
    if (this.#strangers >= this.#limits.pendingConnections) {
      // A flood of strangers must not keep members out: a member proves itself within milliseconds, so the oldest goes.
      const oldest = this.#unproven.values().next().value;
      if (oldest) this.#drop(oldest, 'refused_too_many_strangers');
      else {
        abortConnection(connection, 'too many connections wait for admission');
        return;
      }
    }
    const visitor: Visitor = {
      connection,
      peer: nodeId(connection.remotePeer.toString()),
      state: 'stranger',
      cancelDeadline: deadline(this.#limits.admissionMs, () => this.#overdue(visitor)),
      prolonged: false,
      heldBy: null,
      hold: Promise.withResolvers<void>(),
    };
    visitor.hold.promise.catch(() => {});
    this.#visitors.set(connection.id, visitor);
    this.#unproven.add(visitor);
    this.#strangers++;
    this.#counters.add('connections_opened');
    connection.addEventListener('close', () => this.onClose(connection), { once: true });
    if (connection.status !== 'open') {
      this.onClose(connection);
      return;
    }
    if (connection.direction === 'outbound') void this.#dial(visitor);
  }

  onClose(connection: Connection): void {
    const visitor = this.#visitors.get(connection.id);
    if (!visitor) return;
    this.#visitors.delete(connection.id);
    this.#unproven.delete(visitor);
    visitor.cancelDeadline();
    visitor.hold.reject(new Error('the connection has closed'));
    if (visitor.state !== 'admitted') this.#strangers--;
    this.#hooks.onGone(connection, visitor.peer, visitor.state === 'admitted');
  }

  /** The admission protocol's handler. */
  async serve(stream: Stream, connection: Connection): Promise<void> {
    const visitor = this.#visitors.get(connection.id);
    if (visitor?.state !== 'stranger' || connection.direction !== 'inbound') {
      this.#counters.add('refused_unexpected');
      stream.abort(new Error('admission is run once, by the dialler'));
      return;
    }
    visitor.state = 'proving';
    const channel = new FrameChannel(stream, HELLO_FRAME_BYTES);
    try {
      const proven = await proveAsListener(
        channel,
        (mode, ids) => this.#choose(visitor, mode, ids),
        this.#parties(visitor),
      );
      if (proven.mode === 'join') await this.#join(visitor, channel, proven.key.id);
      else await this.#settle(visitor, channel, proven.key);
    } catch (cause) {
      this.#refused(visitor, channel, cause);
    }
  }

  close(): void {
    for (const visitor of [...this.#visitors.values()]) {
      visitor.cancelDeadline();
      abortConnection(visitor.connection, 'stopping');
    }
  }

  async #dial(visitor: Visitor): Promise<void> {
    visitor.state = 'proving';
    let channel: FrameChannel | null = null;
    let proven = false;
    try {
      const stream = await visitor.connection.newStream(admissionProtocol(this.#cluster), {
        signal: AbortSignal.timeout(this.#limits.admissionMs),
      });
      channel = new FrameChannel(stream, HELLO_FRAME_BYTES);
      const key = await proveAsDialler(channel, 'member', this.#hooks.keys(), this.#parties(visitor));
      proven = true;
      await this.#settle(visitor, channel, key);
    } catch (cause) {
      if (proven && cause instanceof TaskOrgError && cause.message === NOT_LISTED && this.#hooks.isKnown(visitor.peer))
        this.#hooks.onStruck(visitor.peer);
      this.#refused(visitor, channel, cause);
    }
  }

  async #settle(visitor: Visitor, channel: FrameChannel, key: AdmissionKey): Promise<void> {
    // A removed peer may still know an older secret: only the current one buys time outside the allow-list.
    if (this.#hooks.isKnown(visitor.peer)) visitor.hold.resolve();
    else if (!key.current) visitor.hold.reject(new TaskOrgError('not_admitted', NOT_LISTED));
    else visitor.heldBy = key.id;
    const prolong = (): void => {
      if (visitor.prolonged) return;
      visitor.prolonged = true;
      this.#unproven.delete(visitor);
      this.#counters.add('held');
      this.#deadline(visitor, this.#limits.heldMs);
    };
    await agree(channel, visitor.hold.promise, () => this.#accept(visitor), prolong);
    if (this.#visitors.get(visitor.connection.id) !== visitor) return;
    visitor.cancelDeadline();
    visitor.state = 'admitted';
    this.#unproven.delete(visitor);
    this.#strangers--;
    this.#counters.add('admitted');
    channel.close().catch(() => {});
    this.#hooks.onAdmitted(visitor.connection, visitor.peer);
  }

  #accept(visitor: Visitor): void {
    this.#allowance.lift(visitor.connection);
    if (visitor.state === 'proving') visitor.state = 'accepted';
  }

  #choose(visitor: Visitor, mode: AdmissionMode, ids: readonly string[]): AdmissionKey | TaskOrgError {
    if (mode === 'member') {
      const keys = this.#hooks.keys();
      for (const id of ids) {
        const key = keys.find((candidate) => candidate.id === id);
        if (key) return key;
      }
      return new TaskOrgError('not_admitted', 'none of the secrets is known here');
    }
    const invitation = this.#invitations.get(ids[0] ?? '');
    if (!invitation)
      return new TaskOrgError(
        'token_invalid',
        'this invitation is not known here: used up, withdrawn, or not heard of yet',
      );
    if (invitation.expiresAt <= this.#hooks.wallNow())
      return new TaskOrgError('token_expired', 'this invitation has expired');
    // A peer whose grant was lost on the way asks again: its place is taken already, by itself.
    if (invitation.usesLeft <= 0 && !this.#hooks.isKnown(visitor.peer))
      return new TaskOrgError('token_invalid', 'this invitation is used up');
    if (this.#joins >= this.#limits.joinsInFlight)
      return new TaskOrgError('busy', 'too many peers are joining at once', { retryable: true });
    return invitationKey(invitation.id, invitation.key, this.#cluster);
  }

  async #join(visitor: Visitor, channel: FrameChannel, invitationId: string): Promise<void> {
    visitor.state = 'joining';
    this.#unproven.delete(visitor);
    this.#joins++;
    this.#deadline(visitor, this.#limits.joinMs);
    const controller = new AbortController();
    visitor.hold.promise.catch(() => controller.abort());
    try {
      const request = decodeJoinRequest(await channel.read(), visitor.peer, invitationId);
      const grant = await this.#hooks.onJoinRequest(request, controller.signal);
      channel.write(encodeGrant(grant));
      this.#counters.add('joined');
      this.#log.info({ peer: visitor.peer, name: request.name }, 'peer joined through this one');
      this.#deadline(visitor, this.#limits.admissionMs);
      // The other end closes once it has read the grant; the deadline sees to the rest.
      await channel.read().catch(() => {});
      await visitor.connection.close();
    } catch (cause) {
      if (!(cause instanceof FrameError)) {
        const error = toTaskOrgError(cause);
        this.#log.warn({ peer: visitor.peer, code: error.code, reason: error.message }, 'join refused');
        writeRefusal(channel, error);
      }
      throw cause;
    } finally {
      this.#joins--;
    }
  }

  #refused(visitor: Visitor, channel: FrameChannel | null, cause: unknown): void {
    if (!this.#visitors.has(visitor.connection.id)) return;
    const reason = cause instanceof FrameError ? cause.reason : cause instanceof TaskOrgError ? cause.code : 'failed';
    this.#counters.add(`refused_${reason}`);
    this.#log.debug({ peer: visitor.peer, reason, detail: String(cause) }, 'connection not admitted');
    if (cause instanceof FrameError || channel === null) {
      this.#drop(visitor, 'dropped');
      return;
    }
    // Give the refusal a moment to arrive; the other end needs to know why.
    this.#deadline(visitor, 100);
  }

  #overdue(visitor: Visitor): void {
    if (this.#visitors.get(visitor.connection.id) === visitor && visitor.state !== 'admitted')
      this.#drop(visitor, 'refused_deadline');
  }

  #deadline(visitor: Visitor, ms: number): void {
    if (visitor.state === 'admitted' || !this.#visitors.has(visitor.connection.id)) return;
    visitor.cancelDeadline();
    visitor.cancelDeadline = deadline(ms, () => this.#overdue(visitor));
  }

  #drop(visitor: Visitor, counter: string): void {
    this.#counters.add(counter);
    abortConnection(visitor.connection, counter);
    this.onClose(visitor.connection);
  }

  #parties(visitor: Visitor): Parties {
    const outbound = visitor.connection.direction === 'outbound';
    return {
      clusterId: this.#cluster,
      dialler: outbound ? this.#self : visitor.peer,
      listener: outbound ? visitor.peer : this.#self,
    };
  }
}

/** A refusal with all that a person needs, inside the proven channel. */
function writeRefusal(channel: FrameChannel, error: TaskOrgError): void {
  try {
    channel.write(
      encode({
        t: 'refused',
        c: error.code,
        r: error.message.slice(0, 512),
        x: error.retryable,
        h: error.hint ?? null,
      }),
    );
  } catch {
    // The stream is gone: nobody is left to be told.
  }
}
